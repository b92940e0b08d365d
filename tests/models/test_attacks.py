"""What somebody who wants harm may do to a release before it is loaded, and that it is refused.

Each test is named for its row of the project's table of attacks (5.1 to 5.17); those on packing and publishing are in
tests/release/test_attacks.py. An attacker here may write every file and seal the manifest anew, unless a test says otherwise.
"""

import io
import json
import pickle
import shutil
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from glideslope.errors import CheckpointError, GlideslopeError, ReleaseError, RequestError, VerificationError
from glideslope.models.drawing.pipeline import GlidePipeline
from glideslope.models.loading.components import WEIGHTS_NAME
from glideslope.models.published.torch_archive import TorchArchive
from glideslope.models.training.checkpoints import load_tensors, save_tensors
from glideslope.recipe.components import CONFIG_NAME
from glideslope.release.evidence.layout import check_content, check_name
from glideslope.store.file_lists import list_files, measure_files
from glideslope.store.weight_files import index_name, weights_name
from glideslope.store.whole_files import write_bytes, write_json
from glideslope.trust.hashed_files import compare_tensors, hash_files
from glideslope.trust.release_manifest import ReleaseManifest

from ..hub.faults import Fault
from ..hub.loopback import LoopbackHub
from ..hub.state import StoredFile
from .archives import read_archive, save_as_published, write_archive
from .conftest import sign_again
from .hub_client import REPO, Load, put, root_of, sign, stated, variation
from .loading.test_components import shard

BASE_WEIGHTS = f"base/{WEIGHTS_NAME}"


class Payload:
    """Runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def refuse(release: Path, told: str, error: type[GlideslopeError] | tuple[type[GlideslopeError], ...] = GlideslopeError) -> None:
    """The release is refused, verified or not, by a manifest of the attacker's own."""
    files = measure_files(release, [path for path in list_files(release) if path != "manifest.json"])
    write_bytes(release / "manifest.json", ReleaseManifest(tuple(sorted(files.values())), ()).to_bytes())  # it asks nothing of the weights
    for verify in ("required", "off"):
        with pytest.raises(error, match=told):
            GlidePipeline.from_pretrained(release, device="cpu", verify=verify)  # type: ignore[arg-type]  # both are values it takes


def test_5_1_a_pickle_in_the_place_of_weights_is_never_opened(release: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    state: dict[str, Any] = {"weight": torch.zeros(3), "payload": Payload(marker)}
    pickled = {"plain": pickle.dumps(state), "numpy": b"\x93NUMPY\x01\x00" + pickle.dumps(state)}
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(3)}, buffer)  # what PyTorch writes: a zip archive with a pickle
    pickled["torch"] = buffer.getvalue()
    for data in pickled.values():
        (release / BASE_WEIGHTS).write_bytes(data)
        refuse(release, "not a readable safetensors file", CheckpointError)
    assert not marker.exists()
    pickle.loads(pickled["plain"])
    assert marker.exists()  # it would have run


@pytest.mark.parametrize("name", ["base/config.json", "README.md", BASE_WEIGHTS, "evidence/claims.json"])
def test_5_1_what_is_pickled_or_packed_is_known_by_its_bytes_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    archive, tar, array = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("data.pkl", pickle.dumps(3))
    with tarfile.open(fileobj=tar, mode="w") as opened_tar:
        opened_tar.addfile(tarfile.TarInfo("data.pkl"))
    np.save(array, np.array([{"object": 1}], dtype=object), allow_pickle=True)
    protocols = [pickle.dumps({"a": [1]}, protocol) for protocol in range(2, 6)]
    packed = [b"7z\xbc\xaf\x27\x1c\0\4" + bytes(100), b"\x1f\x8b\x08" + bytes(60)]
    for data in (archive.getvalue(), tar.getvalue(), array.getvalue(), *protocols, *packed):
        (tmp_path / "file").write_bytes(data)
        with pytest.raises(ReleaseError):
            check_content(tmp_path / "file", name)


def test_5_2_a_pickle_beside_missing_weights_is_no_fallback(release: Path) -> None:
    for name in ("diffusion_pytorch_model.bin", "pytorch_model.bin", "model.pt", "diffusion_pytorch_model.ckpt"):
        torch.save(load_tensors(release / BASE_WEIGHTS), release / "base" / name)
    (release / BASE_WEIGHTS).unlink()
    refuse(release, "there are no weights in safetensors files, and no others are read", CheckpointError)


@pytest.mark.parametrize("target", [
    "../../secret.safetensors", "/etc/passwd", "C:\\secret.safetensors", "..\\secret.safetensors", "sub/" + weights_name(None, 1, 2),
    "\\\\server\\share.safetensors", weights_name(), weights_name("fp16", 1, 2)])
def test_5_3_an_index_cannot_point_outside_its_directory(release: Path, target: str) -> None:
    save_tensors(release.parent / "secret.safetensors", {"secret": torch.zeros(1)})
    shard(release / "base", 2)
    (release / BASE_WEIGHTS).unlink()
    edit(release / "base" / index_name(), lambda index: index["weight_map"].update({"out.2.bias": target}))
    refuse(release, "which is no shard of these weights", CheckpointError)


EVIL_NAMES = ["../x.json", "/x.json", "a/../../x.json", "C:\\x.json", "a\\b.json", "a:b.json", "con.json", "aux", "x ", "x.", "x?.json",
              "\u00e9.json", "e\u0301.json", "a" * 201, "-rf", ".hidden", "a//b", "\u202egnp.json", "x\n.json"]


@pytest.mark.parametrize("name", EVIL_NAMES)
def test_5_4_names_that_not_every_machine_holds_are_refused_by_the_packer(name: str) -> None:
    with pytest.raises(ReleaseError):
        check_name(name)


@pytest.mark.parametrize("name", [
    "../x.json", "/x.json", "a/../../x.json", "C:\\x.json", "a\\b.json", "a:b.json", "a//b", "./x", "manifest.json"])
def test_5_4_a_manifest_that_lists_a_path_outside_the_release_is_refused(release: Path, name: str) -> None:
    value = json.loads((release / "manifest.json").read_text())
    value["files"] = sorted([*value["files"], {"path": name, "sha256": "0" * 64, "size_bytes": 1}], key=lambda entry: entry["path"])
    with pytest.raises(VerificationError, match="not a relative path below the release"):
        ReleaseManifest.from_bytes((json.dumps(value, sort_keys=True, indent=2) + "\n").encode())


def test_5_4_a_hub_that_holds_such_names_is_not_loaded_from(hub: LoopbackHub, load: Load, whole_release: Path) -> None:
    for name in ("C:\\x.json", "..\\..\\x.json", "base/CONFIG.json"):
        put(hub, REPO, whole_release, extra={name: b"{}"})
        told = load()
        assert (told["error"], f"{name}: file is not in the manifest" in told["message"]) == ("VerificationError", True)


@pytest.mark.parametrize(("change", "told"), [
    (lambda c: c.update(xf_width=10**9), "xf_width"), (lambda c: c.update(n_vocab=10**18), "n_vocab"),
    (lambda c: c.update(xf_layers=10**9), "xf_layers"),
    (lambda c: c.update(model_channels=10**6), "model_channels"), (lambda c: c.update(channel_mult=[16] * 10**5), "channel_mult"),
    (lambda c: c.update(num_res_blocks=10**6), "num_res_blocks"), (lambda c: c.update(image_size=2**40), "image_size"),
    (lambda c: c.update(image_size=1024, model_channels=1024, channel_mult=[16] * 8, num_res_blocks=4, n_vocab=10**6, xf_width=4096,
                        xf_layers=64, xf_heads=64), "attention over 512 x 512 places"),
    (lambda c: c.update(model_channels=1024, channel_mult=[16] * 4, num_res_blocks=4, n_vocab=10**6, xf_width=4096, xf_layers=64,
                        xf_heads=64), "does not fit TextConditionedUNet"),
    (lambda c: c.update(dropout="__import__('os')"), "dropout"),
    (lambda c: c.update(auto_map={"AutoModel": "evil.Model"}), "auto_map: unknown key"),
    (lambda c: c.update(_class_name=["evil", "Model"]), "_class_name"), (lambda c: c.update(_class_name="builtins.eval"), "_class_name")])
def test_5_5_a_configuration_that_asks_for_the_impossible_takes_no_memory(
        release: Path, change: Callable[[dict[str, Any]], Any], told: str) -> None:
    edit(release / "base" / CONFIG_NAME, change)
    before = psutil.Process().memory_info().rss
    refuse(release, told, CheckpointError)
    assert psutil.Process().memory_info().rss - before < 300_000_000


@pytest.mark.parametrize("content", [
    b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b"[" * 10**6, b'{"_class_name": "TextConditionedUNet", "_class_name": "NoisedClip"}',
    b'{"n_vocab": ' + b"9" * 100_000 + b"}", b'{"x": "' + b"y" * 10**6 + b'"}', b'{"n_vocab": NaN}', b'{"n_vocab": 1e999}', b"\xff\xfe{}"])
def test_5_5_deep_ambiguous_and_endless_json_is_refused_everywhere(release: Path, content: bytes) -> None:
    for path in ("base/config.json", "model_index.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer.json"):
        kept = (release / path).read_bytes()
        (release / path).write_bytes(content)
        refuse(release, path.replace(".", r"\."))
        (release / path).write_bytes(kept)
    (release / "manifest.json").write_bytes(content)
    with pytest.raises(VerificationError):
        GlidePipeline.from_pretrained(release)


def test_5_6_code_that_a_release_names_is_never_imported(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "ran"
    for path in ("pipeline.py", "modeling_glide.py", "base/modeling_glide.py", "base/__init__.py"):
        (release / path).write_text(f"open({str(marker)!r}, 'w')\n")
    with pytest.raises(VerificationError, match=r"pipeline\.py: file is not in the manifest"):
        GlidePipeline.from_pretrained(release)
    monkeypatch.chdir(release)
    monkeypatch.syspath_prepend(str(release))
    sign_again(release)
    GlidePipeline.from_pretrained(release, device="cpu")  # listed by whoever sealed it, and still nothing is run
    index = json.loads((release / "model_index.json").read_text())
    for change in ({"_class_name": ["pipeline", "GlidePipeline"], "base": ["modeling_glide", "TextConditionedUNet"]},
                   {"base": ["glideslope.models.os", "system"]}, {"custom": ["pipeline", "Evil"]}):
        (release / "model_index.json").write_text(json.dumps(index | change))
        refuse(release, r"model_index\.json: ", CheckpointError)
    assert not marker.exists()
    assert not {"pipeline", "modeling_glide"} & set(sys.modules)


def header(text: str | dict[str, Any], data: bytes = b"") -> bytes:
    encoded = (text if isinstance(text, str) else json.dumps(text)).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(("data", "told"), [
    (header('{"a":' + json.dumps(ONE) + ', "a":' + json.dumps(ONE) + "}", bytes(4)), "the key 'a' occurs twice"),
    (header("   " + json.dumps({"a": ONE}), bytes(4)), "does not start with a brace"),
    (header({"../../a": ONE}, bytes(4)), "is no name of a tensor"), (header({"C:\\a": ONE}, bytes(4)), "is no name of a tensor"),
    (header({f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(100_000)}), "expected 2 to 2000000"),
    (header({"__metadata__": {"x": "y" * 64_000_000}}), "expected 2 to 2000000"), (struct.pack("<Q", 2**62), "expected 2 to 2000000"),
    (header({"a": ONE, "__metadata__": {"format": "pt", "loader": "evil"}}, bytes(4)), "at most a format is expected"),
    (header({"a": ONE}, bytes(5)), "tensors end at byte 4"), (header({"a": ONE, "b": ONE}, bytes(4)), "overlap or leave a hole"),
    (header({"a": ONE | {"shape": [2**62, 4]}}, bytes(4)), "do not fit")])
def test_5_7_odd_safetensors_are_refused(release: Path, data: bytes, told: str) -> None:
    (release / BASE_WEIGHTS).write_bytes(data)
    refuse(release, f"not a readable safetensors file .*{told}", CheckpointError)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_5_7_weights_that_are_not_finite_are_refused(release: Path, value: float) -> None:
    tensors = load_tensors(release / BASE_WEIGHTS)
    tensors["out.2.weight"].view(-1)[-1] = value
    save_tensors(release / BASE_WEIGHTS, tensors)
    refuse(release, r"tensor out\.2\.weight holds values that are not finite", CheckpointError)


def test_5_8_published_archives_that_swell_are_refused(tmp_path: Path) -> None:
    members = read_archive(save_as_published(tmp_path / "good.pt", {"weight": torch.zeros(1_000_000)}))
    bomb = write_archive(tmp_path / "deflated.pt", members, method=zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 50_000
    with pytest.raises(CheckpointError), TorchArchive(bomb):
        pass
    strides = save_as_published(tmp_path / "strides.pt", {"weight": torch.zeros(1).expand(10**14)})
    assert strides.stat().st_size < 10_000
    with pytest.raises(CheckpointError, match=r"impossible storage|are not contiguous"), TorchArchive(strides):
        pass


def test_5_9_bytes_that_changed_on_the_way_are_refused_and_the_tensor_is_named(
        hub: LoopbackHub, load: Load, whole_release: Path, tmp_path: Path) -> None:
    put(hub, REPO, whole_release)
    hub.inject(Fault("corrupt", "GET", f"/resolve/.*/{BASE_WEIGHTS}"))
    told = load()
    assert (told["error"], f"{BASE_WEIGHTS}: sha256 is" in told["message"]) == ("VerificationError", True)
    copy = Path(shutil.copytree(whole_release, tmp_path / "copy"))
    tensors = load_tensors(copy / BASE_WEIGHTS)
    tensors["out.2.bias"][0] += 1
    save_tensors(copy / BASE_WEIGHTS, tensors)
    problems = compare_tensors(ReleaseManifest.read(copy / "manifest.json"), hash_files(copy, list_files(copy)))
    assert len(problems) == 1
    assert problems[0].startswith("base: tensor out.2.bias is F32 [6] with sha256 ")


def test_5_10_a_look_alike_with_the_same_card_is_told_from_the_original_by_its_signer(
        hub: LoopbackHub, load: Load, release: Path, keys: dict[str, tuple[Path, str]], tmp_path: Path) -> None:
    sign(release, keys["ours"][0])
    put(hub, REPO, release, extra=stated(root_of(release), key=keys["ours"][0]))
    assert load(signer=keys["ours"][1], lock=tmp_path / "lock")["clip"]
    save_tensors(release / BASE_WEIGHTS, {name: tensor + 1 for name, tensor in load_tensors(release / BASE_WEIGHTS).items()})
    sign_again(release)
    sign(release, keys["theirs"][0])
    put(hub, "tester-ai/model", release)
    del hub.repositories[REPO]
    put(hub, REPO, release)  # the account was deleted, and its name taken by somebody else
    for call in ({"pretrained": "tester-ai/model"}, {}):
        told = load(signer=keys["ours"][1], cache_dir=tmp_path / "new", **call)
        assert (told["error"], "somebody else signed this release" in told["message"]) == ("VerificationError", True)
    told = load(pretrained="tester-ai/model", revision="main", lock=tmp_path / "lock")
    assert (told["error"], "repository is tester-ai/model, the lock file says tester/model" in told["message"]) == ("VerificationError", True)
    told = load(lock=tmp_path / "lock", cache_dir=tmp_path / "new")
    assert told["error"] in ("DownloadError", "VerificationError")  # the pinned commit is gone


def test_5_11_a_branch_that_moves_while_it_is_loaded_gives_files_of_one_commit(
        hub: LoopbackHub, load: Load, whole_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = put(hub, REPO, whole_release)
    second = Path(shutil.copytree(whole_release, tmp_path / "second"))
    save_tensors(second / BASE_WEIGHTS, {name: tensor + 1 for name, tensor in load_tensors(second / BASE_WEIGHTS).items()})
    variation(second, "second")
    told_first = load(cache_dir=tmp_path / "before")

    def move(phase: str, method: str, path: str) -> None:
        if phase == "after" and path == f"/api/models/{REPO}":
            put(hub, REPO, second)

    monkeypatch.setattr(hub, "watcher", move)
    told = load()
    assert hub.repositories[REPO].branches["main"] != first.oid  # it has moved
    assert (told["base"], told["told"]) == (told_first["base"], told_first["told"])
    assert f"at {first.oid[:12]}" in told["told"][0]


def test_5_12_weights_that_somebody_replaced_on_the_hub_are_refused(
        hub: LoopbackHub, load: Load, release: Path, keys: dict[str, tuple[Path, str]]) -> None:
    sign(release, keys["ours"][0])
    kept = put(hub, REPO, release)
    save_tensors(release / BASE_WEIGHTS, {name: tensor + 1 for name, tensor in load_tensors(release / BASE_WEIGHTS).items()})
    put(hub, "tester/aside", release)
    replaced: dict[str, StoredFile] = {**kept.files, BASE_WEIGHTS: hub.repositories["tester/aside"].find("main").files[BASE_WEIGHTS]}
    hub.repositories[REPO].add_commit("main", replaced, "Converted by a helpful robot")
    assert f"{BASE_WEIGHTS}: sha256 is" in load()["message"]
    sign_again(release)
    put(hub, REPO, release)  # with a manifest that fits: the signature does not
    assert "the signature is about another release" in load()["message"]
    (release / "manifest.dsse.json").unlink()
    put(hub, REPO, release)  # and without a signature: whoever asks for one is not served
    assert "is not signed" in load(signer=keys["ours"][1])["message"]


@pytest.mark.parametrize("path", [
    ".github/workflow.yml", "base/.git/config", ".gitmodules", "evil.json", ".gitattributes.bak", "base/.cache", "manifest.sig"])
def test_5_14_a_file_that_nobody_vouches_for_is_refused(release: Path, path: str) -> None:
    (release / path).parent.mkdir(parents=True, exist_ok=True)
    (release / path).write_text("added")
    with pytest.raises(VerificationError, match="file is not in the manifest"):
        GlidePipeline.from_pretrained(release)


def test_5_14_a_signature_that_was_stripped_emptied_or_exchanged_is_refused(release: Path, keys: dict[str, tuple[Path, str]]) -> None:
    ours = keys["ours"][1]
    sign(release, keys["ours"][0])
    GlidePipeline.from_pretrained(release, signer=ours, device="cpu", components=[])
    good = json.loads((release / "manifest.dsse.json").read_text())
    for bad in ({"signatures": []}, {"signatures": good["signatures"] * 2}, {"payload": ""}, {"payloadType": "text/plain"},
                {"signatures": [good["signatures"][0] | {"sig": ""}]}, {"signatures": [good["signatures"][0] | {"keyid": keys["theirs"][1]}]}):
        write_json(release / "manifest.dsse.json", good | bad)
        for signer in (None, ours):
            with pytest.raises(VerificationError):
                GlidePipeline.from_pretrained(release, signer=signer)
    (release / "manifest.dsse.json").unlink()
    with pytest.raises(VerificationError, match="the release is not signed"):
        GlidePipeline.from_pretrained(release, signer=ours)


def test_5_14_a_cache_that_links_elsewhere_is_refused(hub: LoopbackHub, load: Load, whole_release: Path, tmp_path: Path) -> None:
    commit = put(hub, REPO, whole_release)
    load()
    linked = tmp_path / "cache" / "models--tester--model" / "snapshots" / commit.oid / "base" / CONFIG_NAME
    (tmp_path / "elsewhere.json").write_bytes(linked.read_bytes())
    linked.unlink()
    linked.symlink_to(tmp_path / "elsewhere.json")
    told = load()
    assert (told["error"], "a link that leads out of the release" in told["message"]) == ("VerificationError", True)


def test_5_15_a_release_that_was_taken_back_is_refused_with_the_reason(hub: LoopbackHub, load: Load, whole_release: Path) -> None:
    commit = put(hub, REPO, whole_release)
    put(hub, REPO, whole_release, extra=stated("0" * 64, withdrawn=root_of(whole_release)))
    for revision in (None, commit.oid):
        told = load(revision=revision)
        assert told["error"] == "VerificationError"
        assert "it draws people" in told["message"]


def test_5_16_a_token_is_not_sent_over_http_to_another_machine(load: Load) -> None:
    told = load(endpoint="http://hub.example.org", token="hf_secret")
    assert told["error"] == "RequestError"
    assert "your token would travel where others can read it" in told["message"]
    assert "hf_secret" not in json.dumps(told)


def test_5_17_evidence_that_was_touched_up_is_refused(release: Path) -> None:
    (release / "evidence").mkdir()
    (release / "evidence" / "claims.json").write_text('{"leaks": 3}')
    sign_again(release)
    GlidePipeline.from_pretrained(release, device="cpu", components=[])
    (release / "evidence" / "claims.json").write_text('{"leaks": 0}')
    with pytest.raises(VerificationError, match=r"evidence/claims\.json: sha256 is"):
        GlidePipeline.from_pretrained(release)


def test_wishes_that_would_switch_a_check_off_without_saying_so_are_refused(release: Path) -> None:
    for wish in ({"verify": "off", "signer": "0" * 64}, {"verify": "never"}, {"verify": None}, {"verify": False}):
        with pytest.raises(RequestError):
            GlidePipeline.from_pretrained(release, **wish)


@pytest.mark.parametrize("part", [
    {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 40}},
    {"padding": {"strategy": {"Fixed": 4_000_000_000}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
                 "pad_token": "<|endoftext|>"}}])
def test_a_tokenizer_that_makes_terabytes_of_one_caption_is_never_built(release: Path, part: dict[str, Any]) -> None:
    path = release / "tokenizer/tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | part))
    refuse(release, f"not a tokenizer.json of a kind that is known: {next(iter(part))}", CheckpointError)

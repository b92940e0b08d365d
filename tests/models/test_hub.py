"""Loading releases from a hub over real sockets with the real client, each load in a process of its own."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from glideslope.errors import CheckpointError, RequestError
from glideslope.models.networks.unet import TextConditionedUNet
from glideslope.trust.hub import check_endpoint, resolve

from ..hub.faults import Fault
from ..hub.loopback import OWNER, LoopbackHub
from .conftest import sign_again
from .hub_client import READER, REPO, Load, Strangers, put, root_of, sign, stated, variation
from .loading.test_components import shard

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="session")
def base_digest(unet: TextConditionedUNet) -> str:
    state = unet.state_dict()
    return hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest()


def fetched(hub: LoopbackHub) -> set[str]:
    return {served.path.split("/", 5)[-1] for served in hub.log if served.method == "GET" and "/resolve/" in served.path}


def looked_up(hub: LoopbackHub) -> list[str]:
    """Requests that name a branch or tag, or leave it to the hub, rather than name a commit."""
    return [served.path for served in hub.log if not re.search("[0-9a-f]{40}", served.path) and "/models/" in served.path]


def test_a_release_loads_with_one_look_up_and_every_other_request_names_the_commit(
        hub: LoopbackHub, load: Load, release: Path, base_digest: str) -> None:
    commit = put(hub, REPO, variation(release, "not needed to load"))
    told = load(verify="required")
    assert (told["base"], told["clip"]) == (base_digest, True)
    assert told["told"] == [f"{REPO} at {commit.oid[:12]}: manifest root {root_of(release)}, not signed"]
    assert looked_up(hub) == [f"/api/models/{REPO}"]
    assert fetched(hub) == {"manifest.json", "model_index.json", "tokenizer/tokenizer.json", "scheduler/scheduler_config.json",
                            "base/config.json", f"base/{WEIGHTS}", "noised_clip/config.json", f"noised_clip/{WEIGHTS}"}


def test_components_that_are_not_asked_for_are_not_fetched(hub: LoopbackHub, load: Load, full_release: Path) -> None:
    put(hub, REPO, full_release)
    told = load(components=["base_inpaint"])
    assert (told["clip"], told["companions"]) == (False, ["base_inpaint"])
    assert {path.split("/")[0] for path in fetched(hub) if path.endswith(".safetensors")} == {"base", "base_inpaint"}
    assert load()["companions"] == ["base_inpaint", "upsampler", "upsampler_inpaint"]
    assert load(components=["vae"])["error"] == "RequestError"


def test_branches_tags_and_commits_are_loaded_and_others_refused(hub: LoopbackHub, load: Load, whole_release: Path, tmp_path: Path) -> None:
    first = put(hub, REPO, whole_release)
    copy = variation(Path(shutil.copytree(whole_release, tmp_path / "second")), "second")
    second = put(hub, REPO, copy)
    hub.repositories[REPO].tags["v1"] = first.oid
    for revision, commit in (("v1", first), (first.oid, first), ("main", second), (second.oid, second), (None, second)):
        assert load(revision=revision)["told"][0].startswith(f"{REPO} at {commit.oid[:12]}: manifest root")
    for revision in ("v2", "0" * 40):
        told = load(revision=revision)
        assert told["error"] == "DownloadError"
        assert f"has no revision '{revision}'" in told["message"]


def test_private_and_gated_repositories_need_a_token_that_may_read_them(hub: LoopbackHub, load: Load, whole_release: Path) -> None:
    repository = hub.create_repository(REPO, is_private=True)
    put(hub, REPO, whole_release)
    for token, said in ((None, "or it is not shown to you"), (READER.token, "or it is not shown to you"), ("hf_nobody", "refused your token")):
        told = load(token=token)
        assert told["error"] == "DownloadError"
        assert said in told["message"]
    assert load(token=OWNER.token)["clip"]
    repository.is_private, repository.gated = False, "manual"
    for token in (None, READER.token):
        told = load(token=token, cache_dir=None)
        assert told["error"] == "DownloadError"
        assert "is gated; accept its terms on its page" in told["message"]
    repository.granted.add(READER.name)
    assert load(env={"HF_TOKEN": READER.token})["clip"]


def test_a_repository_that_is_none_says_so(load: Load) -> None:
    told = load(pretrained="tester/nothing")
    assert told["error"] == "DownloadError"
    assert "there is no directory of that name here" in told["message"]
    assert load(pretrained="../nothing/here")["error"] == "CheckpointError"


def test_what_was_loaded_once_loads_offline_and_asks_nobody(hub: LoopbackHub, load: Load, whole_release: Path, base_digest: str) -> None:
    put(hub, REPO, whole_release)
    assert load(components=[])["base"] == base_digest
    hub.log.clear()
    told = load(components=[], endpoint="http://127.0.0.1:9")  # that nobody answers is not chosen
    assert (told["error"], "HF_HUB_OFFLINE=1" in told["message"]) == ("DownloadError", True)
    for call in ({"env": {"HF_HUB_OFFLINE": "1"}}, {"local_files_only": True}):
        assert load(components=[], verify="required", **call)["base"] == base_digest
        told = load(**call)
        assert told["error"] == "DownloadError"
        assert "is not whole in the cache, and the Hub was not reached" in told["message"]
        assert load(cache_dir=None, components=[], **call)["error"] == "DownloadError"
    assert hub.log == []


def test_snapshots_of_links_copies_with_the_clients_notes_and_plain_copies_load_as_directories(
        hub: LoopbackHub, load: Load, strangers: Strangers, full_release: Path, tmp_path: Path, base_digest: str) -> None:
    commit = put(hub, REPO, full_release)
    load(components=["upsampler"])
    snapshot = tmp_path / "cache" / "models--tester--model" / "snapshots" / commit.oid
    assert (snapshot / "base" / WEIGHTS).is_symlink()
    assert load(pretrained=snapshot, components=["upsampler"], verify="required")["base"] == base_digest
    local = Path(strangers.ask(hub.endpoint, {"repo_id": REPO, "local_dir": tmp_path / "local"})["path"])
    assert (local / ".cache" / "huggingface").is_dir() and (local / ".gitattributes").is_file()
    assert load(pretrained=local, verify="required")["base"] == base_digest
    (local / ".cache" / "huggingface" / "download" / "run.py").write_text("1")
    assert "run.py: file is not in the manifest" in load(pretrained=local)["message"]
    shutil.copytree(snapshot, tmp_path / "plain")
    assert load(pretrained=tmp_path / "plain", components=["upsampler"], verify="required")["base"] == base_digest
    told = load(pretrained=tmp_path / "plain", verify="required")
    assert told["error"] == "VerificationError"
    assert "noised_clip/config.json: file is missing" in told["message"]


@pytest.mark.parametrize("path", [f"base/{WEIGHTS}", "base/config.json", "tokenizer/tokenizer.json", "model_index.json"])
def test_a_download_that_was_changed_on_the_way_is_refused_until_it_is_removed_from_the_cache(
        hub: LoopbackHub, load: Load, whole_release: Path, base_digest: str, path: str) -> None:
    put(hub, REPO, whole_release)
    hub.inject(Fault("corrupt", "GET", f"/resolve/.*/{path}"))
    for _ in range(2):  # the client keeps what it has, of the right size as it is
        told = load()
        assert told["error"] == "VerificationError"
        assert path in told["message"] and "sha256 is" in told["message"]
    assert hub.met
    named = re.search(r"a damaged download\? remove (\S+) and (\S+), then load again", told["message"])
    assert named is not None
    for file in named.groups():
        Path(file).unlink()
    assert load()["base"] == base_digest


def test_the_clients_other_way_to_transfer_is_verified_as_well(
        strangers: Strangers, whole_release: Path, tmp_path: Path, base_digest: str) -> None:
    with LoopbackHub(has_xet=True) as hub:
        hub.create_repository(REPO)
        files = {path.relative_to(whole_release).as_posix(): path for path in whole_release.rglob("*") if path.is_file()}
        xet = {"HF_HUB_DISABLE_XET": "0", "HF_XET_CACHE": str(tmp_path / "xet")}
        told = strangers.ask(hub.endpoint, {"repo_id": REPO, "upload": files, "token": OWNER.token}, **xet)
        assert "sha" in told
        call = {"pretrained": REPO, "cache_dir": tmp_path / "cache"}
        assert strangers.ask(hub.endpoint, call, **xet)["base"] == base_digest
        assert [served.path for served in hub.log if "xet-read-token" in served.path]
        hub.inject(Fault("corrupt", "GET", "xet-read-token"))
        told = strangers.ask(hub.endpoint, call | {"cache_dir": tmp_path / "again"}, **(xet | {"HF_XET_CACHE": str(tmp_path / "other")}))
        assert told["error"] == "VerificationError"
        assert "safetensors: sha256 is" in told["message"]


def test_a_manifest_that_was_changed_on_the_way_is_refused(hub: LoopbackHub, load: Load, whole_release: Path) -> None:
    put(hub, REPO, whole_release)
    hub.inject(Fault("corrupt", "GET", "/resolve/.*/manifest.json", times=None))
    told = load()
    assert told["error"] == "VerificationError"
    assert "a damaged download? remove " in told["message"]


def test_a_download_that_is_cut_for_good_is_an_error_and_one_that_is_cut_once_is_none(
        hub: LoopbackHub, load: Load, whole_release: Path, base_digest: str) -> None:
    put(hub, REPO, whole_release)
    hub.inject(Fault("cut", "GET", f"/resolve/.*/base/{WEIGHTS}", times=None))
    told = load()
    assert told["error"] == "DownloadError"
    assert "fetching failed" in told["message"]
    hub.clear_faults()
    assert load()["base"] == base_digest


def test_a_commit_that_differs_from_its_manifest_is_refused_before_its_weights_are_fetched(
        hub: LoopbackHub, load: Load, release: Path) -> None:
    (release / "scheduler" / "scheduler_config.json").rename(release / "aside")
    put(hub, REPO, release)
    told = load()
    assert told["error"] == "VerificationError"
    assert "scheduler/scheduler_config.json: file is missing; aside: file is not in the manifest" in told["message"]
    (release / "aside").rename(release / "scheduler" / "scheduler_config.json")
    data = (release / "base" / WEIGHTS).read_bytes()
    for changed, said in ((data[:-1] + bytes([data[-1] ^ 1]), "sha256 is"), (data + b"\0", "size is")):
        (release / "base" / WEIGHTS).write_bytes(changed)
        put(hub, REPO, release)
        assert f"base/{WEIGHTS}: {said}" in load()["message"]
    assert not [path for path in fetched(hub) if path.endswith(".safetensors")]


def test_a_variant_is_fetched_alone(hub: LoopbackHub, load: Load, release: Path, base_digest: str) -> None:
    for name in ("base", "noised_clip"):
        shard(release / name, 2, "fp16", __import__("torch").float16)
    sign_again(release)
    put(hub, REPO, release)
    told = load(variant="fp16", verify="required")
    assert told["dtype"] == "torch.float16"
    assert told["base"] != base_digest
    assert {path for path in fetched(hub) if "diffusion" in path} == {
        f"{name}/diffusion_pytorch_model.{rest}" for name in ("base", "noised_clip")
        for rest in ("fp16-00001-of-00002.safetensors", "fp16-00002-of-00002.safetensors", "safetensors.index.fp16.json")}
    told = load(variant="bf16")
    assert (told["error"], "has no bf16 weights of base, only as trained and fp16" in told["message"]) == ("RequestError", True)
    assert load(variant="fp8")["error"] == "RequestError"


def test_a_release_without_a_manifest_loads_unless_verification_is_required(hub: LoopbackHub, load: Load, release: Path) -> None:
    (release / "manifest.json").unlink()
    put(hub, REPO, release)
    assert "so nothing of it is verified" in load()["told"][0]
    for call in ({"verify": "required"}, {"signer": "0" * 64}, {"lock": release / "lock"}):
        told = load(**call)
        assert told["error"] == "VerificationError"
        assert "manifest.json is missing, and verification is required" in told["message"]


def test_code_in_a_repository_is_refused_and_never_imported(hub: LoopbackHub, load: Load, whole_release: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    code = f"open({str(marker)!r}, 'w')\n".encode()
    put(hub, REPO, whole_release, extra={"pipeline.py": code, "base/modeling_glide.py": code})
    for verify in ("auto", "required"):
        told = load(verify=verify)
        assert told["error"] == "VerificationError"
        assert "base/modeling_glide.py: file is not in the manifest; pipeline.py: file is not in the manifest" in told["message"]
    assert load(verify="off")["clip"]
    assert not marker.exists()
    assert not [path for path in fetched(hub) if path.endswith(".py")]


def test_a_signer_is_told_and_can_be_required(hub: LoopbackHub, load: Load, release: Path, keys: dict[str, tuple[Path, str]]) -> None:
    (ours, our_id), (_, their_id) = keys["ours"], keys["theirs"]
    sign(release, ours)
    put(hub, REPO, release, extra=stated(root_of(release), key=ours))
    assert load()["told"][0].endswith(f"signed by {our_id}")
    assert load(signer=our_id, verify="auto")["clip"]
    assert load(signer=f"{ours}.pub")["clip"]
    told = load(signer=their_id)
    assert told["error"] == "VerificationError"
    assert f"signed by {our_id[:16]}…, expected {their_id[:16]}…" in told["message"]
    assert load(signer="alice")["error"] in ("ReleaseError", "VerificationError")
    assert load(signer=our_id, verify="off")["error"] == "RequestError"


def test_a_signature_that_is_missing_or_about_something_else_is_refused(
        hub: LoopbackHub, load: Load, release: Path, keys: dict[str, tuple[Path, str]]) -> None:
    ours, our_id = keys["ours"]
    put(hub, REPO, release)
    told = load(signer=our_id)
    assert told["error"] == "VerificationError"
    assert "manifest.dsse.json is missing: the release is not signed" in told["message"]
    sign(release, ours)
    put(hub, REPO, variation(release, "changed since"))
    for call in ({}, {"signer": our_id}):
        told = load(**call)
        assert told["error"] == "VerificationError"
        assert "the signature is about another release" in told["message"]


def test_a_lock_file_is_written_once_and_pins_the_commit(hub: LoopbackHub, load: Load, whole_release: Path, tmp_path: Path) -> None:
    lock = tmp_path / "glideslope.lock"
    first = put(hub, REPO, whole_release)
    hub.repositories[REPO].tags["v1"] = first.oid
    assert load(lock=lock, components=[])["base"]
    written = lock.read_bytes()
    pinned = {"repo": REPO, "sha": first.oid, "root": root_of(whole_release), "signers": [], "status": None, "status_sha256": None,
              "offline": False}
    assert json.loads(written) == {"format": "glideslope.lock/2", **pinned}
    second = put(hub, REPO, variation(Path(shutil.copytree(whole_release, tmp_path / "second")), "second"))
    hub.repositories[REPO].tags["v1"] = second.oid
    assert f"at {first.oid[:12]}" in load(lock=lock, components=[])["told"][0]
    for revision in ("v1", "main", second.oid):
        told = load(lock=lock, revision=revision)
        assert told["error"] == "VerificationError"
        assert f"commit is {second.oid}, the lock file says {first.oid}" in told["message"]
    put(hub, "tester/other", whole_release)
    for revision in (None, "main"):
        told = load(pretrained="tester/other", lock=lock, revision=revision)
        assert "repository is tester/other, the lock file says tester/model" in told["message"]
    assert load(pretrained=whole_release, lock=lock)["clip"]
    assert "manifest's root is" in load(pretrained=tmp_path / "second", lock=lock)["message"]
    assert lock.read_bytes() == written


def test_a_lock_file_pins_the_signer(load: Load, release: Path, keys: dict[str, tuple[Path, str]], tmp_path: Path) -> None:
    lock = tmp_path / "glideslope.lock"
    sign(release, keys["ours"][0])
    load(pretrained=release, lock=lock)
    sign(release, keys["theirs"][0])
    told = load(pretrained=release, lock=lock)
    assert told["error"] == "VerificationError"
    assert f"signer is {keys['theirs'][1]}, the lock file says {keys['ours'][1]}" in told["message"]
    (release / "manifest.dsse.json").unlink()
    assert "signer is nobody, the lock file says" in load(pretrained=release, lock=lock)["message"]


@pytest.mark.parametrize("change", [{"format": "other"}, {"status": 0}, {"status": True}, {"offline": 1}, {"signers": "x"}, {"sha": None},
                                    {"root": None}, {"root": "x"}, {"more": 1}, {"repo": "../x"},
                                    {"status": 3}, {"status": 3, "status_sha256": "x"}, {"status_sha256": "0" * 64}])
def test_a_lock_file_that_is_none_is_refused(load: Load, whole_release: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    lock = tmp_path / "glideslope.lock"
    pinned = {"format": "glideslope.lock/2", "repo": REPO, "sha": "0" * 40, "root": root_of(whole_release), "signers": [], "status": None,
              "status_sha256": None, "offline": False}
    lock.write_text(json.dumps(pinned | change))
    told = load(pretrained=whole_release, lock=lock)
    assert (told["error"], "is no lock file" in told["message"]) == ("VerificationError", True)


def test_nothing_is_pinned_that_was_not_verified(hub: LoopbackHub, load: Load, release: Path, tmp_path: Path) -> None:
    (release / "base" / "config.json").write_text("{}")
    assert load(pretrained=release, lock=tmp_path / "lock")["error"] == "VerificationError"
    assert load(pretrained=release, lock=tmp_path / "lock", verify="off")["error"] == "RequestError"
    assert not (tmp_path / "lock").exists()


def test_a_withdrawn_release_is_refused_with_the_reason_wherever_it_is_loaded_from(
        hub: LoopbackHub, load: Load, whole_release: Path, tmp_path: Path) -> None:
    root = root_of(whole_release)
    before = put(hub, REPO, whole_release, extra=stated(root))
    hub.repositories[REPO].tags["v1"] = before.oid
    assert load(revision="v1")["clip"]
    assert load(revision="v1", local_files_only=True)["clip"]
    taken = stated("0" * 64, number=2, withdrawn=root)
    put(hub, REPO, whole_release, extra=taken)
    for call in ({}, {"revision": "v1"}, {"revision": before.oid}, {"revision": "v1", "verify": "off"}):
        told = load(**call)
        assert told["error"] == "VerificationError"
        assert "it was withdrawn: it draws people (status 2, not signed)" in told["message"]
        assert load(allow_withdrawn=True, **call)["clip"]
    told = load(revision="v1", local_files_only=True)  # nobody was asked, but the newer status lies in the cache
    assert "it was withdrawn: it draws people" in told["message"]
    copy = Path(shutil.copytree(whole_release, tmp_path / "copy"))
    (copy / "STATUS.json").write_bytes(taken["STATUS.json"])
    assert "it was withdrawn: it draws people" in load(pretrained=copy)["message"]


def test_an_older_truly_signed_release_on_the_default_branch_is_refused_and_loads_where_it_is_named(
        hub: LoopbackHub, load: Load, release: Path, keys: dict[str, tuple[Path, str]], tmp_path: Path) -> None:
    (ours, our_id), (theirs, _) = keys["ours"], keys["theirs"]
    sign(release, ours)
    newer = variation(Path(shutil.copytree(release, tmp_path / "newer")), "newer")
    sign(newer, ours)
    old, new = root_of(release), root_of(newer)
    put(hub, REPO, release, extra=stated(old, key=ours))
    put(hub, REPO, newer, extra=stated(old, new, key=ours, number=2))
    assert load(signer=our_id, cache_dir=tmp_path / "a")["clip"]
    for extra, said in (
            (stated(old, new, key=ours, number=2), "the default branch shows a release that was superseded by v2"),
            (stated(old, key=ours), ""),  # the status of that time: only who saw the newer one can know; see the test of lock files
            (stated(old), "counts only when it is signed by"), (stated(old, key=theirs, number=9), "counts only when it is signed by"),
            (stated(old, key=ours, issued=datetime.now(UTC) - timedelta(days=31)), "expired at"),
            (stated(old, key=ours, repository="tester/other"), "is that of tester/other, expected tester/model"),
            (stated(new, key=ours, number=3), "does not name this release"), ({"STATUS.json": b"{}"}, "expected format, status and signatures"),
            ({}, "has no STATUS.json, so nothing shows that this release is current")):
        commit = put(hub, REPO, release, extra=extra)
        told = load(signer=our_id, cache_dir=tmp_path / commit.oid)
        assert said in told.get("message", ""), (extra, told)
        assert ("error" in told) == bool(said)
        if "superseded" in said:
            assert "was superseded by v2" in load(signer=our_id, revision=commit.oid, cache_dir=tmp_path / "pinned")["told"][0]
        told = load(signer=our_id, cache_dir=tmp_path / "a")  # this reader saw the newer one
        assert told["error"] == "VerificationError", extra
    assert load(signer=our_id, cache_dir=tmp_path / "b", unsafe_stale_status=True)["clip"]


def test_a_moved_tag_is_refused(hub: LoopbackHub, load: Load, whole_release: Path, tmp_path: Path) -> None:
    newer = variation(Path(shutil.copytree(whole_release, tmp_path / "newer")), "newer")
    old = put(hub, REPO, whole_release)
    put(hub, REPO, newer, extra=stated(root_of(whole_release), root_of(newer)))
    hub.repositories[REPO].tags["v1"] = hub.repositories[REPO].tags["v2"] = old.oid
    assert load(revision="v1")["clip"]
    assert "somebody moved the tag" in load(revision="v2")["message"]


def test_a_lock_file_remembers_the_highest_status_and_refuses_a_lower_or_missing_one(
        hub: LoopbackHub, load: Load, release: Path, keys: dict[str, tuple[Path, str]], tmp_path: Path) -> None:
    ours, lock, root = keys["ours"][0], tmp_path / "glideslope.lock", root_of(release)
    sign(release, ours)
    put(hub, REPO, release, extra=stated(root, key=ours, number=4))
    assert load(lock=lock, cache_dir=tmp_path / "a")["clip"]
    assert json.loads(lock.read_text())["status"] == 4
    put(hub, REPO, release, extra=stated(root, key=ours, number=6))
    assert load(lock=lock, cache_dir=tmp_path / "b")["clip"]
    assert json.loads(lock.read_text())["status"] == 6
    for extra, said in ((stated(root, key=ours, number=5), "has the number 5, but 6 was seen before"),
                        (stated(root, key=ours, number=6, days=29), "says something else than the one of the same number, 6"),
                        ({}, "STATUS.json is missing, but status 6 of this repository was seen before"),
                        (stated(root, number=7), "counts only when it is signed by"),
                        (stated("0" * 64, key=ours, number=8, withdrawn=root), "it was withdrawn")):
        put(hub, REPO, release, extra=extra)
        assert said in load(lock=lock, cache_dir=tmp_path / "c")["message"]
        assert json.loads(lock.read_text())["status"] == 6


def test_a_status_that_cannot_be_looked_up_is_an_error_unless_nobody_is_to_be_asked(
        hub: LoopbackHub, load: Load, whole_release: Path, tmp_path: Path) -> None:
    commit, lock = put(hub, REPO, whole_release, extra=stated(root_of(whole_release))), tmp_path / "glideslope.lock"
    assert load(revision=commit.oid, lock=lock)["clip"]
    hub.inject(Fault("500", "GET", f"/api/models/{REPO}$", times=None))
    for call in ({"revision": commit.oid}, {"lock": lock}):
        told = load(**call)
        assert told["error"] == "DownloadError"
        assert "could not be asked whether this release was withdrawn or replaced" in told["message"]
        assert "HF_HUB_OFFLINE=1 or local_files_only=True" in told["message"]
    for call in ({"revision": commit.oid, "local_files_only": True}, {"env": {"HF_HUB_OFFLINE": "1"}, "revision": commit.oid},
                 {"revision": commit.oid, "unsafe_stale_status": True}):
        assert load(**call)["clip"], call
    lock.write_text(lock.read_text().replace('"offline": false', '"offline": true'))
    assert load(lock=lock)["clip"]
    told = load(revision="main", lock=lock, endpoint="http://127.0.0.1:9")
    assert told.get("clip") or told["error"] == "DownloadError"


def test_a_status_on_the_default_branch_is_not_read_beyond_its_largest_size(hub: LoopbackHub, load: Load, whole_release: Path) -> None:
    before = put(hub, REPO, whole_release)
    put(hub, REPO, whole_release, extra={"STATUS.json": b" " * 1_000_001})
    told = load(revision=before.oid)
    assert told["error"] == "VerificationError"
    assert "more than 1000000 bytes" in told["message"]


def test_a_token_is_not_sent_where_others_can_read_it(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    for call in ({"token": "hf_secret"}, {"env": {"HF_TOKEN": "hf_secret"}}):
        told = load(endpoint="http://hub.example.org", **call)
        assert told["error"] == "RequestError"
        assert "your token would travel where others can read it" in told["message"]
    for endpoint in ("https://hub.example.org", "http://127.0.0.1:8000", "http://localhost", "http://[::1]:80"):
        check_endpoint(endpoint, sends_token=True)
    check_endpoint("http://hub.example.org", sends_token=False)


def test_a_directory_has_no_revisions_and_a_path_is_no_repository(whole_release: Path, tmp_path: Path) -> None:
    assert resolve(whole_release).path == whole_release
    with pytest.raises(RequestError, match=r"revision is 'v1', but .* is a directory"):
        resolve(whole_release, "v1")
    for name in (tmp_path / "nothing", Path("org/name"), "name", "a/b/c", "org/../name", "https://example.org/x"):
        with pytest.raises(CheckpointError, match=r"no such directory; give the directory of a release .* or a repository on the Hub"):
            resolve(name)


def test_the_commands_draw_from_the_hub_and_say_what_they_drew_from(
        hub: LoopbackHub, strangers: Strangers, release: Path, keys: dict[str, tuple[Path, str]], tmp_path: Path) -> None:
    sign(release, keys["ours"][0])
    commit = put(hub, REPO, release, extra=stated(root_of(release), key=keys["ours"][0]))
    hub.repositories[REPO].tags["v1"] = commit.oid
    env = strangers.env | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-c", "from glideslope.cli.main import main; main()", *command]
        return subprocess.run(program, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)

    pinned = ("--revision", "v1", "--signer", keys["ours"][1], "--lock", "lock")
    drawn = run("sample", REPO, "a red square", "--num-steps", "1", "--out", "a.png", *pinned)
    assert drawn.returncode == 0, drawn.stderr
    assert f"{REPO} at {commit.oid[:12]}: manifest root {root_of(release)}, signed by {keys['ours'][1]}" in drawn.stderr
    facts = json.loads(Image.open(tmp_path / "a.png").text["glideslope"])  # type: ignore[attr-defined]  # a PNG has it
    assert (facts["repository"], facts["commit"]) == (REPO, commit.oid)
    assert json.loads((tmp_path / "lock").read_text())["signers"] == [keys["ours"][1]]
    edited = run("edit", REPO, "--prompt", "a red square", "--image", "a.png", "--num-steps", "1", "--out", "b.png",
                 "--signer", keys["theirs"][1])
    assert edited.returncode == 1
    assert "somebody else signed this release" in edited.stderr
    assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize("kind", ["429", "503"])
def test_a_hub_that_has_no_time_is_one_line_and_who_chooses_to_be_offline_loads_from_the_cache(
        hub: LoopbackHub, load: Load, whole_release: Path, base_digest: str, kind: Any) -> None:
    commit = put(hub, REPO, whole_release)
    assert load(revision=commit.oid)["base"] == base_digest
    hub.inject(Fault(kind, "GET", ".*", times=None), Fault(kind, "HEAD", ".*", times=None))
    told = load(revision=commit.oid)  # nobody says whether it was withdrawn since
    assert (told["error"], "could not be asked whether this release was withdrawn" in told["message"]) == ("DownloadError", True)
    assert any(f"the Hub answers {kind}" in line for line in told["told"]) and "\n" not in told["message"]
    assert load(revision=commit.oid, local_files_only=True)["base"] == base_digest
    told = load(revision=commit.oid, cache_dir=None)
    assert told["error"] == "DownloadError" and "\n" not in told["message"]


@pytest.mark.parametrize(("env", "said"), [
    ({"ALL_PROXY": "socks5://127.0.0.1:9"}, "For a SOCKS proxy run `pip install socksio`. Look at ALL_PROXY"),
    ({"HTTP_PROXY": "foo://x"}, "Unknown scheme for proxy URL")])
def test_surroundings_in_which_the_client_cannot_start_are_one_line_and_what_is_cached_loads_offline(
        hub: LoopbackHub, load: Load, whole_release: Path, env: dict[str, str], said: str) -> None:
    put(hub, REPO, whole_release)
    assert load()["clip"]
    told = load(env=env | {"NO_PROXY": ""})
    assert (told["error"], said in told["message"], "\n" in told["message"]) == ("RequestError", True, False)
    assert load(env=env | {"NO_PROXY": "", "HF_HUB_OFFLINE": "1"})["clip"]


@pytest.mark.parametrize("endpoint", ["not a url", "127.0.0.1:9", "ftp://hub.example", "https://", "file:///tmp"])
def test_an_address_that_is_none_is_refused_before_anybody_is_asked(endpoint: str) -> None:
    with pytest.raises(RequestError, match=r"is no address of a hub; expected an address such as https://huggingface\.co"):
        check_endpoint(endpoint, sends_token=False)


def test_places_that_cannot_be_written_and_tokens_that_nobody_knows_are_one_line(hub: LoopbackHub, load: Load, whole_release: Path) -> None:
    put(hub, REPO, whole_release)
    told = load(cache_dir=None, env={"HF_HOME": "/proc/nowhere", "HOME": "/proc/nowhere"})
    assert (told["error"], "\n" in told["message"]) == ("DownloadError", False)
    told = load(env={"HF_TOKEN": "hf_nobody"})
    assert told["error"] == "DownloadError" and "none where none is needed (token=False)" in told["message"]
    assert load(env={"HF_TOKEN": "hf_nobody"}, token=False)["clip"]


def test_a_directory_that_hides_a_repository_is_said(
        whole_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(whole_release, tmp_path / "org/name")
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("WARNING", "glideslope.loading"):
        assert resolve("org/name").repo is None
        assert "org/name: is a directory here, and may be a repository on the Hub; the directory is taken. Write ./org/name" in caplog.text
        caplog.clear()
        for path in ("./org/name", Path("org/name"), str(tmp_path / "org/name")):
            resolve(path)
        assert caplog.text == ""

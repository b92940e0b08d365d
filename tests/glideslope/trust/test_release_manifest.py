import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from glideslope.errors import VerificationError
from glideslope.store.digests import sha256_bytes, sha256_file
from glideslope.store.file_lists import find_differences, list_files
from glideslope.store.whole_files import write_bytes
from glideslope.trust.hashed_files import build_manifest, compare_tensors, hash_files, read_tensors
from glideslope.trust.merkle import check_merkle_proof
from glideslope.trust.release_manifest import UNLISTED, ReleaseManifest

WEIGHTS = "base/diffusion_pytorch_model.safetensors"
HALF = "base/diffusion_pytorch_model.fp16.safetensors"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    directory = tmp_path / "release"
    write_bytes(directory / "README.md", b"# card")
    write_bytes(directory / "evidence/x.json", b"{}")
    (directory / "base").mkdir()
    tensors = {"b.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.float32([1.5]), "empty": np.zeros((0, 2), np.float32)}
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
    save_file({name: tensor.astype(np.float16) for name, tensor in tensors.items()}, directory / HALF, metadata={"format": "pt"})
    write_bytes(directory / "manifest.json", build_manifest(directory).to_bytes())
    return directory


def changes(manifest: ReleaseManifest, release: Path) -> list[str]:
    return find_differences(manifest.files, release, [path for path in list_files(release) if path not in UNLISTED])


def test_files_and_tensors_are_listed_with_their_digests(release: Path) -> None:
    manifest = ReleaseManifest.read(release / "manifest.json")
    assert [entry.path for entry in manifest.files] == ["README.md", HALF, WEIGHTS, "evidence/x.json"]
    assert {entry.path: entry.sha256 for entry in manifest.files}[WEIGHTS] == sha256_file(release / WEIGHTS)
    tensors = {tensor.place: tensor for tensor in manifest.tensors}
    assert list(tensors) == [("base", variant, name) for variant in ("", "fp16") for name in ("a", "b.weight", "empty")]
    assert tensors["base", "", "b.weight"].sha256 == sha256_bytes(np.arange(6, dtype="<f4").tobytes())
    assert tensors["base", "fp16", "b.weight"].sha256 == sha256_bytes(np.arange(6, dtype="<f2").tobytes())
    assert tensors["base", "", "b.weight"].shape == (2, 3)
    assert tensors["base", "", "empty"].sha256 == hashlib.sha256().hexdigest()
    assert changes(manifest, release) == compare_tensors(manifest, hash_files(release, list_files(release))) == []
    assert manifest.digest == sha256_file(release / "manifest.json")


def test_a_file_and_a_tensor_are_proven_to_who_knows_only_the_roots(release: Path) -> None:
    manifest = ReleaseManifest.read(release / "manifest.json")
    for place, entry in enumerate(manifest.files):
        assert check_merkle_proof(manifest.file_leaves[place], manifest.prove_file(entry.path), manifest.root)
    for place, tensor in enumerate(manifest.tensors):
        proof = manifest.prove_tensor(tensor.component, tensor.name, variant=tensor.variant)
        assert check_merkle_proof(manifest.tensor_leaves[place], proof, manifest.tensors_root)
    with pytest.raises(VerificationError, match="other: file is not in the manifest"):
        manifest.prove_file("other")
    with pytest.raises(VerificationError, match="base: tensor c is not in the manifest"):
        manifest.prove_tensor("base", "c")


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_byte_changed_in_a_manifest_is_refused_or_noticed(release: Path, data: st.DataObject) -> None:
    whole = (release / "manifest.json").read_bytes()
    place, value = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 255))
    assume(whole[place] != value)
    with pytest.raises(VerificationError):
        ReleaseManifest.from_bytes(whole[:place] + bytes([value]) + whole[place + 1:])


def reseal(manifest: dict[str, Any]) -> dict[str, Any]:
    """Give an edited manifest the roots of its new lists, as somebody would who wants it to pass."""
    from glideslope.store.digests import canonical_json
    from glideslope.trust.merkle import merkle_root

    roots = {name: merkle_root([canonical_json(entry).encode() for entry in manifest[part]])
             for name, part in (("root", "files"), ("tensors_root", "tensors"))}
    return manifest | roots


@pytest.mark.parametrize(("change", "message"), [
    (lambda m: m["files"].reverse(), "files are out of order or listed twice"),
    (lambda m: m["files"].append(m["files"][-1]), "files are out of order or listed twice"),
    (lambda m: m["tensors"].append(m["tensors"][-1]), "tensors are out of order or listed twice"),
    (lambda m: m["files"][0].update(path="../README.md"), "not a relative path below the release"),
    (lambda m: m["files"][0].update(path="/etc/passwd"), "not a relative path below the release"),
    (lambda m: m["files"][0].update(path="C:\\x"), "not a relative path below the release"),
    (lambda m: m["files"][0].update(path="manifest.json"), "not a relative path below the release"),
    (lambda m: m["files"][0].update(size_bytes=-1), "its size or digest is malformed"),
    (lambda m: m["files"][0].update(size_bytes=True), "its size or digest is malformed"),
    (lambda m: m["files"][0].update(sha256="A" * 64), "its size or digest is malformed"),
    (lambda m: m["files"][0].update(note="more"), "does not fit its own list"),
    (lambda m: m.update(note="more"), "is not in the form that pack writes"),
    (lambda m: m["tensors"][0].update(note="more"), "malformed"),
    (lambda m: m["tensors"][0].update(shape=[-1]), "its entry is malformed"),
    (lambda m: m["tensors"][0].update(variant=""), "its entry is malformed"),
    (lambda m: m["tensors"][0].pop("sha256"), "malformed"),
    (lambda m: m.pop("tensors"), "malformed"),
    (lambda m: m.update(format="glideslope.manifest/1"), "format is 'glideslope.manifest/1', expected 'glideslope.manifest/2'"),
])
def test_a_malformed_manifest_is_refused_though_its_roots_fit(release: Path, change: Callable[[Any], Any], message: str) -> None:
    value = json.loads((release / "manifest.json").read_bytes())
    change(value)
    value = reseal(value) if "tensors" in value else value
    data = (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode()
    with pytest.raises(VerificationError, match=message):
        ReleaseManifest.from_bytes(data)


def test_the_same_manifest_written_another_way_is_refused(release: Path) -> None:
    data = (release / "manifest.json").read_bytes()
    for other in (json.dumps(json.loads(data)).encode(), data + b"\n", b" " + data, data.replace(b"{", b'{"format": "x",', 1)):
        with pytest.raises(VerificationError):
            ReleaseManifest.from_bytes(other)


def test_roots_that_do_not_fit_the_lists_are_refused(release: Path) -> None:
    value = json.loads((release / "manifest.json").read_bytes())
    for name in ("root", "tensors_root"):
        data = (json.dumps(value | {name: "0" * 64}, sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode()
        with pytest.raises(VerificationError, match=rf"does not fit its own list \({name} is 000000000000…"):
            ReleaseManifest.from_bytes(data)


def test_files_changed_missing_and_added_are_named(release: Path) -> None:
    manifest = ReleaseManifest.read(release / "manifest.json")
    (release / "README.md").write_bytes(b"# Card")
    (release / "evidence/x.json").unlink()
    (release / "evidence/y.json").write_bytes(b"{}")
    assert [problem.partition(" is ")[0] for problem in changes(manifest, release)] == [
        "README.md: sha256", "evidence/x.json: file", "evidence/y.json: file"]


def test_the_signature_is_not_listed(release: Path) -> None:
    (release / "manifest.dsse.json").write_bytes(b"{}")
    assert build_manifest(release).to_bytes() == (release / "manifest.json").read_bytes()
    assert changes(ReleaseManifest.read(release / "manifest.json"), release) == []


def test_tensors_changed_missing_and_added_are_named_though_the_files_fit(release: Path) -> None:
    original = ReleaseManifest.read(release / "manifest.json")
    save_file({"a": np.float32([2.5]), "new": np.float32([0])}, release / WEIGHTS, metadata={"format": "pt"})
    found = compare_tensors(original, hash_files(release, list_files(release)))
    assert found[0].startswith("base: tensor a is F32 [1] with sha256 ")
    assert found[1:] == ["base: tensor new is not in the manifest", "base: tensor b.weight is in no weight file",
                         "base: tensor empty is in no weight file"]
    (release / WEIGHTS).write_bytes(b"no weights")
    assert "not a readable safetensors file" in compare_tensors(original, hash_files(release, list_files(release)))[0]


def test_a_tensor_in_two_shards_is_refused(release: Path) -> None:
    for shard in (1, 2):
        save_file({"a": np.float32([1.5])}, release / f"noised_clip_{shard}", metadata={"format": "pt"})
        (release / "noised_clip").mkdir(exist_ok=True)
        (release / f"noised_clip_{shard}").rename(release / f"noised_clip/diffusion_pytorch_model-{shard:05d}-of-00002.safetensors")
    with pytest.raises(VerificationError, match="a tensor lies in two weight files of one component"):
        build_manifest(release)


def test_a_file_of_many_pieces_has_the_same_digests(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal(700_000).astype(np.float32)
    (tmp_path / "base").mkdir()
    save_file({"x": values, "y": values[:10].copy()}, tmp_path / WEIGHTS, metadata={"format": "pt"})
    digest, entries = read_tensors(tmp_path, WEIGHTS)
    assert digest == sha256_file(tmp_path / WEIGHTS)
    assert {entry.name: entry.sha256 for entry in entries} == {"x": sha256_bytes(values.tobytes()), "y": sha256_bytes(values[:10].tobytes())}

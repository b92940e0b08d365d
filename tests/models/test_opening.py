"""What a release must show before it is opened, from a directory."""

import random
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.errors import CheckpointError, ReleaseError, RequestError, VerificationError
from glideslope.models.drawing.pipeline import GlidePipeline
from glideslope.models.loading.needed_files import held_components, held_models, needed_files
from glideslope.store.stage_manifest import Manifest
from glideslope.store.whole_files import write_json
from glideslope.trust.keys import generate_key
from glideslope.trust.lock import ReleaseLock
from glideslope.trust.opening import MAX_SHOWN, OpenRelease, Trust, open_release
from glideslope.trust.release_manifest import ReleaseManifest

from .conftest import sign_again
from .hub_client import sign


def prepare(release: Path, **trust: object) -> OpenRelease:
    opened = open_release(release, Trust(**trust))  # type: ignore[arg-type]  # options by name
    held = held_components(opened)
    opened.prepare(needed_files(opened, held, held))
    return opened


def test_an_opened_release_tells_its_root_its_parts_and_what_loading_reads(full_release: Path) -> None:
    opened = prepare(full_release, verify="required")
    assert opened.root == ReleaseManifest.read(full_release / "manifest.json").root
    held = held_components(opened)
    assert held_models(opened) == ["noised_clip", "upsampler", "base_inpaint", "upsampler_inpaint"]
    assert opened.describe() == f"{full_release}: manifest root {opened.root}, not signed"
    assert set(needed_files(opened, held, {"base", "upsampler", "tokenizer"})) == {
        "model_index.json", "tokenizer/tokenizer.json", "scheduler/scheduler_config.json", "upsampler_scheduler/scheduler_config.json",
        *(f"{name}/{file}" for name in ("base", "upsampler") for file in ("config.json", "diffusion_pytorch_model.safetensors"))}
    assert prepare(full_release, verify="off").describe().endswith(": not verified")


@pytest.fixture(scope="module")
def signed_release(whole_release: Path, keys: dict[str, tuple[Path, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = Path(shutil.copytree(whole_release, tmp_path_factory.mktemp("signed") / "release"))
    sign(directory, keys["ours"][0])
    return directory


@given(st.data())
def test_one_flipped_bit_anywhere_in_a_signed_release_is_refused(signed_release: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(path for path in signed_release.rglob("*") if path.is_file())))
    kept = path.read_bytes()
    place, bit = data.draw(st.integers(0, len(kept) - 1)), data.draw(st.integers(0, 7))
    path.write_bytes(kept[:place] + bytes([kept[place] ^ 1 << bit]) + kept[place + 1:])
    try:
        with pytest.raises(VerificationError):
            prepare(signed_release)
    finally:
        path.write_bytes(kept)


@pytest.mark.parametrize("content", [
    b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n# large files\n\n*.png filter=lfs diff=lfs merge=lfs -text\n", b""])
def test_what_the_hub_adds_may_lie_beside_a_release(release: Path, content: bytes) -> None:
    alone = prepare(release).describe()
    (release / ".gitattributes").write_bytes(content)
    notes = release / ".cache" / "huggingface" / "download" / "base"
    notes.mkdir(parents=True)
    for name in ("config.json.metadata", "config.json.lock"):
        (notes / name).write_text("")
    (release / ".cache" / "huggingface" / ".gitignore").write_text("*")
    assert prepare(release).describe() == alone


@pytest.mark.parametrize("content", [
    b"* filter=evil\n", b"*.safetensors filter=lfs diff=lfs merge=lfs -text eol=lf\n", b"\xff", b"#" * 100_001])
def test_attributes_that_say_more_than_what_is_large_are_refused(release: Path, content: bytes) -> None:
    (release / ".gitattributes").write_bytes(content)
    with pytest.raises(VerificationError, match=r"\.gitattributes: "):
        prepare(release)


@pytest.mark.parametrize("path", [
    "pipeline.py", "base/modeling.py", "base/diffusion_pytorch_model.bin", ".cache/huggingface/download/x.py", "x/.git/config",
    "base/.gitattributes", "manifest.json.bak", "Manifest.json"])
def test_anything_else_beside_a_release_is_refused(release: Path, path: str) -> None:
    (release / path).parent.mkdir(parents=True, exist_ok=True)
    (release / path).write_text("")
    with pytest.raises(VerificationError, match=f"{path}: file is not in the manifest".replace(".", r"\.")):
        prepare(release)


def test_many_problems_are_counted_and_some_are_shown(release: Path) -> None:
    for i in range(MAX_SHOWN + 5):
        (release / f"{i:03d}").write_text("")
    with pytest.raises(VerificationError, match=r"019: file is not in the manifest; and 5 more$"):
        prepare(release)


def test_files_that_loading_does_not_read_may_be_absent_but_not_changed(release: Path) -> None:
    (release / "README.md").write_text("a card")
    sign_again(release)
    (release / "README.md").write_text("b card")
    with pytest.raises(VerificationError, match=r"README\.md: sha256 is"):
        prepare(release)
    (release / "README.md").unlink()
    prepare(release, verify="required")


def test_links_to_folders_and_broken_links_are_refused(release: Path, tmp_path: Path) -> None:
    (release / "more").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(VerificationError, match="more: not a plain file"):
        prepare(release)
    (release / "more").unlink()
    (release / "manifest.dsse.json").symlink_to(release / "nothing")
    with pytest.raises(VerificationError):
        prepare(release)


def test_the_manifest_of_a_stage_is_none_of_a_release(release: Path) -> None:
    (release / "manifest.json").unlink()
    write_json(release / "manifest.json", Manifest.of_directory(release).to_json())
    with pytest.raises(VerificationError, match=r"manifest\.json: format is 'glideslope\.manifest/1', expected 'glideslope\.manifest/2'"):
        prepare(release)


@pytest.mark.parametrize("trust", [{"verify": "maybe"}, {"verify": "off", "signer": "x"}, {"verify": "off", "lock": "x"}])
def test_wishes_that_contradict_one_another_are_refused(trust: dict[str, str]) -> None:
    with pytest.raises(RequestError, match="verify is"):
        Trust(**trust)  # type: ignore[arg-type]  # wrong values are the point


def test_without_the_extra_a_signature_is_told_as_unchecked_and_refused_where_it_is_asked_for(
        release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key_id = generate_key(tmp_path / "key")
    sign(release, tmp_path / "key")
    for name in [name for name in sys.modules if name.split(".")[0] == "cryptography"] + ["cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert prepare(release).describe().endswith("its signature was not checked, as the extra `sign` is not installed")
    for trust in ({"signer": key_id}, {"lock": tmp_path / "lock"}):
        with pytest.raises(ReleaseError, match="pip install"):
            prepare(release, **trust)
    assert not (tmp_path / "lock").exists()


def test_a_lock_reads_back_what_it_writes(tmp_path: Path) -> None:
    lock = ReleaseLock("a/b", "0" * 40, "1" * 64, ("2" * 64,))
    lock.write(tmp_path / "lock")
    assert ReleaseLock.read(tmp_path / "lock") == lock
    assert ReleaseLock.read(tmp_path / "none") is None
    for content in (b"", b"{}", b'{"format": "glideslope.lock/2", "format": "glideslope.lock/2"}', b"x" * 10_001):
        (tmp_path / "lock").write_bytes(content)
        with pytest.raises(VerificationError):
            ReleaseLock.read(tmp_path / "lock")


def test_a_file_that_is_exchanged_between_the_check_and_the_loading_is_noticed(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = OpenRelease.prepare
    for path, said in (("base/config.json", VerificationError), ("tokenizer/tokenizer.json", VerificationError),
                       ("base/diffusion_pytorch_model.safetensors", (VerificationError, CheckpointError))):
        file, data = release / path, (release / path).read_bytes()

        def exchange(self: OpenRelease, *wanted: object, file: Path = file, data: bytes = data) -> object:
            digests = prepared(self, *wanted)  # type: ignore[arg-type]  # passed on as it came
            file.write_bytes(data[:-2] + bytes([data[-2] ^ 1, data[-1]]))
            return digests

        monkeypatch.setattr(OpenRelease, "prepare", exchange)
        with pytest.raises(said, match=path.replace(".", r"\.")):
            GlidePipeline.from_pretrained(release, device="cpu")
        file.write_bytes(data)


def loaded(number: int | None, digest: str = "3" * 64, root: str = "1" * 64) -> ReleaseLock:
    return ReleaseLock("a/b", "0" * 40, root, (), number, None if number is None else digest)


def test_many_that_load_at_once_leave_the_highest_number_in_the_lock_file(tmp_path: Path) -> None:
    path, numbers = tmp_path / "new/glideslope.lock", [None, *range(1, 40)]
    random.Random(0).shuffle(numbers)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: loaded(number).settle(path), numbers))
    assert ReleaseLock.read(path) == loaded(39)
    assert sorted(file.name for file in path.parent.iterdir()) == [".glideslope.lock.busy", "glideslope.lock"]


def test_of_two_first_loads_one_pins_and_the_other_is_held_against_it(tmp_path: Path) -> None:
    path = tmp_path / "glideslope.lock"
    loaded(3).settle(path)
    loaded(2).settle(path)
    for other, told in ((loaded(3, root="2" * 64), "manifest's root is"), (loaded(3, "4" * 64), "another status of the number 3"),
                        (replace(loaded(4), sha="1" * 40), "commit is"), (replace(loaded(4), signers=("5" * 64,)), "signer is")):
        with pytest.raises(VerificationError, match=told):
            other.settle(path)
    assert ReleaseLock.read(path) == loaded(3)

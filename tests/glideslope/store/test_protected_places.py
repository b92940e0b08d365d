"""Where commands may write."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from glideslope.errors import ReleaseError, StorageError
from glideslope.store.file_lists import FileEntry
from glideslope.store.protected_places import refuse_in_release, write_new
from glideslope.store.stage_manifest import Manifest
from glideslope.store.whole_files import write_bytes, write_json
from glideslope.trust.keys import refuse_near_manifest
from glideslope.trust.release_manifest import ReleaseManifest


@pytest.fixture
def release(tmp_path: Path) -> Path:
    write_bytes(tmp_path / "rel/manifest.json", ReleaseManifest((FileEntry("README.md", 3, "a" * 64),), ()).to_bytes())
    return tmp_path / "rel"


@pytest.mark.parametrize("place", [".", "x", "base/deep/x", "../rel/x", "../elsewhere/../rel/x", "../link/x"])
def test_places_in_the_release_are_refused_however_they_are_spelt(release: Path, place: str) -> None:
    (release.parent / "link").symlink_to(release)
    with pytest.raises(ReleaseError, match=r"OUT lies inside the release .*name a place outside"):
        refuse_in_release(release / place, release)


def test_a_relative_place_is_refused_from_within_the_release(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(release)
    with pytest.raises(ReleaseError, match="OUT lies inside the release"):
        refuse_in_release(Path("x"), Path())


def test_places_beside_the_release_are_allowed(release: Path) -> None:
    for place in ("../x", "../rel2", "../rel.html", "../a/b"):
        refuse_in_release(release / place, release)


def test_another_release_and_imported_checkpoints_are_protected_too(release: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "imported/manifest.json", Manifest((FileEntry("config.json", 2, "b" * 64),)).to_json())
    write_json(tmp_path / "website/manifest.json", {"name": "a web page"})
    for out in (release / "x", tmp_path / "imported/x"):
        with pytest.raises(ReleaseError, match="OUT lies inside the release"):
            refuse_in_release(out, tmp_path / "third")
    refuse_in_release(tmp_path / "website/x", release)


def test_a_manifest_that_cannot_be_read_is_taken_for_one(release: Path, tmp_path: Path) -> None:
    (tmp_path / "odd/manifest.json").mkdir(parents=True)
    (tmp_path / "dangling").mkdir()
    (tmp_path / "dangling/manifest.json").symlink_to(tmp_path / "gone")
    for name in ("odd", "dangling"):
        with pytest.raises(ReleaseError, match="OUT lies inside the release"):
            refuse_in_release(tmp_path / name / "x", release)


def test_a_private_key_is_kept_away_from_any_manifest(release: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "website/manifest.json", {"name": "a web page"})
    for key in (release / "k", release / "base/keys/k", tmp_path / "website/k"):
        with pytest.raises(ReleaseError, match=r"holds a manifest\.json, so the private key .* such as ~/keys"):
            refuse_near_manifest(key)
        assert not os.path.lexists(key)
    refuse_near_manifest(tmp_path / "keys/k")


WRITER = """
import sys
from pathlib import Path
from glideslope.store.protected_places import write_new
for number in range(20):
    print(write_new(Path(sys.argv[1]) / "new" / "samples.png", f"{sys.argv[2]} {number}".encode()).name)
"""


def test_processes_that_write_at_once_overwrite_nothing(tmp_path: Path) -> None:
    running = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(number)], stdout=subprocess.PIPE, text=True)
               for number in range(4)]
    names = [name for process in running for name in process.communicate()[0].split()]
    assert sorted(names) == sorted({path.name for path in (tmp_path / "new").iterdir()})
    assert {path.read_text() for path in (tmp_path / "new").iterdir()} == {f"{who} {number}" for who in range(4) for number in range(20)}
    assert {"samples.png", "samples-2.png", "samples-80.png"} <= set(names)


def test_a_name_that_was_claimed_and_could_not_be_written_is_free_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"cannot write .*samples\.png: No space left on device"):
        write_new(tmp_path / "samples.png", b"x")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for below in (tmp_path / "file" / "x.png", tmp_path / "file" / "y" / "x.png"):
        with pytest.raises(StorageError, match="cannot write"):
            write_new(below, b"x")

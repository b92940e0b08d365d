"""Where commands may write."""

import os
from pathlib import Path

import pytest

from glideslope.errors import ReleaseError
from glideslope.manifest import FileEntry, Manifest, ReleaseManifest, write_bytes, write_json
from glideslope.outputs import refuse_in_release, refuse_near_manifest


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

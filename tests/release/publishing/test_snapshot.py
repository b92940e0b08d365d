"""A release in a folder that a hub and its client have put files into."""

import shutil
from pathlib import Path

import pytest

from glideslope.errors import VerificationError
from glideslope.manifest import ReleaseManifest, write_bytes
from glideslope.release.publishing.snapshot import release_in
from glideslope.release.verify import verify
from glideslope.withdrawal import Withdrawal, Withdrawals

from ..small_releases import content, make_release

ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n*.png filter=lfs diff=lfs merge=lfs -text\n"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return make_release(tmp_path / "release", "small")


def withdraw(place: Path, root: str) -> None:
    write_bytes(place / "WITHDRAWN.json", Withdrawals((Withdrawal(root, "v1", "draws people"),)).to_bytes())


def test_a_packed_release_is_looked_at_where_it_lies(release: Path) -> None:
    with release_in(release) as found:
        assert found == release


def test_a_downloaded_folder_shows_the_release_alone(release: Path) -> None:
    files = content(release)
    write_bytes(release / ".gitattributes", ATTRIBUTES)
    write_bytes(release / ".cache/huggingface/download/README.md.metadata", b"notes")
    withdraw(release, "0" * 64)
    with release_in(release) as found:
        assert content(found) == files


def test_a_real_release_verifies_as_it_comes_from_a_hub(packed_run: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(packed_run / "release", tmp_path / "downloaded"))
    write_bytes(place / ".gitattributes", ATTRIBUTES)
    write_bytes(place / ".cache/huggingface/.gitignore", b"*")
    report = verify(place)
    assert (report.directory, report.manifest_root) == (place, ReleaseManifest.read(place / "manifest.json").root)


def test_a_strange_file_is_no_part_of_what_may_lie_beside(release: Path) -> None:
    write_bytes(release / ".gitattributes", ATTRIBUTES)
    for path in (".github/workflows/x.yml", ".cache/pipeline.py", "WITHDRAWN.txt", "base/.gitattributes"):
        write_bytes(release / path, b"x")
        with release_in(release) as found:
            assert path in content(found)


@pytest.mark.parametrize("attributes", [b"*.py filter=evil\n", b"*.bin filter=lfs diff=lfs merge=lfs -text eol=crlf\n", b"\xff\xfe"])
def test_attributes_that_say_more_are_refused(release: Path, attributes: bytes) -> None:
    write_bytes(release / ".gitattributes", attributes)
    with pytest.raises(VerificationError, match="gitattributes"), release_in(release):
        pass


def test_a_withdrawn_release_is_refused_with_the_reason_and_an_unreadable_list_counts_for_it(release: Path) -> None:
    withdraw(release, ReleaseManifest.read(release / "manifest.json").root)
    with pytest.raises(VerificationError, match="draws people"), release_in(release):
        pass
    write_bytes(release / "WITHDRAWN.json", b"{}")
    with pytest.raises(VerificationError), release_in(release):
        pass

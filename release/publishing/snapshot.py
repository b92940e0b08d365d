"""A release as it comes from a hub: in a folder that holds a few files of the hub and of its client too.

Beside the release lie `.gitattributes` (which files are large), `STATUS.json` (what its publisher says of it now), where the
client was given a folder of its own its notes in `.cache/huggingface/`, and in a clone `.git`.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import ReleaseError, VerificationError
from ...store.file_lists import MANIFEST_NAME
from ...store.strict_json import read_bounded
from ...trust.currency import Asked, refuse_by_status
from ...trust.release_manifest import ReleaseManifest
from ...trust.status import MAX_STATUS_BYTES, STATUS_NAME, SignedStatus
from ...trust.unlisted_files import CLIENT_FOLDER, GIT_NAME, find_misplaced, find_misuse, find_pointers, list_release, may_lie_beside
from ...trust.unlisted_files import KEPT_FILES as KEPT_FILES  # noqa: PLC0414  the other modules of publishing take it from here
from ..evidence.layout import find_irregular


@contextmanager
def release_in(place: Path, *, without: Callable[[str], bool] | None = None) -> Iterator[Path]:
    """The release in a folder: the folder itself, or, where other files may lie beside it, links to the release's own files.

    Args:
        place: the folder; nothing is written there.
        without: tells by its relative path a file that is to be left out; none leaves out nothing. Of a release that was packed here
            the others are then linked or copied.

    Raises:
        VerificationError: something there is no plain file, a link that leads out, or a Git LFS pointer; what lies beside is not what
            may, or says that the release was withdrawn.
    """
    if not place.is_dir():
        yield place
        return
    problems = find_irregular(place, without=(GIT_NAME,))
    paths = [] if problems else list_release(place)
    problems = problems or find_misplaced(place, paths)
    if problems:
        raise VerificationError(f"release {place}", problems)
    kept = [path for path in paths if without is None or not without(path)]
    is_downloaded = is_download(place)
    if kept == paths and not is_downloaded:
        yield place
        return
    refuse_withdrawn_snapshot(place)
    with tempfile.TemporaryDirectory(prefix="glideslope-view-") as temporary:
        (link_release if is_downloaded else _copy_release)(place, kept, Path(temporary) / "release")
        yield Path(temporary) / "release"


def _copy_release(place: Path, paths: Iterable[str], view: Path) -> None:
    """Make a folder with the same files, which can be loaded as it lies: hard links where the file system has them, else copies."""
    for path in paths:
        (view / path).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link((place / path).resolve(), view / path)
        except OSError:  # another file system
            shutil.copyfile(place / path, view / path)


def is_download(place: Path) -> bool:
    """Whether a folder holds what a hub, its client, git or a withdrawal puts beside a release."""
    return any(os.path.lexists(place / name) for name in (*KEPT_FILES, CLIENT_FOLDER, GIT_NAME))


def refuse_download(place: Path) -> None:
    """Refuse a folder that came from a hub where the one that was packed is needed, as everything in it is given on.

    Raises:
        ReleaseError: there is no such folder, or something lies beside the release.
        VerificationError: a file is a Git LFS pointer.
    """
    if not place.is_dir():
        raise ReleaseError(f"{place}: no such directory; give the directory that `glideslope pack` wrote")
    beside = [name for name in (*sorted(KEPT_FILES), CLIENT_FOLDER, GIT_NAME) if os.path.lexists(place / name)]
    if beside:
        raise ReleaseError(f"release {place}: {', '.join(beside)} belongs to the target, not to a release: this is a download; "
                           "give the directory that `glideslope pack` wrote")
    problems = find_pointers(place, list_release(place))
    if problems:
        raise VerificationError(f"release {place}", problems)


def link_release(place: Path, paths: Iterable[str], view: Path) -> None:
    """Make a folder of links to the release's files in a downloaded folder; what may not lie beside them is linked too, as a stranger.

    Args:
        place: the folder.
        paths: relative paths of its files.
        view: the folder to make.

    Raises:
        VerificationError: a file beside the release does not hold what its writer puts into it.
    """
    view.mkdir(parents=True)
    beside = [path for path in paths if may_lie_beside(path)]
    for path in paths:
        if not may_lie_beside(path):
            (view / path).parent.mkdir(parents=True, exist_ok=True)
            (view / path).symlink_to((place / path).resolve())
    problems = find_misuse(place, beside)
    if problems:
        raise VerificationError(f"release {place}", problems)


def refuse_withdrawn_snapshot(place: Path) -> None:
    """Refuse a folder whose `STATUS.json` says that the release in it was withdrawn, does not name it, or is not as it was written.

    Evidence is as true as before when a status expires, so that is not looked at here; the loader does.

    Raises:
        VerificationError: it does, or it cannot be read.
    """
    if not (place / STATUS_NAME).exists():
        return
    found = SignedStatus.from_bytes(read_bounded(place / STATUS_NAME, MAX_STATUS_BYTES), where=f"{STATUS_NAME} in {place}")
    root = ReleaseManifest.read(place / MANIFEST_NAME).root
    refuse_by_status(found, Asked(str(place), root, repository=None, revision=None, is_pinned=True, keys=(), lowest=None, needs_status=False,
                                  now=found.status.issued))

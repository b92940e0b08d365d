"""A release as it comes from a hub: in a folder that holds a few files of the hub and of its client too.

Beside the release lie `.gitattributes` (which files are large), `WITHDRAWN.json` with its signature when something was taken
back, and, where the client was given a folder of its own, its notes in `.cache/huggingface/`.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import VerificationError
from ...hub_files import CLIENT_FOLDER, find_misuse, may_lie_beside
from ...hub_files import KEPT_FILES as KEPT_FILES  # noqa: PLC0414  the other modules of publishing take it from here
from ...manifest import MANIFEST_NAME, ReleaseManifest, list_files
from ...notices import NOTICE_FILES, refuse_withdrawn
from ...strict_json import read_bounded
from ..layout import find_irregular, walk

BLOBS, SNAPSHOTS = "blobs", "snapshots"


@contextmanager
def release_in(place: Path, *, without: Callable[[str], bool] | None = None) -> Iterator[Path]:
    """The release in a folder: the folder itself, or, where other files may lie beside it, links to the release's own files.

    Args:
        place: the folder; nothing is written there.
        without: tells by its relative path a file that is to be left out; none leaves out nothing.

    Raises:
        VerificationError: something there is no plain file or a link that leads out; what lies beside is not what may, or says
            that the release was withdrawn.
    """
    problems = find_irregular(place) or find_links_out(place) if place.is_dir() else []
    if problems:
        raise VerificationError(f"release {place}", problems)
    if not place.is_dir() or (without is None and not _has_more(place)):
        yield place
        return
    refuse_withdrawn_snapshot(place)
    with tempfile.TemporaryDirectory(prefix="glideslope-view-") as temporary:
        link_release(place, Path(temporary) / "release", without=without)
        yield Path(temporary) / "release"


def _has_more(place: Path) -> bool:
    """Whether a folder holds files of a hub or its client beside the release."""
    return any((place / name).exists() for name in KEPT_FILES) or (place / CLIENT_FOLDER).is_dir()


def find_links_out(place: Path) -> list[str]:
    """One sentence for every link that leads out of a folder, where anything may lie and change.

    A snapshot in the Hub's cache (`.../snapshots/COMMIT`) consists of links to the files in `blobs` beside `snapshots`.
    """
    root = place.resolve()
    inside = [root, *([root.parents[1] / BLOBS] if root.parent.name == SNAPSHOTS else [])]
    links = ((path, Path(entry.path).resolve()) for path, entry in walk(place) if entry.is_symlink())
    return [f"{path}: a link that leads out of the release; put the file itself there" for path, target in links
            if not any(target.is_relative_to(folder) for folder in inside)]


def link_release(place: Path, view: Path, *, without: Callable[[str], bool] | None = None) -> None:
    """Make a folder of links to the release's files in a downloaded folder; what may not lie beside them is linked too, as a stranger.

    Raises:
        VerificationError: a file beside the release does not hold what its writer puts into it, or something is no plain file.
    """
    view.mkdir(parents=True)
    beside = []
    for path in list_files(place):
        relative = path.relative_to(place).as_posix()
        if without is not None and without(relative):
            continue
        if may_lie_beside(relative):
            beside.append(relative)
        else:
            (view / relative).parent.mkdir(parents=True, exist_ok=True)
            (view / relative).symlink_to(path.resolve())
    problems = find_misuse(place, beside)
    if problems:
        raise VerificationError(f"release {place}", problems)


def refuse_withdrawn_snapshot(place: Path) -> None:
    """Refuse a folder whose `WITHDRAWN.json` names the release in it, or is not as it was signed; see `refuse_withdrawn`.

    Raises:
        VerificationError: it does, it cannot be read, or its signature does not fit.
    """
    files = {name: read_bounded(place / name, max_bytes) for name, max_bytes in NOTICE_FILES.items() if (place / name).exists()}
    if files:
        refuse_withdrawn(str(place), files, ReleaseManifest.read(place / MANIFEST_NAME).root)

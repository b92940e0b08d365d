"""A release as it comes from a hub: in a folder that holds a few files of the hub and of its client too.

Beside the release lie `.gitattributes` (which files are large), `WITHDRAWN.json` with its signature when something was taken
back, and, where the client was given a folder of its own, its notes in `.cache/huggingface/`.
"""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import VerificationError
from ...manifest import MANIFEST_NAME, ReleaseManifest, list_files
from ...notices import NOTICE_FILES, refuse_withdrawn
from ...strict_json import read_bounded

ATTRIBUTES = ".gitattributes"
ATTRIBUTES_LINE = re.compile(r"(\S+ filter=lfs diff=lfs merge=lfs -text)?")
MAX_ATTRIBUTES_BYTES = 100_000
CLIENT_NOTES = ".cache/huggingface/"
KEPT_FILES = frozenset({ATTRIBUTES, *NOTICE_FILES})


@contextmanager
def release_in(place: Path) -> Iterator[Path]:
    """The release in a folder: the folder itself, or, where other files may lie beside it, links to the release's own files.

    Raises:
        VerificationError: what lies beside is not what may, or says that the release was withdrawn.
    """
    if not place.is_dir() or not (any((place / name).exists() for name in KEPT_FILES) or (place / CLIENT_NOTES).is_dir()):
        yield place
        return
    refuse_withdrawn_snapshot(place)
    with tempfile.TemporaryDirectory(prefix="glideslope-view-") as temporary:
        link_release(place, Path(temporary) / "release")
        yield Path(temporary) / "release"


def link_release(place: Path, view: Path) -> None:
    """Make a folder of links to the release's files in a downloaded folder.

    Raises:
        VerificationError: its `.gitattributes` says more than which files are large, or something is no plain file.
    """
    view.mkdir(parents=True)
    for path in list_files(place):
        relative = path.relative_to(place).as_posix()
        if relative not in KEPT_FILES and not relative.startswith(CLIENT_NOTES):
            (view / relative).parent.mkdir(parents=True, exist_ok=True)
            (view / relative).symlink_to(path.resolve())
    attributes = place / ATTRIBUTES
    if attributes.exists():
        lines = read_bounded(attributes, MAX_ATTRIBUTES_BYTES).decode(errors="replace").splitlines()
        if not all(ATTRIBUTES_LINE.fullmatch(line) for line in lines):
            raise VerificationError(ATTRIBUTES, [f"{ATTRIBUTES} says more than which files are large; restore the one that the Hub made"])


def refuse_withdrawn_snapshot(place: Path) -> None:
    """Refuse a folder whose `WITHDRAWN.json` names the release in it, or is not as it was signed; see `refuse_withdrawn`.

    Raises:
        VerificationError: it does, it cannot be read, or its signature does not fit.
    """
    files = {name: read_bounded(place / name, max_bytes) for name, max_bytes in NOTICE_FILES.items() if (place / name).exists()}
    if files:
        refuse_withdrawn(str(place), files, ReleaseManifest.read(place / MANIFEST_NAME).root)

"""Where commands may write: never into a release, whose files are exactly those that its manifest lists."""

import os
from pathlib import Path

from .errors import ReleaseError, VerificationError
from .manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES
from .strict_json import read_bounded

FORMAT_MARK = b'"glideslope.'  # every manifest of ours names its format so


def refuse_in_release(out: Path, release_dir: Path) -> None:
    """Refuse to write into a release: the given one, or another one that `out` lies in.

    Args:
        out: the file or directory that is to be written; links on the way are followed.
        release_dir: the release that is worked on.

    Raises:
        ReleaseError: `out` is a release or lies in one.
    """
    place = out.expanduser().resolve()
    around = next((folder for folder in (place, *place.parents) if folder == release_dir.resolve() or _is_ours(folder)), None)
    if around is not None:
        raise ReleaseError(f"{out}: OUT lies inside the release {around}, where nothing may be added; name a place outside of it")


def refuse_near_manifest(key: Path) -> None:
    """Refuse to write a private key where it could be given away: in a directory with any manifest, or below one.

    Raises:
        ReleaseError: there is such a directory.
    """
    folder = next((folder for folder in key.expanduser().resolve().parents if os.path.lexists(folder / MANIFEST_NAME)), None)
    if folder is not None:
        raise ReleaseError(f"{key}: {folder} holds a {MANIFEST_NAME}, so the private key would lie inside what is given to others; keep keys "
                           "elsewhere, such as ~/keys")


def _is_ours(folder: Path) -> bool:
    """Whether a directory holds a manifest of ours; one that cannot be read is taken for one."""
    if not os.path.lexists(folder / MANIFEST_NAME):
        return False
    try:
        return FORMAT_MARK in read_bounded(folder / MANIFEST_NAME, MAX_MANIFEST_BYTES)
    except VerificationError:
        return True

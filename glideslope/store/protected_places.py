"""Where commands may write: never into a release, whose files are exactly those that its manifest lists, and never over a file."""

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import ReleaseError, VerificationError
from .file_lists import MANIFEST_NAME, MAX_MANIFEST_BYTES
from .strict_json import read_bounded
from .whole_files import storage_error, write_bytes

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


def numbered_names(path: Path) -> Iterator[Path]:
    """A name and those to take where it is taken: samples.png, samples-2.png, samples-3.png, ..."""
    return itertools.chain([path], (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(2)))


def write_new(path: Path, data: bytes) -> Path:
    """Write a file whole or not at all, under the first of its numbered names that nobody has; it is claimed before it is written.

    Returns:
        Where it lies.

    Raises:
        StorageError: the directory cannot be written or the disk is full.
    """
    for name in numbered_names(path):
        try:
            name.parent.mkdir(parents=True, exist_ok=True)
            name.open("xb").close()
        except FileExistsError as error:
            if not name.parent.is_dir():
                raise storage_error(path, error) from error
            continue
        except OSError as error:
            raise storage_error(path, error) from error
        try:
            write_bytes(name, data)
        except BaseException:
            with contextlib.suppress(OSError):
                name.unlink(missing_ok=True)
            raise
        break
    return name


def _is_ours(folder: Path) -> bool:
    """Whether a directory holds a manifest of ours; one that cannot be read is taken for one."""
    if not os.path.lexists(folder / MANIFEST_NAME):
        return False
    try:
        return FORMAT_MARK in read_bounded(folder / MANIFEST_NAME, MAX_MANIFEST_BYTES)
    except VerificationError:
        return True

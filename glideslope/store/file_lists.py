"""The files below a directory: which there are, what each holds, and how they differ from a list.

Every manifest is compared here: a stage's, a release's, and what a hub says of a commit.
"""

import os
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import VerificationError
from .digests import sha256_file
from .litter import who_left

MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 32_000_000
MAX_FOLDERS_DEEP = 32  # a reader that goes down folder by folder must come to an end
NUM_THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True, order=True)
class FileEntry:
    """One file: relative POSIX path, size in bytes, hex SHA-256."""

    path: str
    size_bytes: int
    sha256: str


class Measured(Protocol):
    """What is known of a file that was found: its size in bytes and its hex SHA-256; each is `None` where nobody says."""

    @property
    def size_bytes(self) -> int | None:
        """Its size in bytes."""

    @property
    def sha256(self) -> str | None:
        """Its digest."""


def compare_files(listed: Iterable[FileEntry], found: Mapping[str, Measured]) -> list[str]:
    """Compare files with a list: one sentence for each that is missing, has other content, or is not listed.

    Args:
        listed: the files that there should be.
        found: relative POSIX path -> what there is. What may lie there without being listed is left out by the caller.
    """
    problems, strangers = [], set(found)
    for entry in listed:
        strangers.discard(entry.path)
        problem = _difference(entry, found.get(entry.path))
        problems += [] if problem is None else [problem]
    return problems + [describe_unlisted(path) for path in sorted(strangers)]


def _difference(entry: FileEntry, found: Measured | None) -> str | None:
    if found is None:
        return f"{entry.path}: file is missing"
    if found.size_bytes not in (None, entry.size_bytes):
        return f"{entry.path}: size is {found.size_bytes} bytes, expected {entry.size_bytes}"
    if found.sha256 not in (None, entry.sha256):
        return f"{entry.path}: sha256 is {str(found.sha256)[:12]}…, expected {entry.sha256[:12]}…"
    return None


def measure_files(directory: Path, paths: Iterable[str]) -> dict[str, FileEntry]:
    """Hash files below a directory, several at a time and none whole.

    Args:
        directory: where.
        paths: their relative POSIX paths.
    """
    def measure(path: str) -> FileEntry:
        return FileEntry(path, (directory / path).stat().st_size, sha256_file(directory / path))

    with ThreadPoolExecutor(NUM_THREADS) as threads:
        return {entry.path: entry for entry in threads.map(measure, paths)}


def find_differences(listed: Iterable[FileEntry], directory: Path, present: Iterable[str]) -> list[str]:
    """Compare the files in a directory with a list, as `compare_files` does; only what is listed is hashed.

    Args:
        listed: the files that there should be.
        directory: where.
        present: relative POSIX paths of the files there.
    """
    entries = list(listed)
    names, there = {entry.path for entry in entries}, set(present)
    problems = compare_files(entries, measure_files(directory, sorted(names & there)))
    return problems + [describe_unlisted(path) for path in sorted(there - names)]


def describe_unlisted(path: str) -> str:
    """One sentence for a file that no manifest lists; what an operating system leaves in folders is called so."""
    system = next(filter(None, map(who_left, path.split("/"))), None)
    return f"{path}: file is not in the manifest" + (f"; {system} puts such files into folders, remove it" if system else "")


def list_files(directory: Path, *, without: Collection[str] = ()) -> list[str]:
    """Relative POSIX paths of every file below a directory, sorted. Links to files count as files (the Hub's cache is made of them).

    Args:
        directory: where.
        without: names directly below it that are not looked at.

    Raises:
        VerificationError: a link to a directory, a dangling link, a pipe or a device, or folders more than 32 deep.
    """
    found, problems = [], []
    for root, folders, names in os.walk(directory):
        left_out = without if Path(root) == directory else ()
        folders[:] = sorted(name for name in folders if name not in left_out)
        folder = Path(root).relative_to(directory)
        if folders and len(folder.parts) >= MAX_FOLDERS_DEEP:
            problems.append(f"{_begin(folder)}: folders lie more than {MAX_FOLDERS_DEEP} deep; remove them")
            folders.clear()
        linked = [name for name in folders if (Path(root) / name).is_symlink()]
        for name in sorted({*names, *linked}.difference(left_out)):
            path = (folder / name).as_posix()
            if (Path(root) / name).is_file():
                found.append(path)
            else:
                problems.append(f"{path}: not a plain file")
    if problems:
        raise VerificationError(str(directory), problems)
    return found


def _begin(path: Path) -> str:
    """The first folders of a path that is too long to be shown."""
    return "/".join(path.parts[:3]) + "/…"

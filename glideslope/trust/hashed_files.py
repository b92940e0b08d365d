"""Every file of a release hashed once, several at a time: what the manifest, the chain and the copies are held against."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..errors import VerificationError
from ..store.tensor_entries import TensorEntry, is_weight_file, read_tensors
from .release_manifest import NUM_THREADS, UNLISTED, FileEntry, ReleaseManifest, describe_unlisted, list_files, sha256_file


@dataclass(frozen=True)
class Hashed:
    """A file that was read.

    Attributes:
        entry: its path, size and digest.
        tensors: digests of the tensors in it; empty for anything but weights.
        problem: why its tensors could not be read, or none.
    """

    entry: FileEntry
    tensors: tuple[TensorEntry, ...] = ()
    problem: str | None = None


def hash_files(directory: Path) -> dict[str, Hashed]:
    """Read every file below a directory once, several at a time and none whole.

    Returns:
        Relative POSIX path -> what was read.

    Raises:
        VerificationError: something below is no plain file.
    """
    paths = [path.relative_to(directory).as_posix() for path in list_files(directory)]
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        return dict(zip(paths, threads.map(lambda path: hash_one(directory, path), paths), strict=True))


def hash_one(directory: Path, path: str) -> Hashed:
    """Read one file; see `hash_files`."""
    file = directory / path
    size_bytes = file.stat().st_size
    if not is_weight_file(path):
        return Hashed(FileEntry(path, size_bytes, sha256_file(file)))
    try:
        digest, tensors = read_tensors(directory, path)
    except VerificationError as error:
        return Hashed(FileEntry(path, size_bytes, sha256_file(file)), problem="; ".join(error.problems).replace(f"{file}: ", ""))
    return Hashed(FileEntry(path, size_bytes, digest), tuple(tensors))


def compare_files(manifest: ReleaseManifest, found: Mapping[str, Hashed]) -> list[str]:
    """One sentence for every file that is changed, missing or not in the manifest."""
    problems = []
    for entry in manifest.files:
        here = found[entry.path].entry if entry.path in found else None
        if here is None:
            problems.append(f"{entry.path}: file is missing")
        elif here.size_bytes != entry.size_bytes:
            problems.append(f"{entry.path}: size is {here.size_bytes} bytes, expected {entry.size_bytes}")
        elif here.sha256 != entry.sha256:
            problems.append(f"{entry.path}: sha256 is {here.sha256[:12]}…, expected {entry.sha256[:12]}…")
    listed = {entry.path for entry in manifest.files} | UNLISTED
    return problems + [describe_unlisted(path) for path in sorted(found.keys() - listed)]


def compare_tensors(manifest: ReleaseManifest, found: Mapping[str, Hashed]) -> list[str]:
    """One sentence for every tensor that is changed, missing or not in the manifest."""
    unreadable = [hashed.problem for hashed in found.values() if hashed.problem is not None]
    stated = {tensor.place: tensor for tensor in manifest.tensors}
    entries = [tensor for hashed in found.values() for tensor in hashed.tensors]
    problems = [problem for entry in entries if (problem := entry.difference(stated.pop(entry.place, None))) is not None]
    missing = [] if unreadable else [f"{tensor.component}: tensor {tensor.name} is in no weight file" for tensor in stated.values()]
    return unreadable + problems + missing

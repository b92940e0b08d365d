"""Every file of a release read once, several at a time: its digest, and the digest of each tensor in it.

Nothing is parsed but the headers of weights, and nothing is held whole.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import CheckpointError, VerificationError
from ..store.digests import sha256_file
from ..store.file_lists import NUM_THREADS, FileEntry, list_files
from ..store.weight_files import parse_weights_name, read_header
from .release_manifest import UNLISTED, ReleaseManifest, TensorEntry

PIECE_BYTES = 1 << 20
MIN_SHARED_BYTES = 1 << 16  # shorter pieces are hashed faster than another thread is woken


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


def build_manifest(directory: Path, *, exclude: Collection[str] = ()) -> ReleaseManifest:
    """The manifest of the release in a directory; manifest and signature are left out.

    Args:
        directory: the release.
        exclude: further relative paths to leave out.

    Raises:
        VerificationError: something below is no plain file, or weights are not readable as safetensors.
    """
    left_out = {*UNLISTED, *exclude}
    return manifest_of(hash_files(directory, [path for path in list_files(directory) if path not in left_out]), where=str(directory))


def manifest_of(hashed: Mapping[str, Hashed], *, where: str) -> ReleaseManifest:
    """The manifest of files that were hashed; `where` names the release in messages.

    Raises:
        VerificationError: weights are not readable as safetensors, or two files of a component hold one tensor.
    """
    problems = [file.problem for file in hashed.values() if file.problem is not None]
    tensors = sorted((tensor for file in hashed.values() for tensor in file.tensors), key=lambda tensor: tensor.place)
    if len({tensor.place for tensor in tensors}) != len(tensors):
        problems.append("a tensor lies in two weight files of one component; pack the release again")
    if problems:
        raise VerificationError(where, problems)
    return ReleaseManifest(tuple(sorted(file.entry for file in hashed.values())), tuple(tensors))


def hash_files(directory: Path, paths: Iterable[str]) -> dict[str, Hashed]:
    """Read files of a release once, several at a time and none whole.

    Args:
        directory: where the release lies.
        paths: relative POSIX paths of its files.

    Returns:
        Relative POSIX path -> what was read.
    """
    paths = list(paths)
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


def compare_tensors(manifest: ReleaseManifest, found: Mapping[str, Hashed]) -> list[str]:
    """One sentence for every tensor that is changed, missing or not in the manifest."""
    unreadable = [hashed.problem for hashed in found.values() if hashed.problem is not None]
    stated = {tensor.place: tensor for tensor in manifest.tensors}
    entries = [tensor for hashed in found.values() for tensor in hashed.tensors]
    problems = [problem for entry in entries if (problem := entry.difference(stated.pop(entry.place, None))) is not None]
    missing = [] if unreadable else [f"{tensor.component}: tensor {tensor.name} is in no weight file" for tensor in stated.values()]
    return unreadable + problems + missing


def is_weight_file(path: str) -> bool:
    """Whether a relative POSIX path in a release is that of a model's weights, whole or a shard."""
    component, _, name = path.partition("/")
    return bool(component) and parse_weights_name(name) is not None


def read_tensors(directory: Path, path: str) -> tuple[str, list[TensorEntry]]:
    """Read a weight file of a release once, in pieces of a mebibyte.

    Args:
        directory: the release.
        path: relative POSIX path of the file, such as `base/diffusion_pytorch_model.fp16.safetensors`.

    Returns:
        hex SHA-256 of the file, and the entry of each tensor in the order of its bytes.

    Raises:
        VerificationError: not the path of a weight file, or not one that `weight_files.read_header` reads.
    """
    component, _, name = path.partition("/")
    parsed = parse_weights_name(name)
    if parsed is None:
        raise VerificationError(path, [f"{path}: is not the name of a weight file"])
    whole, entries = hashlib.sha256(), []
    try:
        headers = sorted(read_header(directory / path).items(), key=lambda item: (item[1].begin, item[1].end))
        num_values = headers[-1][1].end if headers else 0
        with (directory / path).open("rb") as file, ThreadPoolExecutor(1) as second:
            _hash_range(file, (directory / path).stat().st_size - num_values, whole, second)
            for tensor, header in headers:
                digest = _hash_range(file, header.end - header.begin, whole, second)
                entries.append(TensorEntry(component, parsed[0], tensor, header.dtype, header.shape, digest))
    except (OSError, CheckpointError) as error:
        raise VerificationError(path, [f"{path}: {error}"]) from error
    return whole.hexdigest(), entries


def _hash_range(file: BinaryIO, num_bytes: int, whole: "hashlib._Hash", second: ThreadPoolExecutor) -> str:
    """Hash the next bytes of a file, for themselves and into the digest of the whole, both at once where that pays."""
    digest = hashlib.sha256()
    while num_bytes:
        piece = file.read(min(num_bytes, PIECE_BYTES))
        if not piece:
            raise CheckpointError("not a readable safetensors file (it ends within a tensor)")
        beside = second.submit(whole.update, piece) if len(piece) >= MIN_SHARED_BYTES else None
        digest.update(piece)
        if beside is None:
            whole.update(piece)
        else:
            beside.result()
        num_bytes -= len(piece)
    return digest.hexdigest()

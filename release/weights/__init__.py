"""Safetensors files as a release holds them: one canonical form, read in pieces and checked without holding a tensor.

The form is the one that the safetensors library writes when tensors are given sorted by name: wide types first, then by
name, the single metadata key `format`, the header padded to 8 bytes. Equal tensors give equal bytes.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import numpy as np

from ...errors import CheckpointError, ReleaseError
from ...store.weight_files import MAX_HEADER_BYTES, NUM_BYTES, TensorHeader, WeightFiles, find_weights, read_header

METADATA = {"format": "pt"}
DTYPE_ORDER = ("F32", "BF16", "F16")
PIECE_VALUES = 1 << 20
# Bits of a value without its sign, the unsigned type they are read as, and the smallest such bits that are not finite.
MAGNITUDES: Mapping[str, tuple[str, int, int]] = MappingProxyType({
    "F32": ("<u4", 0x7FFFFFFF, 0x7F800000), "BF16": ("<u2", 0x7FFF, 0x7F80), "F16": ("<u2", 0x7FFF, 0x7C00)})


@dataclass(frozen=True)
class Piece:
    """Up to 2^20 values of a tensor, as they lie in the file.

    Attributes:
        name: of the tensor.
        dtype: as safetensors spells it.
        start: number of the first value in the flattened tensor.
        data: the bytes, little-endian.
    """

    name: str
    dtype: str
    start: int
    data: bytes


def read_weights(directory: Path, variant: str | None = None) -> WeightFiles:
    """Find a component's weights and read their headers, see `weight_files.find_weights`.

    Raises:
        ReleaseError: what `find_weights` refuses.
    """
    try:
        return find_weights(directory, variant)
    except CheckpointError as error:
        raise ReleaseError(f"{error}; pack the release again") from error


def read_file(path: Path) -> WeightFiles:
    """A single safetensors file as weights, whatever its name.

    Raises:
        ReleaseError: what `weight_files.read_header` refuses.
    """
    try:
        headers = read_header(path)
    except CheckpointError as error:
        raise ReleaseError(str(error)) from error
    return WeightFiles((path,), None, dict.fromkeys(headers, path), headers)


def canonical_order(headers: Mapping[str, TensorHeader]) -> list[str]:
    """Names of tensors in the order of the canonical form.

    Raises:
        ReleaseError: a type that weights do not have.
    """
    odd = [name for name, header in headers.items() if header.dtype not in DTYPE_ORDER]
    if odd:
        raise ReleaseError(f"tensor {odd[0]} has type {headers[odd[0]].dtype}, expected one of {', '.join(DTYPE_ORDER)}")
    return sorted(headers, key=lambda name: (DTYPE_ORDER.index(headers[name].dtype), name))


def canonical_header(headers: Mapping[str, TensorHeader]) -> bytes:
    """All that comes before the values in the canonical file of such tensors; where they lie now plays no part.

    Raises:
        ReleaseError: a type that weights do not have, or more tensors than a header can hold.
    """
    value: dict[str, object] = {"__metadata__": METADATA}
    end = 0
    for name in canonical_order(headers):
        begin, end = end, end + num_bytes(headers[name])
        value[name] = {"dtype": headers[name].dtype, "shape": list(headers[name].shape), "data_offsets": [begin, end]}
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_BYTES:
        raise ReleaseError(f"{len(headers)} tensors need a header of {len(text)} bytes, at most {MAX_HEADER_BYTES} are read; "
                           "set a smaller release.max_shard_mb")
    return len(text).to_bytes(8, "little") + text


def find_noncanonical(weights: WeightFiles) -> list[str]:
    """One sentence for every file that is not the one canonical form of its tensors."""
    problems = []
    for file in weights.files:
        headers = {name: weights.headers[name] for name, holder in weights.tensors.items() if holder == file}
        expected = canonical_header(headers)
        with file.open("rb") as opened:
            if opened.read(len(expected)) != expected:
                problems.append(f"{file.name}: is not canonical safetensors (sorted tensors, the one metadata key 'format': 'pt')")
    return problems


def read_pieces(weights: WeightFiles, names: Iterable[str] | None = None) -> Iterator[Piece]:
    """Read the values of tensors, at most 2^20 of them at a time.

    Args:
        weights: the files.
        names: which tensors, in this order; none: all, in canonical order.

    Raises:
        ReleaseError: a file ends early: it was changed while it was read.
    """
    ends = {file: max((weights.headers[name].end for name, holder in weights.tensors.items() if holder == file), default=0)
            for file in weights.files}
    with ExitStack() as stack:
        opened: dict[Path, BinaryIO] = {}
        for name in canonical_order(weights.headers) if names is None else names:
            path, header = weights.tensors[name], weights.headers[name]
            if path not in opened:
                opened[path] = stack.enter_context(path.open("rb"))
            opened[path].seek(path.stat().st_size - ends[path] + header.begin)
            yield from _read_tensor(opened[path], name, header)


def _read_tensor(file: BinaryIO, name: str, header: TensorHeader) -> Iterator[Piece]:
    size, left, start = NUM_BYTES[header.dtype], prod(header.shape), 0
    while left:
        length = min(left, PIECE_VALUES)
        data = file.read(length * size)
        if len(data) != length * size:
            raise ReleaseError(f"{file.name}: ends within tensor {name}; something else writes to it, end that and try again")
        yield Piece(name, header.dtype, start, data)
        start, left = start + length, left - length


def joined_digest(weights: WeightFiles) -> str:
    """Hex SHA-256 of the single canonical file that holds these tensors, whether they lie in one file or in shards."""
    digest = hashlib.sha256(canonical_header(weights.headers))
    for piece in read_pieces(weights):
        digest.update(piece.data)
    return digest.hexdigest()


def is_finite(piece: Piece) -> bool:
    """Whether no value is an infinity or not a number."""
    unsigned, mask, limit = MAGNITUDES[piece.dtype]
    return int(np.max(np.frombuffer(piece.data, dtype=unsigned) & mask)) < limit


def find_nonfinite(weights: WeightFiles) -> list[str]:
    """Names of the tensors that hold a NaN or an infinity, in canonical order."""
    return list(dict.fromkeys(piece.name for piece in read_pieces(weights) if not is_finite(piece)))


def num_bytes(header: TensorHeader) -> int:
    """Bytes of a tensor's values."""
    return prod(header.shape) * NUM_BYTES[header.dtype]


def count_parameters(headers: Mapping[str, TensorHeader]) -> int:
    """Number of values in all tensors."""
    return sum(prod(header.shape) for header in headers.values())


def size_on_disk(files: Sequence[Path]) -> int:
    """Bytes of files."""
    return sum(file.stat().st_size for file in files)

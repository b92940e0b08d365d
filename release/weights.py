"""Safetensors files as a release holds them: one canonical form, read and checked without loading a tensor."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ..errors import ReleaseError

MAX_HEADER_BYTES = 2_000_000
METADATA = {"format": "pt"}
METADATA_KEYS = frozenset(METADATA)
NUM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True)
class TensorHeader:
    """What a safetensors header says of one tensor: its type as safetensors spells it, its shape, its bytes."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def canonical_weights(path: Path) -> bytes:
    """A safetensors file's tensors in the one form that a release holds: sorted, one metadata key.

    Equal tensors give equal bytes; names, types and values stay as they are.

    Raises:
        ReleaseError: the file is not readable as safetensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load, save

    try:
        tensors = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise ReleaseError(f"{path}: not readable as safetensors ({error}); train the model again") from error
    return bytes(save(dict(sorted(tensors.items())), metadata=METADATA))


def read_header(path: Path) -> dict[str, TensorHeader]:
    """Read the header of a canonical safetensors file and check it; no tensor is loaded.

    Returns:
        name -> header of every tensor, in the order of the file.

    Raises:
        ReleaseError: not a safetensors file, or one that is not canonical: header too long or not starting with `{`,
            a repeated name, metadata other than a format, an unknown type, bytes that overlap, leave a hole or trail behind.
    """
    headers, _, size = _parse(path)
    _check_bytes(path.name, headers, size)
    return headers


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a safetensors file; see `read_header` for what is refused."""
    return _parse(path)[1]


def _parse(path: Path) -> tuple[dict[str, TensorHeader], dict[str, Any], int]:
    """Tensor headers, metadata, and number of bytes after the header."""
    try:
        with path.open("rb") as file:
            length_bytes = file.read(8)
            length = struct.unpack("<Q", length_bytes)[0] if len(length_bytes) == 8 else 0
            if not 2 <= length <= MAX_HEADER_BYTES:
                raise ReleaseError(f"{path.name}: not a safetensors file (header of {length} bytes, "
                                   f"expected 2 to {MAX_HEADER_BYTES})")
            text = file.read(length)
        size = path.stat().st_size - 8 - length
        if len(text) != length or not text.startswith(b"{"):
            raise ReleaseError(f"{path.name}: not a safetensors file (its header is cut off or does not start with a brace)")
        value = json.loads(text, object_pairs_hook=_without_repeats)
        metadata = value.pop("__metadata__", {})
        headers = {name: _tensor_header(entry) for name, entry in value.items()}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ReleaseError(f"{path.name}: not a safetensors file ({error})") from error
    if not isinstance(metadata, dict) or set(metadata) - METADATA_KEYS:
        raise ReleaseError(f"{path.name}: metadata is {metadata!r:.80}, at most a format is expected; pack the release again")
    return headers, metadata, size


def count_parameters(headers: Mapping[str, TensorHeader]) -> int:
    """Number of values in all tensors."""
    return sum(prod(header.shape) for header in headers.values())


def find_nonfinite(path: Path) -> list[str]:
    """Names of the tensors that hold a NaN or an infinity.

    Raises:
        ReleaseError: the file is not readable as safetensors.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return [name for name in sorted(file.keys()) if not bool(torch.isfinite(file.get_tensor(name)).all())]
    except (OSError, SafetensorError) as error:
        raise ReleaseError(f"{path.name}: not a safetensors file ({error})") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name occurs twice in the header")
    return value


def _tensor_header(entry: Mapping[str, Any]) -> TensorHeader:
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if not all(type(number) is int and number >= 0 for number in (begin, end, *shape)):
        raise ValueError(f"impossible offsets or shape: {entry!r:.80}")
    if entry["dtype"] not in NUM_BYTES or end - begin != prod(shape) * NUM_BYTES[entry["dtype"]]:
        raise ValueError(f"type, shape and bytes of a tensor do not fit: {entry!r:.80}")
    return TensorHeader(entry["dtype"], shape, begin, end)


def _check_bytes(name: str, headers: Mapping[str, TensorHeader], size: int) -> None:
    position = 0
    for header in sorted(headers.values(), key=lambda h: (h.begin, h.end)):
        if header.begin != position:
            raise ReleaseError(f"{name}: tensors overlap or leave a hole at byte {position}; pack the release again")
        position = header.end
    if position != size:
        raise ReleaseError(f"{name}: tensors end at byte {position}, the data at {size}; pack the release again")

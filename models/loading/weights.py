"""Weights read straight into place: a piece at a time, hashed as they are read, never held twice.

A tensor is read from its file into the memory that the network will use, or, where another type or device was asked for,
through one piece of two megabytes. Reading needs little more than that piece beside the weights themselves.
"""

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from ...errors import CheckpointError, VerificationError
from ...store.file_lists import FileEntry
from ...store.weight_files import TensorHeader, WeightFiles, parse_header, read_header_bytes
from ...trust.checked_bytes import Digests

PIECE_BYTES = 2_000_000
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class WeightTarget:
    """Where weights go: their type, `None` for the one that is stored, and their device."""

    dtype: torch.dtype | None
    device: torch.device


def read_weights(files: WeightFiles, target: WeightTarget, digests: Digests | None = None) -> dict[str, Tensor]:
    """Read every tensor of a component.

    Args:
        files: the weights, with headers that fit the architecture and types that are in `DTYPES`.
        target: type and device of the result.
        digests: of the files; every byte is hashed as it is read, and what was read is refused unless it is what the manifest
            lists, so that a file that is exchanged after its verification is noticed. None hashes nothing.

    Returns:
        name -> tensor, contiguous.

    Raises:
        CheckpointError: a file ends early or was changed since its header was read, or holds values that are not finite or do
            not fit the type.
        VerificationError: what was read is not what the manifest lists.
    """
    if sys.byteorder != "little":
        raise CheckpointError("this machine keeps the highest byte first; weights are read on machines that keep the lowest byte first")
    tensors: dict[str, Tensor] = {}
    scratch = torch.empty(PIECE_BYTES, dtype=torch.uint8)  # one for all: freed pieces would leave holes among the weights
    for path in files.files:
        held = {name: header for name, header in files.headers.items() if files.tensors[name] == path}
        entry = None if digests is None else digests.get(path)
        if digests is not None and entry is None:
            raise VerificationError(str(path), ["file is not in the manifest"])
        tensors |= _read_file(path, held, target, entry, scratch)
    return tensors


def _read_file(path: Path, held: Mapping[str, TensorHeader], target: WeightTarget, entry: FileEntry | None,
               scratch: Tensor) -> dict[str, Tensor]:
    whole = None if entry is None else hashlib.sha256()
    tensors: dict[str, Tensor] = {}
    try:
        with path.open("rb") as file:
            _check_header(path, file, held, whole)
            for name, header in sorted(held.items(), key=lambda item: (item[1].begin, item[1].end)):
                tensors[name] = _read_tensor(file, header, target, whole, scratch)
                _check_finite(path, name, header, tensors[name])
    except (OSError, EOFError) as error:
        raise CheckpointError(f"{path}: cannot be read to its end ({error}); fetch the file again") from error
    if whole is not None and entry is not None and (found := whole.hexdigest()) != entry.sha256:
        raise VerificationError(str(path), [f"was changed while it was loaded: sha256 is {found[:12]}…, expected {entry.sha256[:12]}…"])
    return tensors


def _check_header(path: Path, file: BinaryIO, held: Mapping[str, TensorHeader], whole: "hashlib._Hash | None") -> None:
    """Read the header again, from the very file whose tensors follow."""
    try:
        header = read_header_bytes(file)
        unchanged = parse_header(header, path.stat().st_size, where=path.name) == dict(held)
    except (ValueError, VerificationError):
        unchanged = False
    if not unchanged:
        raise CheckpointError(f"{path}: was changed while it was loaded; load again when nothing writes to it")
    if whole is not None:
        whole.update(header)


def _read_tensor(file: BinaryIO, header: TensorHeader, target: WeightTarget, whole: "hashlib._Hash | None", scratch: Tensor) -> Tensor:
    stored = DTYPES[header.dtype]
    tensor = torch.empty(header.shape, dtype=target.dtype or stored, device=target.device)
    flat, step = tensor.view(-1), PIECE_BYTES // stored.itemsize
    in_place = tensor.dtype == stored and tensor.device.type == "cpu"
    for start in range(0, flat.numel(), step):
        part = flat[start:start + step]
        piece = part if in_place else scratch[:part.numel() * stored.itemsize].view(stored)
        buffer = piece.view(torch.uint8).numpy().data
        if file.readinto(buffer) != len(buffer):  # type: ignore[attr-defined]  # a buffered reader has it
            raise EOFError("the file ends within a tensor")
        if whole is not None:
            whole.update(buffer)
        if not in_place:
            part.copy_(piece)
    return tensor


def _check_finite(path: Path, name: str, header: TensorHeader, tensor: Tensor) -> None:
    """Refuse NaN and infinity. Smallest and largest value tell of either, and, unlike a sum, take no memory."""
    if tensor.numel() == 0 or bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all()):
        return
    told = "" if tensor.dtype == DTYPES[header.dtype] else f", or too large for {tensor.dtype} as which it was asked for"
    raise CheckpointError(f"{path}: tensor {name} holds values that are not finite{told}; use another file or type")

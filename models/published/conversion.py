"""From open `.pt` files to one canonical safetensors file, tensor by tensor, read back and compared bit for bit."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from ...errors import CheckpointError
from ...progress import Advance
from ...store.whole_files import written_whole
from .torch_archive import ArchivedTensor, TorchArchive

# As safetensors orders tensors in a file: wide types first (so that all are aligned), then by name.
DTYPE_ORDER = ("F32", "BF16", "F16")
# Bits that are all one in an infinity and in what is no number, and the unsigned type they are read as.
EXPONENTS = {"F32": ("<u4", 0x7F800000), "BF16": ("<u2", 0x7F80), "F16": ("<u2", 0x7C00)}


@dataclass(frozen=True)
class ArchivedSource:
    """A tensor of a checkpoint: the open file, and its name there."""

    archive: TorchArchive
    name: str

    @property
    def tensor(self) -> ArchivedTensor:
        """Type, shape and place."""
        return self.archive.tensors[self.name]


def source_problems(sources: Mapping[str, ArchivedSource], expected: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Compare checkpoints with an architecture: one sentence per missing, unknown or unfit tensor.

    Args:
        sources: name in the component -> where it comes from.
        expected: names and shapes of the architecture.
    """
    problems = [f"tensor {name} is missing" for name in expected if name not in sources]
    problems += [f"tensor {name:.120} is not in the architecture" for name in sources if name not in expected]
    for name, source in sources.items():
        tensor = source.tensor
        if name in expected and tensor.shape != expected[name]:
            problems.append(f"tensor {name} has shape {list(tensor.shape)}, expected {list(expected[name])}")
        if tensor.dtype not in DTYPE_ORDER:
            problems.append(f"tensor {name:.120} holds {tensor.dtype}, expected one of {', '.join(DTYPE_ORDER)}")
    return problems


def write_weights(path: Path, sources: Mapping[str, ArchivedSource], advance: Advance) -> None:
    """Write tensors as safetensors, whole or not at all, holding 16 MiB of them at a time; types stay as they are.

    Args:
        path: the file.
        sources: name -> where it comes from.
        advance: told how many bytes were written, piece by piece.

    Raises:
        CheckpointError: a value that is not finite, or a file that changed meanwhile.
        StorageError: the directory cannot be written or the disk is full.
    """
    names = sorted(sources, key=lambda name: (DTYPE_ORDER.index(sources[name].tensor.dtype), name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        tensor = sources[name].tensor
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [end, end + tensor.size_bytes]}
        end += tensor.size_bytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with written_whole(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            for piece in sources[name].archive.chunks(sources[name].name):
                check_finite(piece, sources[name].tensor.dtype, f"{sources[name].archive.path}: tensor {sources[name].name}")
                file.write(piece)
                advance(len(piece))


def check_finite(piece: bytes, dtype: str, what: str) -> None:
    """Refuse an infinity or what is no number among the values of a piece.

    Raises:
        CheckpointError: there is one.
    """
    unsigned, exponent = EXPONENTS[dtype]
    bits = np.frombuffer(piece, dtype=unsigned)
    num_bad = int(np.count_nonzero((bits & exponent) == exponent))
    if num_bad:
        raise CheckpointError(f"{what} holds {num_bad} values that are infinite or not numbers; such weights draw nothing")


def compare_weights(path: Path, sources: Mapping[str, ArchivedSource], advance: Advance) -> None:
    """Read a safetensors file with the library and compare every tensor with its source, bit for bit.

    Raises:
        CheckpointError: names, a type, a shape or a bit differ.
    """
    try:
        with safe_open(path, framework="pt") as file:
            if set(file.keys()) != set(sources):
                raise CheckpointError(f"{path}: does not hold the tensors that were written; the disk is damaged, or something else wrote here")
            for name, source in sources.items():
                _compare(file.get_tensor(name), source, f"{path}: tensor {name}", advance)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read back ({error})") from error


def _compare(written: torch.Tensor, source: ArchivedSource, what: str, advance: Advance) -> None:
    if tuple(written.shape) != source.tensor.shape:
        raise CheckpointError(f"{what} has shape {list(written.shape)}, but {list(source.tensor.shape)} was written")
    found = written.reshape(-1).view(torch.uint8).numpy()
    start = 0
    for piece in source.archive.chunks(source.name):
        if not np.array_equal(found[start:start + len(piece)], np.frombuffer(piece, dtype=np.uint8)):
            raise CheckpointError(f"{what} differs from its source near byte {start}; the disk is damaged, or a file changed meanwhile")
        start += len(piece)
        advance(len(piece))
    if start != found.size:
        raise CheckpointError(f"{what} has {found.size} bytes, but {start} were written")

"""The digest of each tensor in a weight file, taken from its bytes: nothing is parsed but the header, nothing is held whole."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import CheckpointError, VerificationError
from ..trust.merkle import DIGEST_PATTERN
from .weight_files import parse_weights_name, read_header

PIECE_BYTES = 1 << 20
MIN_SHARED_BYTES = 1 << 16  # shorter pieces are hashed faster than another thread is woken


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a release's weights.

    Attributes:
        component: the folder of the model.
        variant: `fp16` or `bf16`; none for the weights as they were trained.
        name: of the tensor in the model.
        dtype: as safetensors spells it.
        shape: sizes of its axes.
        sha256: hex digest of its values, little-endian and in row-major order, as they lie in the file.
    """

    component: str
    variant: str | None
    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def place(self) -> tuple[str, str, str]:
        """What a list is sorted by and what no two entries share."""
        return self.component, self.variant or "", self.name

    @property
    def is_well_formed(self) -> bool:
        """Whether each field is of its type, as in a list that somebody else wrote it need not be."""
        texts = (self.component, self.name, self.dtype, self.sha256, *([] if self.variant is None else [self.variant]))
        return (all(isinstance(text, str) and text for text in texts) and DIGEST_PATTERN.fullmatch(self.sha256) is not None
                and all(type(size) is int and size >= 0 for size in self.shape))

    def to_json(self) -> dict[str, Any]:
        """The entry as plain data."""
        return {"component": self.component, "variant": self.variant, "name": self.name, "dtype": self.dtype, "shape": list(self.shape),
                "sha256": self.sha256}

    def difference(self, stated: "TensorEntry | None") -> str | None:
        """One sentence when another entry was stated for this place, or none was."""
        where = f"{self.component}: {self.variant + ' ' if self.variant else ''}tensor {self.name}"
        if stated is None:
            return f"{where} is not in the manifest"
        found, expected = (f"{entry.dtype} {list(entry.shape)} with sha256 {entry.sha256[:12]}…" for entry in (self, stated))
        return None if self == stated else f"{where} is {found}, expected {expected}"


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


def find_disorder(places: Sequence[tuple[str, ...]]) -> bool:
    """Whether a list is out of order, or holds something twice."""
    return any(later <= earlier for earlier, later in pairwise(places))


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

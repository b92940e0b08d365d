"""The digest of each tensor in a weight file, taken from its bytes: nothing is parsed but the header, nothing is held whole."""

import hashlib
import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from .errors import VerificationError
from .merkle import DIGEST_PATTERN

WEIGHTS_PATTERN = re.compile(r"([a-z][a-z0-9_]*)/diffusion_pytorch_model(?:\.([a-z0-9]+))?(?:-\d{5}-of-\d{5})?\.safetensors")
MAX_HEADER_BYTES = 25_000_000  # the Hub reads no longer header
PIECE_BYTES = 1 << 20


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


def read_tensors(directory: Path, path: str) -> tuple[str, list[TensorEntry]]:
    """Read a weight file of a release once, in pieces of a mebibyte.

    Args:
        directory: the release.
        path: relative POSIX path of the file, such as `base/diffusion_pytorch_model.fp16.safetensors`.

    Returns:
        hex SHA-256 of the file, and the entry of each tensor in the order of its bytes.

    Raises:
        VerificationError: no readable safetensors file, or tensors that overlap, leave a hole or do not end with the file.
    """
    matched = WEIGHTS_PATTERN.fullmatch(path)
    if matched is None:
        raise VerificationError(path, ["is not the name of a weight file"])
    whole, entries, position = hashlib.sha256(), [], 0
    try:
        with (directory / path).open("rb") as file:
            size = (directory / path).stat().st_size
            header, num_bytes = _read_header(file, whole)
            for name, tensor in sorted(header.items(), key=lambda item: tuple(item[1]["data_offsets"])):
                begin, end = tensor["data_offsets"]
                if begin != position or not begin <= end <= size - num_bytes:
                    raise ValueError(f"tensor {name!r:.80} lies at bytes {begin} to {end}, expected it at {position}")
                digest = _hash_range(file, end - begin, whole)
                entries.append(TensorEntry(matched[1], matched[2], name, tensor["dtype"], tuple(tensor["shape"]), digest))
                position = end
            if position != size - num_bytes:
                raise ValueError(f"tensors end at byte {position}, the data at {size - num_bytes}")
        if not all(entry.is_well_formed for entry in entries):
            raise ValueError("a tensor has no name, type or shape")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise VerificationError(path, [f"{path}: not a readable safetensors file ({str(error) or type(error).__name__})"]) from error
    return whole.hexdigest(), entries


def find_disorder(places: list[tuple[str, ...]]) -> bool:
    """Whether a list is out of order, or holds something twice."""
    return any(later <= earlier for earlier, later in pairwise(places))


def _read_header(file: BinaryIO, whole: "hashlib._Hash") -> tuple[dict[str, Mapping[str, Any]], int]:
    """The tensors' descriptions, and how many bytes come before the values."""
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= MAX_HEADER_BYTES:
        raise ValueError(f"header of {length} bytes, expected 2 to {MAX_HEADER_BYTES}")
    text = file.read(length)
    whole.update(start)
    whole.update(text)
    header = json.loads(text, object_pairs_hook=_without_repeats)
    header.pop("__metadata__", None)
    return header, 8 + length


def _hash_range(file: BinaryIO, num_bytes: int, whole: "hashlib._Hash") -> str:
    """Hash the next bytes of a file, for themselves and into the digest of the whole."""
    digest = hashlib.sha256()
    while num_bytes:
        piece = file.read(min(num_bytes, PIECE_BYTES))
        if not piece:
            raise ValueError("the file ends within a tensor")
        digest.update(piece)
        whole.update(piece)
        num_bytes -= len(piece)
    return digest.hexdigest()


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name occurs twice in the header")
    return value

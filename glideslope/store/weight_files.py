"""Weight files as diffusers names and shards them, and their headers, read before a tensor is.

A component directory holds its weights in one file or in shards with an index, once as trained and once for every
variant (a cast of the same weights). What an index says is believed only as far as the shards' own headers agree.

Source of the names: diffusers 0.42 (folder layout and `index.json`); of the file format: the safetensors specification.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from ..errors import CheckpointError, VerificationError
from .strict_json import parse_object, read_bounded

STEM, SUFFIX = "diffusion_pytorch_model", ".safetensors"
VARIANTS: Mapping[str, str] = MappingProxyType({"fp16": "float16", "bf16": "bfloat16"})  # variant -> torch's name of its type
MAX_INDEX_BYTES = 10_000_000
MAX_HEADER_BYTES = 2_000_000
MAX_SHARDS = 99_999
NUM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
WEIGHTS_PATTERN = re.compile(rf"{STEM}(?:\.({'|'.join(VARIANTS)}))?(?:-([0-9]{{5}})-of-([0-9]{{5}}))?{re.escape(SUFFIX)}")
TENSOR_PATTERN = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
MAX_TENSOR_NAME = 200


@dataclass(frozen=True)
class TensorHeader:
    """What a safetensors header says of one tensor: its type as safetensors spells it, its shape, its place in the data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class WeightFiles:
    """The weights of a component.

    Attributes:
        files: one file, or the shards in order.
        index: the index of the shards, or none.
        tensors: name of a tensor -> the file that holds it, in the order of the files.
        headers: name of a tensor -> its type, shape and place in that file.
    """

    files: tuple[Path, ...]
    index: Path | None
    tensors: Mapping[str, Path]
    headers: Mapping[str, TensorHeader]

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(header.end - header.begin for header in self.headers.values())


def weights_name(variant: str | None = None, shard: int | None = None, num_shards: int | None = None) -> str:
    """Name of a weight file, such as `diffusion_pytorch_model.fp16-00001-of-00003.safetensors`.

    Args:
        variant: `fp16`, `bf16`, or none for the weights as trained.
        shard: number of the shard from 1, or none for a single file.
        num_shards: how many there are; given with `shard`.

    Raises:
        CheckpointError: an unknown variant, or a shard that is not one of 1 to `num_shards`.
    """
    infix = _infix(variant)
    if shard is None and num_shards is None:
        return f"{STEM}{infix}{SUFFIX}"
    if shard is None or num_shards is None or not 1 <= shard <= num_shards <= MAX_SHARDS:
        raise CheckpointError(f"shard is {shard} of {num_shards}; expected 1 to {num_shards}, of at most {MAX_SHARDS}")
    return f"{STEM}{infix}-{shard:05d}-of-{num_shards:05d}{SUFFIX}"


def index_name(variant: str | None = None) -> str:
    """Name of the index of sharded weights, such as `diffusion_pytorch_model.safetensors.index.fp16.json`.

    Raises:
        CheckpointError: an unknown variant.
    """
    return f"{STEM}{SUFFIX}.index{_infix(variant)}.json"


def parse_weights_name(name: str) -> tuple[str | None, int | None, int | None] | None:
    """Variant, shard and number of shards that a file name states, or none when it names no weights."""
    match = WEIGHTS_PATTERN.fullmatch(name)
    if match is None:
        return None
    if match[2] is None:
        return match[1], None, None
    shard, num_shards = int(match[2]), int(match[3])
    return (match[1], shard, num_shards) if 1 <= shard <= num_shards else None


def find_weights(directory: Path, variant: str | None = None) -> WeightFiles:
    """Find the weights of a component and read their headers; no tensor is loaded.

    Args:
        directory: the component's.
        variant: `fp16`, `bf16`, or none for the weights as trained. There is no fallback from one to the other.

    Returns:
        The files, and where every tensor lies.

    Raises:
        CheckpointError: there are none, a single file lies beside shards, a shard is missing or not of the index, the index
            names a file that is no shard of these weights or differs from the headers, or a header is odd.
    """
    single, index = directory / weights_name(variant), directory / index_name(variant)
    shards = _shards_in(directory, variant)
    if index.is_file():
        if single.is_file():
            raise CheckpointError(f"{directory}: holds {single.name} and {index.name}; one of them is too many, remove it")
        return _sharded(directory, index, variant, shards)
    if shards:
        raise CheckpointError(f"{directory}: holds {shards[0]}, but no {index.name}, without which shards are not read")
    if not single.is_file():
        raise CheckpointError(f"{directory}: holds no {single.name}; {_held_variants(directory)}")
    headers = read_header(single)
    return WeightFiles((single,), None, dict.fromkeys(headers, single), headers)


def read_index(path: Path, variant: str | None = None) -> tuple[dict[str, str], int]:
    """Read the index of sharded weights.

    Returns:
        Name of a tensor -> name of its shard, and the bytes of all tensors as stated.

    Raises:
        CheckpointError: too large, malformed, or naming anything but shards 1 to n of these weights by bare name.
    """
    try:
        value = parse_object(read_bounded(path, MAX_INDEX_BYTES), where=str(path), max_bytes=MAX_INDEX_BYTES, max_depth=4)
    except VerificationError as error:
        raise CheckpointError(f"{path}: {error.problems[0]}") from error
    weight_map, metadata = value.get("weight_map"), value.get("metadata")
    if set(value) != {"metadata", "weight_map"} or not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path}: expected the keys metadata and weight_map, and in weight_map every tensor; got {sorted(value)!r:.80}")
    if not isinstance(metadata, dict) or set(metadata) != {"total_size"} or type(metadata["total_size"]) is not int:
        raise CheckpointError(f"{path}: metadata is {metadata!r:.80}, expected total_size alone, in bytes")
    counts = set()
    for tensor, name in weight_map.items():
        parsed = parse_weights_name(name) if isinstance(name, str) else None
        if parsed is None or parsed[0] != variant or parsed[1] is None:
            raise CheckpointError(f"{path}: tensor {tensor!r:.80} is said to lie in {name!r:.80}, which is no shard of these weights; "
                                  f"expected bare names such as {weights_name(variant, 1, 2)}")
        counts.add(parsed[2])
    named = set(weight_map.values())
    if len(counts) != 1 or len(named) != max(count or 0 for count in counts):
        raise CheckpointError(f"{path}: names {len(named)} shards of {sorted(counts, key=str)}; expected each of one whole set")
    return weight_map, metadata["total_size"]


def read_header(path: Path) -> dict[str, TensorHeader]:
    """Read and check the header of a safetensors file; no tensor is loaded.

    Returns:
        name -> header of every tensor, in the order of the file's header.

    Raises:
        CheckpointError: not a safetensors file, or an odd one: a header above 2 MB or not starting with `{`, a repeated or
            path-like name, metadata other than `format`, an unknown type, bytes that overlap, leave a hole or trail behind.
    """
    try:
        with path.open("rb") as file:
            return parse_header(read_header_bytes(file), path.stat().st_size, where=path.name)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error
    except VerificationError as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error.problems[0]})") from error


def read_header_bytes(file: BinaryIO) -> bytes:
    """Read the header with which a safetensors file begins: its length in eight bytes, then its text, which is not looked at.

    Raises:
        ValueError: the length is impossible, or beyond 2 MB.
    """
    start = file.read(8)
    length = int.from_bytes(start, "little") if len(start) == 8 else 0
    if not 2 <= length <= MAX_HEADER_BYTES:
        raise ValueError(f"header of {length} bytes, expected 2 to {MAX_HEADER_BYTES}")
    return start + file.read(length)


def parse_header(data: bytes, num_bytes: int, *, where: str) -> dict[str, TensorHeader]:
    """Check a safetensors header as `read_header` does.

    Args:
        data: from `read_header_bytes`.
        num_bytes: size of the whole file.
        where: names the file in messages.

    Raises:
        ValueError: an odd header.
        VerificationError: no strict JSON.
    """
    length, text = int.from_bytes(data[:8], "little"), data[8:]
    if len(text) != length or not text.startswith(b"{"):
        raise ValueError("its header is cut off or does not start with a brace")
    value = parse_object(text, where=where, max_bytes=MAX_HEADER_BYTES, max_depth=4)
    metadata = value.pop("__metadata__", {})
    if not isinstance(metadata, dict) or set(metadata) - {"format"} or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError(f"metadata is {metadata!r:.80}, at most a format is expected")
    headers = {name: _tensor_header(name, entry) for name, entry in value.items()}
    position = 0
    for header in sorted(headers.values(), key=lambda h: (h.begin, h.end)):
        if header.begin != position:
            raise ValueError(f"tensors overlap or leave a hole at byte {position}")
        position = header.end
    if position != num_bytes - len(data):
        raise ValueError(f"tensors end at byte {position}, the data at {num_bytes - len(data)}")
    return headers


def _tensor_header(name: str, entry: Any) -> TensorHeader:
    if len(name) > MAX_TENSOR_NAME or not TENSOR_PATTERN.fullmatch(name) or ".." in name:
        raise ValueError(f"{name!r:.80} is no name of a tensor")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name} is described by {entry!r:.80}")
    shape, offsets, dtype = entry["shape"], entry["data_offsets"], entry["dtype"]
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2 or len(shape) > 8:
        raise ValueError(f"tensor {name} has the shape {shape!r:.80} at {offsets!r:.80}")
    if not all(type(number) is int and number >= 0 for number in (*offsets, *shape)):
        raise ValueError(f"tensor {name} has an impossible offset or shape: {entry!r:.80}")
    if not isinstance(dtype, str) or dtype not in NUM_BYTES or offsets[1] - offsets[0] != prod(shape) * NUM_BYTES[dtype]:
        raise ValueError(f"type, shape and bytes of tensor {name} do not fit: {entry!r:.80}")
    return TensorHeader(dtype, tuple(shape), offsets[0], offsets[1])


def _sharded(directory: Path, index: Path, variant: str | None, shards: list[str]) -> WeightFiles:
    weight_map, total_size = read_index(index, variant)
    named = sorted(set(weight_map.values()))
    problems = [f"shard {name} is missing" for name in named if name not in shards]
    problems += [f"{name} is no shard of {index.name}" for name in shards if name not in named]
    if problems:
        raise CheckpointError(f"{directory}: {'; '.join(problems)}")
    tensors: dict[str, Path] = {}
    headers: dict[str, TensorHeader] = {}
    for name in named:
        for tensor, header in read_header(directory / name).items():
            if weight_map.get(tensor) != name:
                raise CheckpointError(f"{directory / name}: holds the tensor {tensor}, which {index.name} places in {weight_map.get(tensor)}")
            tensors[tensor], headers[tensor] = directory / name, header
    missing = [tensor for tensor in weight_map if tensor not in headers]
    if missing:
        raise CheckpointError(f"{index}: no shard holds {', '.join(missing[:3])} ({len(missing)} in all)")
    found = WeightFiles(tuple(directory / name for name in named), index, tensors, headers)
    if total_size != found.num_bytes:
        raise CheckpointError(f"{index}: total_size is {total_size}, the shards hold {found.num_bytes} bytes")
    return found


def _shards_in(directory: Path, variant: str | None) -> list[str]:
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: no such directory")
    parsed = {path.name: parse_weights_name(path.name) for path in directory.iterdir()}
    return sorted(name for name, found in parsed.items() if found is not None and found[0] == variant and found[1] is not None)


def _held_variants(directory: Path) -> str:
    parsed = [parse_weights_name(path.name) for path in directory.iterdir()]
    held = sorted({found[0] or "none" for found in parsed if found is not None})
    return f"variants that are there: {', '.join(held)}" if held else "there are no weights in safetensors files, and no others are read"


def _infix(variant: str | None) -> str:
    if variant is not None and variant not in VARIANTS:
        raise CheckpointError(f"variant is {variant!r:.80}; expected none or one of {', '.join(VARIANTS)}")
    return "" if variant is None else f".{variant}"

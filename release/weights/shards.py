"""How a component's weights are cut into files: the same cut for the same tensors, so that `verify` can make it again."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...store.weight_files import TensorHeader, index_name, weights_name
from . import canonical_order, num_bytes

MEGABYTE = 1_000_000


def cut(headers: Mapping[str, TensorHeader], max_bytes: int) -> list[list[str]]:
    """Cut tensors, in canonical order, into shards of at most so many bytes; a larger tensor has a shard for itself.

    Args:
        headers: name -> type and shape.
        max_bytes: most bytes of values in a shard.

    Returns:
        Names of the tensors of each shard; one shard at least.
    """
    shards: list[list[str]] = [[]]
    size = 0
    for name in canonical_order(headers):
        if shards[-1] and size + num_bytes(headers[name]) > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += num_bytes(headers[name])
    return shards


def shard_names(num_shards: int, variant: str | None) -> list[str]:
    """Names of the weight files."""
    if num_shards == 1:
        return [weights_name(variant)]
    return [weights_name(variant, shard, num_shards) for shard in range(1, num_shards + 1)]


def weight_file_names(headers: Mapping[str, TensorHeader], variant: str | None, max_bytes: int) -> list[str]:
    """Names of all files that hold such tensors, the index included where there is one."""
    names = shard_names(len(cut(headers, max_bytes)), variant)
    return names if len(names) == 1 else [*names, index_name(variant)]


def index_json(headers: Mapping[str, TensorHeader], shards: Sequence[Sequence[str]], variant: str | None) -> dict[str, Any]:
    """What the index of shards holds, as diffusers spells it."""
    names = shard_names(len(shards), variant)
    return {"metadata": {"total_size": sum(map(num_bytes, headers.values()))},
            "weight_map": {tensor: name for name, tensors in zip(names, shards, strict=True) for tensor in tensors}}

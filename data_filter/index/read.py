"""Reading a finished index: its rows shard by shard, the embeddings as numbers, and the original pictures of some rows."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ...errors import FilterError
from ...store.vocabulary import Cause, Status
from ..sources.source import Source
from .parquet import read_table
from .repeated_keys import read_duplicates


def read_index(directory: Path, *, columns: Sequence[str] | None = None,
               names: Collection[str] | None = None) -> Iterator[tuple[str, pa.Table]]:
    """Read an index shard by shard, in order: name and rows, in which a repeated key is a bad input; with `names` only those shards.

    Raises:
        StageError: a file is missing or damaged.
    """
    repeated = read_duplicates(directory)
    for name in shard_names(directory) if names is None else sorted(names, key=lambda name: (len(name), name)):
        path = directory / f"{name}.parquet"
        yield name, mark_repeated(read_table(path, columns=columns), repeated.get(name), path)


def shard_names(directory: Path) -> list[str]:
    """Names of the shards of a finished index, in order."""
    return [path.stem for path in sorted(directory.glob("shard-*.parquet"), key=lambda path: (len(path.name), path.name))]


def find_shards(directory: Path, keys: Collection[str]) -> dict[str, set[str]]:
    """Shard -> those of the keys that it holds; a repeated key belongs to the shard of its first row."""
    keys_of: dict[str, set[str]] = {}
    for name, table in read_index(directory, columns=["key", "reason"]):
        held = {row["key"] for row in table.to_pylist() if row["key"] in keys and row["reason"] != Cause.DUPLICATE_KEY}
        keys_of |= {name: held} if held else {}
    return keys_of


def read_images(source: Source, keys_of: Mapping[str, Collection[str]]) -> Iterator[tuple[str, bytes]]:
    """Key and original bytes of some inputs, in the order of the source; what cannot be had is left out.

    Args:
        source: read again; only the shards that are named.
        keys_of: of `find_shards`.
    """
    for shard in source.shards():
        missing = set(keys_of.get(shard.name, ()))
        for item in source.read(shard, keys=frozenset(missing)) if missing else ():
            if item.image is not None and item.key in missing:
                missing.discard(item.key)
                yield item.key, item.image


def embedding_matrix(column: Any, *, where: str) -> NDArray[Any]:
    """A column of embeddings without nulls as a matrix, without going through Python's numbers: float16 (N, D).

    Args:
        column: pyarrow column of lists of numbers.
        where: the shard, for messages.

    Raises:
        FilterError: a null, or lists of different lengths.
    """
    if not len(column):
        return np.zeros((0, 0), np.float16)
    lists = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    lengths = set(pc.list_value_length(lists).to_pylist())
    if len(lengths) != 1 or None in lengths:
        raise FilterError(f"index {where}: embeddings of different widths; remove the index and build it again")
    return np.asarray(lists.flatten().to_numpy(zero_copy_only=False)).reshape(len(lists), lengths.pop())


def mark_repeated(table: pa.Table, rows: NDArray[np.int32] | None, path: Path) -> pa.Table:
    """Make the given rows of an index table bad inputs with the reason `duplicate key`."""
    if rows is None:
        return table
    is_repeated = np.zeros(len(table), dtype=bool)
    is_repeated[rows] = True
    values: dict[str, Any] = {"status": Status.BAD, "reason": Cause.DUPLICATE_KEY, "embedding": None}
    if "error" in table.column_names:
        keys = read_table(path, columns=["key"])["key"]
        values["error"] = pc.binary_join_element_wise("duplicate key ", keys, ": an earlier input has the same one", "")
    for position, field in enumerate(table.schema):
        if field.name in values:
            value = values[field.name]
            new = value if isinstance(value, pa.ChunkedArray) else pa.scalar(value, type=field.type)
            table = table.set_column(position, field, pc.if_else(pa.array(is_repeated), new, table[field.name]))
    return table

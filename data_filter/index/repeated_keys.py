"""Keys that occur twice in an index, found with 8 bytes of memory per key.

A first pass keeps a 64-bit hash of every key in one array and sorts it: only hashes that occur twice can belong to
repeated keys. Further passes look at those keys alone and compare them letter by letter, so a collision of hashes
does no harm.
"""

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ...errors import StageError
from .parquet import read_table, write_table

DUPLICATES_NAME = "duplicates.parquet"
DUPLICATES_SCHEMA = pa.schema([pa.field("shard", pa.string(), nullable=False), pa.field("row", pa.int32(), nullable=False),
                               pa.field("key", pa.string(), nullable=False)])
KEYS_AT_ONCE = 2_000_000
TOO_MANY = 0.1  # from this share of repeated keys on, the keys are looked at: where they mean several pictures, they name nothing
MOST_COMPARED = 10_000


def write_duplicates(names: Sequence[str], directory: Path) -> list[NDArray[np.int32]]:
    """Write which rows repeat the key of an earlier row, over all shards; shard files do not know of each other.

    Args:
        names: the shards, in order.
        directory: where their files are, and where `duplicates.parquet` goes.

    Returns:
        What `find_repeated` gives.
    """
    repeated = find_repeated([directory / f"{name}.parquet" for name in names])
    tables = [DUPLICATES_SCHEMA.empty_table()]
    for name, rows in zip(names, repeated, strict=True):
        if len(rows):
            keys = read_table(directory / f"{name}.parquet", columns=["key"])["key"].take(pa.array(rows))
            tables.append(pa.table([pa.repeat(name, len(rows)), pa.array(rows), keys], schema=DUPLICATES_SCHEMA))
    write_table(directory / DUPLICATES_NAME, pa.concat_tables(tables).combine_chunks())
    return repeated


def read_duplicates(directory: Path) -> dict[str, NDArray[np.int32]]:
    """The rows of each shard whose key an earlier row has: shard name -> int32 row numbers; shards without any are left out.

    Raises:
        StageError: the file is missing or damaged.
    """
    table = read_table(directory / DUPLICATES_NAME, columns=["shard", "row"])
    rows, rows_of, start = table["row"].to_numpy(), {}, 0
    for count in table["shard"].value_counts():  # in the order of the table, where the rows of a shard follow each other
        rows_of[count["values"].as_py()] = rows[start:start + count["counts"].as_py()]
        start += count["counts"].as_py()
    return rows_of


def refuse_repeated(paths: Sequence[Path], repeated: Sequence[NDArray[np.int32]], hint: str) -> None:
    """Refuse shards of which many inputs would be lost because other pictures have their keys; copies of one picture lose nothing.

    Args:
        paths: the shards' files, in order.
        repeated: for each, the rows whose key an earlier row has.
        hint: what to do, as the end of a sentence.

    Raises:
        StageError: over a tenth of the inputs repeat a key, and most of the keys that were compared mean several pictures.
    """
    num_rows, num_repeated = sum(pq.read_metadata(path).num_rows for path in paths), sum(map(len, repeated))
    if num_repeated <= TOO_MANY * num_rows:
        return
    candidates: dict[str, set[str | None]] = {}
    for path, rows in zip(paths, repeated, strict=True):
        if len(rows) and len(candidates) < MOST_COMPARED:
            keys = read_table(path, columns=["key"])["key"].take(pa.array(rows[:MOST_COMPARED])).to_pylist()
            candidates |= {key: set() for key in keys}
    for path in paths:
        table = read_table(path, columns=["key", "sha256"])
        for key, digest in zip(table["key"].to_pylist(), table["sha256"].to_pylist(), strict=True):
            if key in candidates:
                candidates[key].add(digest)
    several = [key for key, digests in candidates.items() if len(digests - {None}) > 1]
    if len(several) > len(candidates) / 2:
        raise StageError(f"index: {num_repeated} of the first {num_rows} inputs have the key of an earlier one, and most of them are "
                         f"other pictures "
                         f"({several[0]} for example); all of them would be lost as duplicate keys. {hint}")


def find_repeated(paths: Sequence[Path], *, keys_at_once: int = KEYS_AT_ONCE) -> list[NDArray[np.int32]]:
    """The rows of each file whose key an earlier row has, of the same file or of one before it.

    Args:
        paths: parquet files with a column `key`.
        keys_at_once: most distinct keys that are held as text; more candidates take more passes.

    Returns:
        For each file, int32 row numbers in ascending order.
    """
    repeated = repeated_hashes(paths)
    rows_of = [array("i") for _ in paths]
    for start in range(0, len(repeated), keys_at_once):
        candidates = repeated[start:start + keys_at_once]
        seen: set[str] = set()
        for rows, keys in zip(rows_of, read_keys(paths), strict=True):
            for row in np.flatnonzero(is_among(hash_keys(keys), candidates)).tolist():
                if keys[row] in seen:
                    rows.append(row)
                seen.add(keys[row])
    return [np.sort(np.array(rows, dtype=np.int32)) for rows in rows_of]


def repeated_hashes(paths: Sequence[Path]) -> NDArray[np.int64]:
    """The hashes that more than one key of these files has, in ascending order."""
    hashes = np.empty(sum(pq.read_metadata(path).num_rows for path in paths), dtype=np.int64)
    start = 0
    for keys in read_keys(paths):
        hashes[start:start + len(keys)] = hash_keys(keys)
        start += len(keys)
    hashes.sort()
    return np.unique(hashes[1:][hashes[1:] == hashes[:-1]])


def read_keys(paths: Sequence[Path]) -> Iterator[list[str]]:
    """The keys of each file."""
    for path in paths:
        yield read_table(path, columns=["key"])["key"].to_pylist()


def hash_keys(keys: Sequence[str]) -> NDArray[np.int64]:
    """64-bit hashes, int64 (N,); equal for equal keys in this process, and in no other."""
    return np.fromiter(map(hash, keys), dtype=np.int64, count=len(keys))


def is_among(values: NDArray[np.int64], ordered: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each value is one of some values in ascending order: bool (N,)."""
    numbers = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return np.asarray(ordered[numbers] == values) if len(ordered) else np.zeros(len(values), dtype=bool)

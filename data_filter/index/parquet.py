"""Parquet files that are written whole or not at all and have equal bytes for equal rows."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import StageError
from ...store.whole_files import write_bytes
from ...text.one_line import one_line


class ReadTable(Protocol):
    """Reads one parquet file, or some columns of it."""

    def __call__(self, path: Path, *, columns: Sequence[str] | None = None) -> pa.Table:
        """The table."""
        ...


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table to one parquet file.

    Raises:
        StorageError: the file cannot be written.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", use_dictionary=False)
    write_bytes(path, sink.getvalue().to_pybytes())


def read_table(path: Path, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Read one parquet file of ours.

    Raises:
        StageError: it is missing or damaged.
    """
    try:
        return pq.read_table(path, columns=None if columns is None else list(columns))
    except FileNotFoundError as error:
        raise StageError(f"{path}: file is missing; run the stage that writes it") from error
    except (OSError, pa.ArrowException) as error:
        raise StageError(f"{path}: not readable as parquet ({one_line(error)}); "
                         "remove its directory and run the stage again") from error


def read_tables(directory: Path, *, columns: Sequence[str] | None = None, read: ReadTable = read_table) -> Iterator[pa.Table]:
    """Read the `shard-*.parquet` files of a stage, in order, each by `read`.

    Raises:
        StageError: there is none, or one is damaged.
    """
    paths = sorted(directory.glob("shard-*.parquet"))
    if not paths:
        raise StageError(f"{directory}: no shard-*.parquet here; run the stage first")
    for path in paths:
        yield read(path, columns=columns)

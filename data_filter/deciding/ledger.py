"""Reading the ledger of a finished run: one row for every input that the run has ever seen."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...errors import StageError
from ...store.digests import sha256_file
from ...store.records import Record, read_record
from ...store.whole_files import read_json
from ...text.caption_words import CAPTION_BREAK
from ..index.parquet import read_table

FOLDER = "ledger/"
SEVERAL = "captions"


@dataclass(frozen=True)
class Ledger:
    """The ledger of a finished stage `curated`.

    Attributes:
        directory: the stage's directory.
        record: its record.
        curated: curated.json: seen, kept, dropped by reason, and each category's threshold.
        shards: names of the index shards, in order; each has one file.
    """

    directory: Path
    record: Record
    curated: Mapping[str, Any]
    shards: Sequence[str]

    @property
    def categories(self) -> list[str]:
        """Names of the categories, in the ledger's order."""
        schema = pq.read_schema(self.path(self.shards[0]))
        return [name.removeprefix("score_") for name in schema.names if name.startswith("score_")]

    def path(self, shard: str) -> Path:
        """The file of a shard."""
        return self.directory / FOLDER / f"{shard}.parquet"

    def read(self, shard: str, *, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of a shard, as `read_rows` gives them.

        Raises:
            StageError: missing or damaged.
        """
        return read_rows(self.path(shard), columns=columns)

    def tables(self, *, columns: Sequence[str] | None = None) -> Iterator[tuple[str, pa.Table]]:
        """Name and rows of each shard, in order."""
        for shard in self.shards:
            yield shard, self.read(shard, columns=columns)


def read_rows(path: Path, *, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a ledger file; a named column `caption` holds every caption of an input, as `joined_captions` joins them.

    Raises:
        StageError: missing or damaged.
    """
    if columns is None or "caption" not in columns or SEVERAL not in pq.read_schema(path).names:
        return read_table(path, columns=columns)
    table = read_table(path, columns=[*columns, SEVERAL])
    joined = pc.coalesce(pc.binary_join(table[SEVERAL], CAPTION_BREAK), table["caption"])
    return table.drop_columns(SEVERAL).set_column(table.column_names.index("caption"), "caption", joined)


def open_ledger(directory: Path) -> Ledger:
    """Open the ledger of a finished stage `curated`; its files are hashed again, the pictures' files are not.

    Raises:
        StageError: the stage has not finished, or a ledger file is not what the record says.
    """
    record = read_record(directory)
    entries = [entry for entry in record.outputs.files if entry.path.startswith(FOLDER) and entry.path.endswith(".parquet")]
    if not entries:
        raise StageError(f"{directory}: its record names no ledger; run curate again")
    for entry in entries:
        path = directory / entry.path
        if not path.is_file() or sha256_file(path) != entry.sha256:
            raise StageError(f"{path}: is {'changed' if path.is_file() else 'missing'} since the stage finished; "
                             "remove the directory and run curate again")
    return Ledger(directory, record, read_json(directory / "curated.json"), [Path(entry.path).stem for entry in entries])

from pathlib import Path

import pyarrow as pa
import pytest

from glideslope.data_filter.index.parquet import read_table, read_tables, write_table
from glideslope.errors import StageError, StorageError

TABLE = pa.table({"a": [1, 2], "b": ["x", None]})


def test_equal_tables_give_equal_bytes(tmp_path: Path) -> None:
    write_table(tmp_path / "one.parquet", TABLE)
    write_table(tmp_path / "two.parquet", TABLE)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    assert read_table(tmp_path / "one.parquet").equals(TABLE)


def test_missing_and_damaged_files_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="file is missing; run the stage"):
        read_table(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(StageError, match="not readable as parquet"):
        read_table(tmp_path / "bad.parquet")
    with pytest.raises(StageError, match=r"no shard-\*.parquet here"):
        list(read_tables(tmp_path))


def test_an_unwritable_place_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        write_table(tmp_path / "file" / "x.parquet", TABLE)

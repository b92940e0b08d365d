from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from glideslope.data_filter.index.embed import INDEX_SCHEMA
from glideslope.data_filter.index.read import mark_repeated


def test_repeated_keys_are_marked_in_whatever_columns_are_read(tmp_path: Path) -> None:
    rows = [{"key": key, "concept": key, "size_bytes": 1, "status": "ok", "reason": "", "embedding": [1.0, 2.0]} for key in "aba"]
    table = pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)
    pq.write_table(table, tmp_path / "x.parquet")
    marked = mark_repeated(table, np.array([2], dtype=np.int32), tmp_path / "x.parquet")
    assert marked.schema == table.schema
    assert marked.to_pylist()[:2] == table.to_pylist()[:2]
    assert marked.to_pylist()[2] | {"key": "", "concept": ""} == table.to_pylist()[2] | {
        "key": "", "concept": "", "status": "bad", "reason": "duplicate key", "embedding": None,
        "error": "duplicate key a: an earlier input has the same one"}
    assert mark_repeated(table.select(["embedding"]), np.array([0, 2], dtype=np.int32), tmp_path / "x.parquet").to_pylist() == [
        {"embedding": None}, {"embedding": [1.0, 2.0]}, {"embedding": None}]

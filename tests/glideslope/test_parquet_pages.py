"""What a parquet file would take is told before a page of it is unpacked, whatever its footer says."""

import contextlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glideslope.data_filter.parquet import write_table
from glideslope.parquet_pages import Budget, open_bounded

WIDE = Budget(10**9, 10**7, 10**7)
TABLE = {"key": [f"key {n}" for n in range(3000)], "flags": [["a", None]] * 3000, "groups": [[("k", "v")]] * 3000, "score": [0.5] * 3000,
         "seen": [True, None, False] * 1000}
TYPES = pa.schema([("key", pa.string()), ("flags", pa.list_(pa.string())), ("groups", pa.map_(pa.string(), pa.string())),
                   ("score", pa.float32()), ("seen", pa.bool_())])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.one_of(st.none(), st.text(max_size=40)), max_size=50), group=st.integers(1, 60))
def test_what_this_project_writes_is_read(tmp_path: Path, texts: list[str | None], group: int) -> None:
    table = pa.table({"a": pa.array(texts, pa.string()), "b": pa.array([[one] for one in texts], pa.list_(pa.string()))})
    write_table(tmp_path / "a.parquet", table)
    assert open_bounded(tmp_path / "a.parquet", WIDE).read() == table
    pq.write_table(table, tmp_path / "b.parquet", use_dictionary=False, row_group_size=group, data_page_version="2.0", compression="none")
    assert open_bounded(tmp_path / "b.parquet", WIDE).read() == table


@pytest.mark.parametrize(("options", "told"), [
    ({"use_dictionary": True}, "a page with a dictionary or deltas"),
    ({"use_dictionary": False, "column_encoding": {"key": "DELTA_BYTE_ARRAY"}}, "a page with a dictionary or deltas"),
    ({"use_dictionary": False, "column_encoding": {"key": "DELTA_LENGTH_BYTE_ARRAY"}}, "a page with a dictionary or deltas")])
def test_encodings_in_which_few_bytes_stand_for_many_are_refused(tmp_path: Path, options: Any, told: str) -> None:
    pq.write_table(pa.table({"key": ["k" * 1000] * 5000}), tmp_path / "a.parquet", **options)
    with pytest.raises(ValueError, match=told):
        open_bounded(tmp_path / "a.parquet", WIDE)


@pytest.mark.parametrize(("budget", "told"), [(Budget(50_000, 10**7, 10**7), "unfold to more than 50000"),
                                              (Budget(10**9, 4000, 10**7), "more than 4000 values"),
                                              (Budget(10**9, 10**7, 2999), "3000 rows in")])
def test_more_bytes_values_or_rows_than_the_budget_are_refused(tmp_path: Path, budget: Budget, told: str) -> None:
    write_table(tmp_path / "a.parquet", pa.table(TABLE, schema=TYPES))
    assert open_bounded(tmp_path / "a.parquet", WIDE).metadata.num_rows == 3000
    with pytest.raises(ValueError, match=told):
        open_bounded(tmp_path / "a.parquet", budget)


def test_a_page_that_states_another_size_than_the_footer_is_believed_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": list(range(3000))}), path, use_dictionary=False, compression="zstd", write_statistics=False)
    data = bytearray(path.read_bytes())
    assert data[4:7] == b"\x15\x00\x15"  # the kind of the page, then its unpacked size: three bytes of a number
    data[7:10] = b"\xfe\xff\x7f"
    path.write_bytes(bytes(data))
    assert pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size < 100_000
    with pytest.raises(ValueError, match="unfold to more than 100000"):
        open_bounded(path, Budget(100_000, 10**7, 10**7))


def test_a_footer_that_states_more_than_the_file_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_table(path, pa.table({"a": [1]}))
    path.write_bytes(path.read_bytes()[:-8] + b"\xff\xff\xff\x7fPAR1")
    with pytest.raises(ValueError, match="its footer has 2147483647 bytes"):
        open_bounded(path, WIDE)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 3000), value=st.integers(0, 255), cut=st.one_of(st.none(), st.integers(0, 3000)))
def test_a_damaged_file_is_opened_or_refused_and_nothing_else(tmp_path: Path, place: int, value: int, cut: int | None) -> None:
    path = tmp_path / "a.parquet"
    write_table(path, pa.table({"a": [f"{n * n}" for n in range(300)], "b": [[n] for n in range(300)]}))
    data = bytearray(path.read_bytes())
    data[place % len(data)] = value
    path.write_bytes(bytes(data[:cut] if cut is not None else data))
    with contextlib.suppress(ValueError, OSError, pa.ArrowException):
        open_bounded(path, WIDE)

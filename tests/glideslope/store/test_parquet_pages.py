"""What a parquet file would take is told before a page of it is unpacked, whatever its footer says."""

import contextlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glideslope.data_filter.index.parquet import write_table
from glideslope.store.parquet_pages import Budget, open_bounded, read_struct

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


@pytest.mark.parametrize(("data", "told"), [
    (b"\x15\x00\x15\x02\x05\x04\x7e\x00", "the field 2 twice"),  # field 2 again, by its number written out
    (b"\x15\x00\x15\x02\x06\x04\xfe\xff\xff\xff\x0f\x00", "the field 2 twice"),  # as a longer integer, which other readers pass over
    (b"\x15\x00\x15\x02\x05\x84\x80\x08\x7e\x00", "the field 65538 twice"),  # 2 again for a reader that cuts it to 16 bits
    (b"\x05\x01\x02\x00", "the field -1 twice")])
def test_a_header_that_two_readers_read_in_two_ways_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_struct(data, 0)


def test_a_size_of_more_than_32_bits_is_none() -> None:
    assert read_struct(b"\x15\xfe\xff\xff\xff\x0f\x00", 0)[0] == {1: 2**31 - 1}
    assert read_struct(b"\x15\x80\x80\x80\x80\x10\x00", 0)[0] == {1: None}


@pytest.mark.parametrize(("column", "told"), [
    (pa.array([None] * 100, pa.binary(1_000)), "has the type FIXED_LEN_BYTE_ARRAY, which is not read"),
    (pa.array([None] * 100, pa.decimal128(30)), "has the type FIXED_LEN_BYTE_ARRAY, which is not read"),
    (pa.array([{"b": {"c": {"d": 1}}}] * 100), "lies more than 3 deep"),
    (pa.array([[[[1]]]] * 100), "lies more than 3 deep")])
def test_columns_whose_nulls_or_levels_take_memory_that_no_page_states_are_refused(tmp_path: Path, column: pa.Array, told: str) -> None:
    write_table(tmp_path / "a.parquet", pa.table({"a": column}))
    with pytest.raises(ValueError, match=told):
        open_bounded(tmp_path / "a.parquet", WIDE)


def test_many_columns_of_nulls_count_as_what_they_take_in_memory(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", pa.table({f"c{number}": pa.nulls(1_000, pa.string()) for number in range(100)}))
    assert (tmp_path / "a.parquet").stat().st_size < 50_000
    with pytest.raises(ValueError, match="unfold to more than 500000"):
        open_bounded(tmp_path / "a.parquet", Budget(500_000, 10**7, 10**7))

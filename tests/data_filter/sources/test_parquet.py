import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glideslope.data_filter.sources.parquet import ParquetFiles, ParquetSource
from glideslope.data_filter.sources.source import SourceItem
from glideslope.errors import SourceError

from ..conftest import TinyClip
from ..pairs import bad_rows, encode, image_table, index_rows, some_pairs


def write(path: Path, images: list[Any], captions: list[Any], *, row_group_size: int = 100, **others: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(image_table(images, captions, **others), path, row_group_size=row_group_size, compression="none", use_dictionary=False)
    return path


def write_pairs(path: Path, count: int, *, first: int = 0, row_group_size: int = 100) -> Path:
    pairs = some_pairs(count, first=first)
    return write(path, [{"bytes": pair.image, "path": None} for pair in pairs], [pair.caption for pair in pairs], row_group_size=row_group_size)


def write_paths(path: Path, names: list[str | None]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": pa.array(names, type=pa.string()), "text": [f"t{number}" for number in range(len(names))]}), path)
    return path


def open_files(path: Path, shard_size: int = 4, **settings: Any) -> ParquetFiles:
    return ParquetFiles(ParquetSource(path=str(path), **settings), shard_size=shard_size)


def read_all(source: ParquetFiles) -> list[SourceItem]:
    return [item for shard in source.shards() for item in source.read(shard)]


def test_shards_are_runs_of_row_groups_of_one_file(tmp_path: Path) -> None:
    write_pairs(tmp_path / "a.parquet", 11, row_group_size=3)
    write_pairs(tmp_path / "sub" / "b.parquet", 10, first=11, row_group_size=6)
    source = open_files(tmp_path, shard_size=7)
    assert [(shard.file, shard.start, shard.stop, shard.num_inputs) for shard in source.shards()] == [
        ("a.parquet", 0, 2, 6), ("a.parquet", 2, 4, 5), ("sub/b.parquet", 0, 1, 6), ("sub/b.parquet", 1, 2, 4)]
    assert [item.caption for item in read_all(source)] == [f"caption of {number}" for number in range(21)]


def test_a_change_shows_in_the_fingerprints_of_its_file_alone(tmp_path: Path) -> None:
    for name in "ab":
        write_pairs(tmp_path / f"{name}.parquet", 3)
    before = open_files(tmp_path).shards()
    write_pairs(tmp_path / "b.parquet", 3, first=1)
    source = open_files(tmp_path)
    assert [one.fingerprint == other.fingerprint for one, other in zip(before, source.shards(), strict=True)] == [True, False]
    with pytest.raises(SourceError, match=r"b\.parquet changed while it was read"):
        list(source.read(before[1]))
    assert open_files(tmp_path, key_column="text").fingerprint() != source.fingerprint()
    (tmp_path / "b.parquet").unlink()
    with pytest.raises(SourceError, match=r"b\.parquet: cannot be read"):
        list(source.read(before[1]))


def test_paths_count_from_the_file_or_from_the_root_and_never_lead_out_of_it(tmp_path: Path) -> None:
    for place in ("data/in.png", "images/in.png", "images/deep/in.png", "secret.png"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(place.encode())
    names = ["in.png", "deep/../in.png", "deep/in.png", "../secret.png", str(tmp_path / "secret.png"), str(tmp_path / "images" / "in.png"),
             None, "https://example.org/in.png"]
    path = write_paths(tmp_path / "data" / "a.parquet", names)
    beside, below = read_all(open_files(path)), read_all(open_files(path, image_root=str(tmp_path / "images")))
    assert [item.image for item in beside] == [b"data/in.png", b"data/in.png", *[None] * 6]
    inside = b"images/in.png"
    assert [item.image for item in below] == [inside, inside, b"images/deep/in.png", None, None, inside, None, None]
    assert [item.reason for item in below] == ["", "", "", "missing", "missing", "", "missing", "missing"]
    assert below[3].error == "image ../secret.png (row 3 of a.parquet) lies outside of the folder of the images"
    assert (beside[2].key, beside[2].error) == ("deep/in.png", "image deep/in.png (row 2 of a.parquet) is missing")
    with pytest.raises(SourceError, match=r"source\.image_root: .*gone: no such folder"):
        open_files(path, image_root=str(tmp_path / "gone")).shards()


@pytest.mark.parametrize("kind", ["path", "struct"])
def test_a_change_of_an_image_file_shows_in_the_fingerprint(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.png").write_bytes(b"one")
    if kind == "path":
        path = write_paths(tmp_path / "a.parquet", ["a.png", "gone.png"])
    else:
        path = write(tmp_path / "a.parquet", [{"bytes": b"inside", "path": "x"}, {"bytes": None, "path": "a.png"}], ["a", "b"])
    before = open_files(path).shards()
    (tmp_path / "a.png").write_bytes(b"two")
    source = open_files(path)
    assert source.fingerprint() != before[0].fingerprint
    with pytest.raises(SourceError, match="changed while it was read"):
        list(source.read(before[0]))
    assert len(read_all(open_files(path))) == 2


def test_only_the_keys_asked_for_are_read(tmp_path: Path) -> None:
    source = open_files(write_pairs(tmp_path / "a.parquet", 4))
    keys = [item.key for item in source.read(source.shards()[0])]
    assert [item.key for item in source.read(source.shards()[0], keys={keys[2]})] == [keys[2]]


def test_a_damaged_file_is_one_row_and_the_others_are_read(tmp_path: Path) -> None:
    whole = write_pairs(tmp_path / "a.parquet", 3).read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[:len(whole) // 2])
    (tmp_path / "c.parquet").write_bytes(b"")
    *rows, half, empty = read_all(open_files(tmp_path))
    assert [row.reason for row in rows] == [""] * 3
    assert (half.key, half.reason) == ("b.parquet#unreadable", "unreadable")
    assert half.error is not None and half.error.startswith("file b.parquet cannot be read as parquet: ")
    assert empty.key == "c.parquet#unreadable"


def test_a_source_without_a_single_sound_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(SourceError, match=r"no file can be read as parquet; a\.parquet: "):
        open_files(tmp_path).shards()


def test_a_damaged_row_group_is_a_bad_row_for_each_row_it_held(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "a.parquet", 12, row_group_size=4)
    with pq.ParquetFile(path) as opened:
        place = opened.metadata.row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[place:place + 12] = b"\xff" * 12  # the page's header
    path.write_bytes(data)
    rows = read_all(open_files(path, shard_size=12))
    assert [row.reason for row in rows] == [""] * 4 + ["unreadable"] * 4 + [""] * 4
    assert [row.key for row in rows[4:8]] == [f"a.parquet#row-{number}" for number in range(4, 8)]
    assert rows[4].error is not None and rows[4].error.startswith("row 4 of a.parquet cannot be read: ")


def test_a_wrong_checksum_of_a_page_is_noticed(tmp_path: Path) -> None:
    pairs = some_pairs(2)
    table = pa.table({"image": pa.array([pair.image for pair in pairs], type=pa.binary()), "text": [pair.caption for pair in pairs]})
    pq.write_table(table, tmp_path / "a.parquet", compression="none", use_dictionary=False, write_statistics=False,
                   write_page_checksum=True)
    data = (tmp_path / "a.parquet").read_bytes()
    place = data.index(pairs[1].image) + 40
    (tmp_path / "a.parquet").write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1:])
    assert [row.reason for row in read_all(open_files(tmp_path))] == ["unreadable"] * 2


@pytest.mark.parametrize("table", [pa.table({"image": [b"x"]}), pa.table({"image": [1], "text": ["x"]})])
def test_one_file_with_other_columns_refuses_the_source_by_its_name(tmp_path: Path, table: pa.Table) -> None:
    write_pairs(tmp_path / "a.parquet", 2)
    pq.write_table(table, tmp_path / "b.parquet")
    with pytest.raises(SourceError, match=r"b\.parquet: "):
        open_files(tmp_path).shards()


def test_every_kind_of_bad_input_ends_as_a_row_of_the_index(tmp_path: Path, tiny_clip: TinyClip) -> None:
    good = encode((9, 9, 9))
    images = [good, b"", encode((1, 2, 3), kind="JPEG", size=(64, 64))[:300], b"no image", encode((1, 2, 3), size=(200, 200)), None, good, good]
    captions = ["fine", "zero", "cut", "text", "huge", "none", None, "fine"]
    keys = ["fine", "zero", "cut", "text", "huge", "none", "mute", None]
    write(tmp_path / "data" / "0.parquet", [image and {"bytes": image, "path": None} for image in images[:1]] + [
        None if image is None else {"bytes": image, "path": "x.png"} for image in images[1:]], captions, id=pa.array(keys))
    write(tmp_path / "data" / "1.parquet", [{"bytes": good, "path": None}], ["again"], id=pa.array(["fine"]))
    (tmp_path / "data" / "2.parquet").write_bytes((tmp_path / "data" / "0.parquet").read_bytes()[:-40])
    rows = index_rows(ParquetSource(path=str(tmp_path / "data"), key_column="id"), tmp_path / "index")
    reasons = {key: reason for key, (reason, _) in bad_rows(rows).items()}
    nameless = next(key for key in reasons if len(key) == 32)
    assert reasons == {**dict.fromkeys(("zero", "cut", "text", "2.parquet#unreadable"), "unreadable"), "huge": "too large", "none": "missing",
                       "mute": "caption", nameless: "missing", "fine": "duplicate key"}
    assert len(rows) == 10 and [row["key"] for row in rows if row["status"] == "ok"] == ["fine", "mute"]


def repeated(value: Any, count: int, kind: pa.DataType) -> pa.DictionaryArray:
    """One value so many times, as a dictionary holds it: a few bytes, however large the value is."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, dtype=np.int32)), pa.array([value], type=kind))


def write_packed(path: Path, columns: dict[str, Any], *, store_schema: bool = False) -> Path:
    pq.write_table(pa.table(columns), path, compression="zstd", write_statistics=False, store_schema=store_schema)
    assert path.stat().st_size < 40_000
    return path


def test_a_page_that_unfolds_beyond_what_data_does_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = write_packed(tmp_path / "a.parquet", {"image": pa.array([bytes(140_000_000)]), "text": ["a cat"]})
    before = pa.total_allocated_bytes()
    rows = read_all(open_files(path))
    assert pa.total_allocated_bytes() - before < 1_000_000
    assert [row.reason for row in rows] == ["unreadable"]
    assert rows[0].error is not None and "its pages unfold from" in rows[0].error


@pytest.mark.parametrize("store_schema", [False, True])
@pytest.mark.parametrize("place", ["image", "text", "more"])
def test_one_value_in_many_rows_is_read_a_few_times_and_then_refused(tmp_path: Path, place: str, store_schema: bool) -> None:
    columns = {"image": pa.array([b"i"] * 5000), "text": pa.array(["t"] * 5000)}
    kind = pa.binary() if place == "image" else pa.string()
    path = write_packed(tmp_path / "a.parquet", columns | {place: repeated("x" * 10_000_000, 5000, kind)}, store_schema=store_schema)
    num_read, lost = 0, []
    for item in open_files(path).read(open_files(path).shards()[0]):
        num_read, lost = (num_read + 1, lost) if item.reason != "unreadable" else (num_read, [*lost[:1], item])
    assert 0 < num_read < 30
    assert lost[0].error is not None and "unfold to over a thousand times their bytes" in lost[0].error
    assert lost[-1].key == "a.parquet#row-4999"


@pytest.mark.parametrize(("letters", "items", "reason", "told"), [
    (10, 4_000_000, "too large", "bytes beside its image, at most 16777216 are read"),
    (10_000_000, 1000, "unreadable", "unfold to over a thousand times"),
    (10, 40_000_000, "unreadable", "have 40000000 items in")])
def test_a_list_that_unfolds_is_one_bad_row(tmp_path: Path, letters: int, items: int, reason: str, told: str) -> None:
    captions = pa.ListArray.from_arrays(pa.array([0, items], type=pa.int32()), repeated("x" * letters, items, pa.string()))
    path = write_packed(tmp_path / "a.parquet", {"image": pa.array([encode((1, 2, 3))]), "text": captions})
    rows = read_all(open_files(path))
    assert [row.reason for row in rows] == [reason]
    assert rows[0].error is not None and told in rows[0].error


def test_more_rows_than_a_file_has_room_for_are_refused_with_the_file(tmp_path: Path) -> None:
    write_pairs(tmp_path / "b.parquet", 2)
    write_packed(tmp_path / "a.parquet", {"image": pa.nulls(3_000_000, pa.binary()), "text": pa.nulls(3_000_000, pa.string())})
    rows = read_all(open_files(tmp_path))
    assert [row.reason for row in rows] == ["unreadable", "", ""]
    assert rows[0].error is not None and "states 1048576 rows in" in rows[0].error


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.lists(st.sampled_from(["a cat", "ein Hund", "\u00fc" * 50, None]), max_size=4) | st.none(), min_size=1, max_size=150),
       group=st.integers(1, 200), use_dictionary=st.booleans(), kind=st.sampled_from([pa.string(), pa.large_string(), pa.binary()]))
def test_lists_of_captions_come_out_as_they_are_however_they_are_written(tmp_path: Path, rows: list[Any], group: int, use_dictionary: bool,
                                                                        kind: pa.DataType) -> None:
    path = tmp_path / "a.parquet"
    texts = pa.array(rows, type=pa.list_(pa.string())).cast(pa.list_(kind))
    table = pa.table({"image": pa.array([b"i%d" % number for number in range(len(rows))]), "text": texts,
                      "more": pa.array([[{"tags": row}] for row in rows])})
    pq.write_table(table, path, row_group_size=group, use_dictionary=use_dictionary)
    items = read_all(open_files(path))
    expected = [list(dict.fromkeys(text for text in row or () if text)) for row in rows]
    assert [list(item.captions) or ([] if item.caption is None else [item.caption]) for item in items] == expected
    assert [json.loads(item.metadata or "") for item in items] == [{"more": [{"tags": row}]} for row in rows]


def test_a_time_in_a_zone_that_nobody_knows_is_written_in_utc(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [{"bytes": b"i", "path": None}], ["a"], at=pa.array([0], pa.timestamp("s", "Mars/Olympus")))
    assert read_all(open_files(path))[0].metadata == '{"at":"1970-01-01 00:00:00.000Z"}'

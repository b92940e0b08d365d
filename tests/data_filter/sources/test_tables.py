import datetime
import decimal
import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glideslope.data_filter.sources.files import Unreadable
from glideslope.data_filter.sources.source import SourceItem
from glideslope.data_filter.sources.tables import Columns, check_columns, content_key, json_names, read_rows, used_names
from glideslope.errors import SourceError

from ..pairs import image_table

COLUMNS = Columns("image", "text", None)
FILES = {"in.png": b"inside"}


def read_path(path: str) -> bytes:
    if path not in FILES:
        raise Unreadable("missing", "is missing")
    return FILES[path]


def items_of(table: pa.Table, columns: Columns = COLUMNS) -> list[SourceItem]:
    return [row.item for row in read_rows(table, columns, read_path=read_path, where="t.parquet", first_row=10)]


def one_row(**cells: Any) -> pa.Table:
    return pa.table({"image": pa.array([b"i"], type=pa.binary()), "text": ["t"], **{name: pa.array([cell]) for name, cell in cells.items()}})


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int32(), pa.binary())])
@pytest.mark.parametrize("text", [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int8(), pa.string())])
def test_bytes_and_text_of_every_type_come_out_as_they_are(kind: pa.DataType, text: pa.DataType) -> None:
    table = pa.table({"image": pa.array([b"\x00\xff", None], type=pa.binary()).cast(kind), "text": pa.array([" é\n", None]).cast(text)})
    check_columns(table.schema, COLUMNS, "t")
    first, second = items_of(table)
    assert (first.image, first.caption, first.reason) == (b"\x00\xff", " é\n", "")
    assert (second.image, second.caption, second.reason, second.error) == (None, None, "missing", "row 11 of t.parquet has no image")


def test_structs_give_bytes_first_and_the_file_where_there_are_none() -> None:
    table = image_table([{"bytes": b"x", "path": "in.png"}, {"bytes": None, "path": "in.png"}, {"bytes": None, "path": None}, None,
                         {"bytes": None, "path": "gone.png"}, {"bytes": None, "path": ""}], list("abcdef"))
    rows = list(read_rows(table, COLUMNS, read_path=read_path, where="t", first_row=0))
    assert [row.item.image for row in rows] == [b"x", b"inside", None, None, None, None]
    assert [row.is_external for row in rows] == [False, True, False, False, True, False]
    assert rows[4].item.key == "gone.png" and rows[4].item.error == "image gone.png (row 4 of t) is missing"
    only_path = pa.table({"image": table["image"].combine_chunks().flatten()[1], "text": table["text"]})
    assert [item.image for item in items_of(only_path)] == [b"inside", b"inside", None, None, None, None]


def test_a_caption_that_is_not_utf8_is_a_row_and_its_neighbours_are_sound() -> None:
    text = pa.array([b"ok", b"caf\xe9", b" ", None]).view(pa.string())
    items = items_of(pa.table({"image": [b"1", b"2", b"3", b"4"], "text": text}))
    assert [(item.caption, item.reason) for item in items] == [("ok", ""), (None, "caption"), (None, "caption"), (None, "caption")]
    assert str(items[1].error).startswith(f"caption of {items[1].key} is not UTF-8: byte 3 in line 1")
    assert items[1].key == content_key(b"2", b"caf\xe9")


@pytest.mark.parametrize(("cells", "keys"), [
    (pa.array(["a", "ü"]), ["a", "ü"]), (pa.array([3, 2**63], type=pa.uint64()), ["3", str(2**63)]), (pa.array([b"x", b"y"]), ["x", "y"]),
])
def test_keys_come_from_their_column(cells: pa.Array, keys: list[str]) -> None:
    table = pa.table({"image": [b"1", b"2"], "text": ["a", "b"], "id": cells})
    check_columns(table.schema, Columns("image", "text", "id"), "t")
    assert [item.key for item in items_of(table, Columns("image", "text", "id"))] == keys


def test_a_missing_or_unreadable_key_is_a_row_under_the_digest_of_its_content() -> None:
    table = pa.table({"image": [b"1", b"2", b"3"], "text": ["a", "b", "c"], "id": pa.array([None, b"", b"\xff"]).view(pa.string())})
    items = items_of(table, Columns("image", "text", "id"))
    assert [(item.key, item.reason, item.error) for item in items] == [
        (content_key(b"1", b"a"), "missing", "row 10 of t.parquet has no key in column id"),
        (content_key(b"2", b"b"), "missing", "row 11 of t.parquet has no key in column id"),
        ("\\xff", "missing", "the key of row 12 of t.parquet is not UTF-8")]


@settings(max_examples=20)
@given(st.lists(st.tuples(st.binary(max_size=20), st.text(max_size=20)), unique=True, max_size=8), st.randoms())
def test_keys_without_a_column_follow_the_content_and_not_the_place(pairs: list[tuple[bytes, str]], random: Any) -> None:
    def keys(rows: list[tuple[bytes, str]]) -> dict[tuple[bytes, str], str]:
        images, captions = pa.array([image for image, _ in rows], pa.binary()), pa.array([caption for _, caption in rows], pa.string())
        table = pa.table({"image": images, "text": captions})
        return dict(zip(rows, (item.key for item in items_of(table)), strict=True))

    first = keys(pairs)
    assert len(set(first.values())) == len(pairs)
    random.shuffle(pairs)
    assert keys(pairs) == first


def test_other_columns_go_along_as_canonical_json() -> None:
    when = datetime.datetime(2024, 5, 6, 7, 8, 9)
    table = one_row(z=1, a=[1.5, None], b={"y": "ü", "x": True}, n=float("nan"), w=when, d=decimal.Decimal("1.50"), e=None, raw=b"bytes")
    (item,) = items_of(table)
    assert item.metadata == '{"a":[1.5,null],"b":{"x":true,"y":"ü"},"d":"1.50","e":null,"n":null,"w":"2024-05-06 07:08:09.000000","z":1}'
    assert json.loads(item.metadata)["z"] == 1
    assert items_of(one_row())[0].metadata is None
    assert "raw" not in used_names(table.schema, COLUMNS) and json_names(table.schema, Columns("image", "text", "z"))[0] == "a"


def test_metadata_that_is_not_utf8_is_a_row_and_its_neighbours_are_sound() -> None:
    table = pa.table({"image": [b"1", b"2", b"3"], "text": ["a", "b", "c"], "more": pa.array([b"x", b"\xff", b"z"]).view(pa.string())})
    items = items_of(table)
    assert [(item.metadata, item.reason) for item in items] == [('{"more":"x"}', ""), (None, "unreadable"), ('{"more":"z"}', "")]
    assert items[1].error == "row 11 of t.parquet has text that is not UTF-8"


@pytest.mark.parametrize(("table", "columns", "message"), [
    (pa.table({"text": ["a"]}), COLUMNS, r"t: no column image \(found text\); name one with source.image_column"),
    (pa.table({"image": [b"a"], "caption": ["a"]}), COLUMNS, r"no column text \(found image, caption\); name one with source.caption_column"),
    (pa.table({"image": [b"a"], "text": ["a"]}), Columns("image", "text", "id"), "no column id .*source.key_column"),
    (pa.table({"image": [1], "text": ["a"]}), COLUMNS, "column image is int64, expected bytes, a path, or a struct"),
    (pa.table({"image": [{"data": b"a"}], "text": ["a"]}), COLUMNS, "column image is struct<data: binary>, expected bytes"),
    (pa.table({"image": [{"bytes": 1}], "text": ["a"]}), COLUMNS, "column image is struct<bytes: int64>, expected bytes"),
    (pa.table({"image": [b"a"], "text": [1.5]}), COLUMNS, "column text is double, expected text"),
    (pa.table({"image": [b"a"], "text": [[1]]}), COLUMNS, "column text is list<.*>, expected text, or lists of it"),
    (pa.table({"image": [b"a"], "text": [[["a"]]]}), COLUMNS, "column text is list<.*>, expected text, or lists of it"),
    (pa.table({"image": [b"a"], "text": ["a"], "id": [1.5]}), Columns("image", "text", "id"), "column id is double, expected text or integers"),
    (pa.table([[b"a"], ["a"], ["b"]], names=["image", "text", "text"]), COLUMNS, "t: 2 times the column text"),
])
def test_missing_columns_and_wrong_types_refuse_the_table(table: pa.Table, columns: Columns, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        check_columns(table.schema, columns, "t")


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.large_string()), pa.list_(pa.binary())])
def test_a_column_of_lists_gives_inputs_with_several_captions(kind: pa.DataType) -> None:
    captions = [["one", "two", None, "one"], ["one"], [], None, ["\ufeffmarked", "plain"]]
    table = pa.table({"image": [b"1", b"2", b"3", b"4", b"5"], "text": pa.array(captions, type=pa.list_(pa.string())).cast(kind)})
    check_columns(table.schema, COLUMNS, "t")
    items = [row.item for row in read_rows(table, COLUMNS, read_path=str.encode, where="t", first_row=0)]
    assert [(item.caption, item.captions, item.reason) for item in items] == [
        ("one", ("one", "two"), ""), ("one", (), ""), (None, (), "caption"), (None, (), "caption"), ("marked", ("marked", "plain"), "")]
    assert items[1].key == content_key(b"2", b"one") and len({item.key for item in items}) == 5


def test_one_bad_caption_of_several_makes_the_row_bad() -> None:
    table = pa.table({"image": [b"1"], "text": pa.array([[b"one", b"caf\xe9"]], type=pa.list_(pa.binary()))})
    (row,) = read_rows(table, COLUMNS, read_path=str.encode, where="t", first_row=0)
    assert (row.item.caption, row.item.reason) == (None, "caption") and "is not UTF-8: byte 3" in str(row.item.error)

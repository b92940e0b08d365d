import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.text.text_tables import TableError, read_csv, read_json_lines, split_rows

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12) | st.text('a ,;\t"\r\n', max_size=8)
ROWS = st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=6)


def write(rows: list[tuple[str, ...]], delimiter: str, end: str) -> str:
    sink = io.StringIO(newline="")
    csv.writer(sink, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(rows)
    return sink.getvalue()


def read(text: str) -> list[list[str]]:
    return [list(row.cells.values()) for row in read_csv(text, ("file_name",))]


@given(ROWS, st.sampled_from([",", ";", "\t"]), st.sampled_from(["\n", "\r\n", "\r"]))
def test_a_table_comes_out_as_it_was_written(rows: list[tuple[str, str, str]], delimiter: str, end: str) -> None:
    text = write([("file_name", "text", "more"), *rows], delimiter, end)
    assert read(text) == [list(row) for row in rows if any(map(str.strip, row))]


@given(st.text('ab ,"\r\n', max_size=40))
def test_what_is_read_is_what_a_strict_reader_sees_and_nothing_is_cut(text: str) -> None:
    try:
        rows = [cells for _, cells in split_rows(text, ",")]
    except TableError:
        return
    assert rows == [cells for cells in csv.reader(io.StringIO(text, newline=""), strict=True) if any(map(str.strip, cells))]


@pytest.mark.parametrize(("rows", "line", "message"), [
    ("a.png,a red, ripe apple\n", 2, "3 cells, the header has 2; put text with ',' in double quotes"),
    ("a.png\n", 2, "1 cells, the header has 2; write every ','"),
    ("a.png,a cat,\n", 2, "3 cells"),
    ('a.png,x\nb.png,"Starry Night\nc.png,a cat\nd.png,a dog\n', 3, "a double quote opens a cell here and is never closed"),
    ('a.png,"two\nlines"\nb.png,"Starry Night\n', 4, "is never closed"),
    ('a.png,"Starry Night\nb.png,"a cat"\n', 2, "'a cat\"\\\\n' follows the double quote that closes the cell which opens here"),
    ('a.png, "a red, ripe apple"\n', 2, "a double quote opens inside of the cell ' \"a red'"),
    ('a.png,the "red, ripe" apple\n', 2, "a double quote opens inside of the cell"),
    ('a.png,12" long\n', 2, "a double quote opens inside of the cell"),
    ('a.png,"a cat" or two\n', 2, "' or two\\\\n' follows the double quote"),
    ('a.png,"""\n', 2, "is never closed"),
    ("a.png,one\rtwo\n", 3, "1 cells"),
])
def test_a_row_that_could_be_read_in_two_ways_is_refused_with_its_line(rows: str, line: int, message: str) -> None:
    with pytest.raises(TableError, match=message) as refused:
        read("file_name,text\n" + rows)
    assert refused.value.line == line and refused.value.describe("m.csv").startswith(f"m.csv, line {line}: ")


def test_a_cell_hidden_behind_a_further_column_is_refused_too() -> None:
    for text in ('file_name,text,note\na.png,the "red, ripe" apple\n', "file_name,text,\na.png,a red, ripe apple\n"):
        with pytest.raises(TableError, match=r"line 2|double quote opens inside|column without a name"):
            read(text)
    assert read("file_name,text,\na.png,x,\n") == [["a.png", "x", ""]]


@pytest.mark.parametrize("text", [
    'file_name,text\na.png,"two\nlines, and a ""quote"""\n', 'file_name;text\na.png;"two\nlines, and a ""quote"""\n',
    'file_name\ttext\r\na.png\t"two\nlines, and a ""quote"""\r\n', '"file_name";"text"\n"a.png";"two\nlines, and a ""quote"""',
    ' File_Name , text\ra.png,"two\nlines, and a ""quote"""\r', '\n\nfile_name,text\n,\n\na.png,"two\nlines, and a ""quote"""\n , \n',
])
def test_usual_spellings_of_a_table_are_the_same_table(text: str) -> None:
    (row,) = read_csv(text, ("file_name",))
    assert dict(row.cells) == {"file_name": "a.png", "text": 'two\nlines, and a "quote"'}


@pytest.mark.parametrize(("text", "message"), [
    ("", "column file_name is missing; the header must name file_name .found nothing"), ("name,text\n", "found name, text"),
    ("file_name,text,text\n", "column text stands twice"), ("file_name,File_Name\n", "column file_name stands twice")])
def test_a_header_that_names_too_little_or_one_thing_twice_is_refused(text: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        read(text)


def test_long_cells_are_read_and_the_limit_of_the_csv_module_is_left_alone() -> None:
    before = csv.field_size_limit()
    assert read(f'file_name,text\na.png,{"x" * 200_000}\nb.png,"{"y," * 200_000}"\n') == [["a.png", "x" * 200_000], ["b.png", "y," * 200_000]]
    assert csv.field_size_limit() == before


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=8) | st.integers(), min_size=1), max_size=5), st.booleans(),
       st.sampled_from(["\n", "\r\n", "\r", "\n\n"]))
def test_json_lines_come_out_as_they_were_written(rows: list[dict[str, object]], escaped: bool, end: str) -> None:
    text = end.join(json.dumps(row, ensure_ascii=escaped) for row in rows)
    assert [row for _, row in read_json_lines(text)] == rows


@pytest.mark.parametrize(("text", "line", "message"), [
    ('{"a": 1}\n{"a": \n', 2, "not JSON"), ('\n["a"]', 2, "expected a JSON object, got list"), ("3", 1, "got int"),
    ("[" * 100_000, 1, "not JSON"),
    ('{"text": "a person", "text": "a tree"}', 1, "the key 'text' stands twice"), ('{"a": {"b": 1, "b": 1}}', 1, "the key 'b' stands twice")])
def test_a_line_that_is_no_json_object_or_says_a_thing_twice_is_refused(text: str, line: int, message: str) -> None:
    with pytest.raises(TableError, match=message) as refused:
        list(read_json_lines(text))
    assert refused.value.line == line

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.data_filter.labels.csv_files import read_label_csv, read_label_file
from glideslope.errors import LabelError

DIGEST = "0123456789abcdef" * 4


def test_an_ambiguous_label_gives_no_row(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_text("key,category,label,who,how,skin_tone\n000.png,red,1,ann,search,3\n001.png,red,,ann,search,\n")
    (only,) = read_label_csv(path)
    assert (only.key, only.label, only.who, only.how, only.groups) == ("000.png", 1, "ann", "search", {"skin_tone": "3"})


def test_a_label_file_may_name_any_group(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_text("group:age,key,category,label,gender,note\nold,000.png,red,1,f,\"x,\ny\"\n,001.png,red,0,,\n,,,,,\n")
    assert [verdict.groups for verdict in read_label_csv(path)] == [{"age": "old", "gender": "f"}, {"age": "", "gender": ""}]


@pytest.mark.parametrize(("text", "message"), [
    ("key,category,label\na,red,2\n", "line 2: label is '2', expected 1"),
    ("key,category,label\na,red,maybe\n", "line 2: label is 'maybe'"),
    ("key,category,label\na,red,01\n", "line 2: label is '01'"),
    ("key,category,label,sha256\na,red,1,abc\n", "line 2: sha256 is 'abc', expected 64 hexadecimal digits"),
    ("key,label\na,1\n", "column category is missing"),
    ("", "column key, category, label is missing"),
    ("key|category|label\na|red|1\n", "column key, category, label is missing"),
    ("key;category;label\na;red;1;more\n", "line 2: 4 cells, the header has 3; put text with ';' in double quotes"),
    ("Key,key,category,label\na,b,red,1\n", "column key stands twice"),
    ("key,category,label\n", "none of its 0 rows has a label; write 1"),
    ("key,category,label\na,red,\nb,red, \n,,\n", "none of its 2 rows has a label; write 1"),
    ("key,category,label,key\na,red,1,b\n", "column key stands twice"),
    ("key,category,label,group:Age\na,red,1,b\n", "column 'group:Age': a group is named by small letters"),
    ("key,category,label,gender,group:gender\na,red,1,b,c\n", "group gender stands in two columns"),
    ("key,category,label\na,red,1,more\n", "line 2: 4 cells, the header has 3"),
    ('key,category,label\n"a,red,1\n', "line 2: a double quote opens a cell here and is never closed"),
    ("key,category,label\na,red\n", "line 2: 2 cells, the header has 3"),
])
def test_a_malformed_label_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "l.csv"
    path.write_text(text)
    with pytest.raises(LabelError, match=message):
        read_label_csv(path)


def test_a_label_file_that_is_missing_or_not_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="No such file"):
        read_label_csv(tmp_path / "none.csv")
    (tmp_path / "l.csv").write_bytes(b"key,category,label\ncaf\xe9,red,1\n")
    with pytest.raises(LabelError, match="not UTF-8"):
        read_label_csv(tmp_path / "l.csv")


@pytest.mark.parametrize(("encoding", "message"), [("utf-16", "is UTF-16, expected UTF-8"), ("latin-1", "not UTF-8")])
def test_other_encodings_are_refused_with_what_to_do(tmp_path: Path, encoding: str, message: str) -> None:
    (tmp_path / "l.csv").write_bytes("key,category,label\ncafé,red,1\n".encode(encoding))
    with pytest.raises(LabelError, match=f'{message}.*save it as "CSV UTF-8"'):
        read_label_csv(tmp_path / "l.csv")


@pytest.mark.parametrize(("text", "expected"), [
    ("TRUE", 1), ("yes", 1), ("1.0", 1), (" 1 ", 1), ("False", 0), ("NO", 0), ("0.0", 0), ("0", 0)])
def test_unambiguous_spellings_of_a_label_are_read(tmp_path: Path, text: str, expected: int) -> None:
    path = tmp_path / "l.csv"
    path.write_text(f"key,category,label\na,red,{text}\n")
    assert [one.label for one in read_label_csv(path)] == [expected]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_blanks_capitals_and_the_delimiter_of_a_spreadsheet_do_not_matter(tmp_path: Path, delimiter: str, mark: str) -> None:
    path = tmp_path / "l.csv"
    rows = [(" Key ", "CATEGORY", "Label", "Who", " Concept", "Sha256"), ("a, b.png", " red ", " 1", " ann ", " apple ", DIGEST.upper())]
    path.write_text(mark + "\r\n".join(delimiter.join(f'"{cell}"' if "," in cell else cell for cell in row) for row in rows) + "\r\n")
    (only,) = read_label_csv(path)
    assert (only.key, only.category, only.label, only.who, only.concept, only.sha256) == ("a, b.png", "red", 1, "ann", "apple", DIGEST)


@given(st.text(st.characters(codec="utf-8", exclude_characters='\r\n"\x00'), min_size=1).filter(lambda key: key.strip()))
def test_a_key_comes_out_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, key: str) -> None:
    path = tmp_path_factory.mktemp("labels") / "l.csv"
    path.write_text(f'key,category,label\n"{key}",red,1\n', encoding="utf-8", newline="")
    assert [one.key for one in read_label_csv(path)] == [key]


def test_rows_and_empty_labels_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_text("key,category,label\na,red,1\nb,red,\n,,\nc,red,0\n")
    found = read_label_file(path)
    assert (found.num_rows, found.num_empty, len(found.verdicts)) == (3, 1, 2)


def test_columns_that_nothing_is_taken_from_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "l.csv"
    path.write_text("key,category,label,Concepts,note,group:age,gender\na,red,1,x,y,,\nb,red,1,x,y,,\n")
    read_label_csv(path)
    (only,) = caplog.messages
    assert "l.csv: column 'Concepts', 'note' is not read; known are key, category, label, who, how, concept, sha256" in only
    caplog.clear()
    path.write_text("key,category,label,who,how,concept,sha256,group:age,gender,skin_tone\na,red,1,,,,,,,\n")
    read_label_csv(path)
    assert caplog.messages == []

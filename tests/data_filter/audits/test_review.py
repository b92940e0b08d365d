import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.data_filter.audits.review import Picture, quote_key, read_review_csv, write_review_csv
from glideslope.errors import LabelError

KEYS = ["=cmd|' /C calc'!A0.png", "@x.png", "-1.png", "+1.png", "a.png", "'quoted.png", "'=x.png", "=x.png"]


def review(path: Path, keys: list[str]) -> Path:
    """A filled-in review of these keys."""
    path.unlink(missing_ok=True)
    assert write_review_csv(path, "red_001", [Picture(number, key, "", "") for number, key in enumerate(keys, start=1)])
    rows = list(csv.DictReader(path.open(newline="")))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"label": "1"} for row in rows)
    return path


def read(path: Path, keys: list[str]) -> list[str]:
    """The keys that a review gives back."""
    return [one.key for one in read_review_csv(path, category_of={"red_001": "red"}, keys_of={"red_001": keys}, who="ann")[1]]


def test_no_key_is_a_formula_for_a_spreadsheet_and_all_come_back(tmp_path: Path) -> None:
    path = review(tmp_path / "sample.csv", KEYS)
    written = [row["key"] for row in csv.DictReader(path.open(newline=""))]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in written)
    assert read(path, KEYS) == KEYS


def test_a_key_that_a_spreadsheet_showed_without_its_quote_comes_back_too(tmp_path: Path) -> None:
    path = tmp_path / "sample.csv"
    path.write_text("audit,number,key,label\nred_001,1,=x.png,1\n")
    assert read(path, ["=x.png"]) == ["=x.png"]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), min_size=1), min_size=1, max_size=5, unique=True))
def test_every_key_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, keys: list[str]) -> None:
    assert read(review(tmp_path_factory.mktemp("review") / "sample.csv", keys), keys) == keys


def test_the_key_of_another_picture_is_still_refused(tmp_path: Path) -> None:
    path = review(tmp_path / "sample.csv", ["=x.png", "b.png"])
    with pytest.raises(LabelError, match=r"number 1 of audit red_001 is 'b\.png'; do not edit or sort single columns"):
        read(path, ["b.png", "=x.png"])
    assert quote_key("b.png") == "b.png" and quote_key(" =x") == "' =x"

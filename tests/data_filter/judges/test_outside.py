from pathlib import Path

import pyarrow as pa
import pytest

from glideslope.data_filter.judges.caption_words import CaptionWordsJudge
from glideslope.data_filter.judges.outside import flag_rows, open_judges
from glideslope.errors import FilterError
from glideslope.recipe.filters import Category, Detector

from ..conftest import category


def rows_of(*captions: tuple[str, ...]) -> pa.Table:
    return pa.table({"key": [str(number) for number in range(len(captions))],
                     "caption": pa.array([texts[0] if texts else None for texts in captions], type=pa.string()),
                     "captions": pa.array([list(texts) if len(texts) > 1 else None for texts in captions], type=pa.list_(pa.string()))})


def flags_of(asked: Category, *captions: tuple[str, ...]) -> list[list[str]]:
    return flag_rows(open_judges(asked), rows_of(*captions))


def test_an_image_without_a_caption_is_flagged_where_caption_words_are_asked() -> None:
    captions: list[tuple[str, ...]] = [("a person",), (), ("a tree",)]
    assert flags_of(category(caption_words=("person",)), *captions) == [["caption_words"], ["caption_words:missing"], []]
    assert flags_of(category(), *captions) == [[], [], []]


def test_a_word_in_any_of_several_captions_drops_the_image() -> None:
    captions = [("a tree", "a person"), ("a tree", "an oak"), ("a person", "a tree")]
    assert flags_of(category(caption_words=("person", "tree an")), *captions) == [["caption_words"], [], ["caption_words"]]


def test_a_word_between_underscores_drops_the_image() -> None:
    assert flags_of(category(caption_words=("gun",)), ("gun_fight",), ("gunfight",)) == [["caption_words"], []]


def test_every_judge_of_a_category_is_asked_and_flags_stand_in_their_order(tmp_path: Path) -> None:
    detectors = []
    for name, scores in (("faces", "0,0.9\n1,0.1\n"), ("hands", "0,0.9\n1,0.9\n")):
        (tmp_path / f"{name}.csv").write_text("key,score\n" + scores)
        detectors.append(Detector(name=name, path=str(tmp_path / f"{name}.csv"), threshold=0.5))
    asked = category(caption_words=("tree",), detectors=tuple(detectors))
    assert flags_of(asked, ("a tree",), ("an oak",), ("an oak",)) == [["caption_words", "faces", "hands"], ["hands"],
                                                                    ["faces:missing", "hands:missing"]]
    assert [sorted(judge.inputs()) for judge in open_judges(asked)] == [[], ["detector faces"], ["detector hands"]]


@pytest.mark.parametrize("names", [("faces", "faces"), ("caption_words",)])
def test_judges_of_one_name_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    (tmp_path / "x.csv").write_text("key,score\n")
    with pytest.raises(FilterError, match=f"red: judges need names of their own, {names[0]} is the name of several"):
        open_judges(category(detectors=tuple(Detector(name=name, path=str(tmp_path / "x.csv"), threshold=0.5) for name in names)))


def test_caption_words_that_no_caption_can_have_are_refused() -> None:
    with pytest.raises(FilterError, match=r"caption_words: '\\u200d' holds no letter or digit"):
        CaptionWordsJudge(("gun", "\u200d"))


@pytest.mark.parametrize("word", ["…", "_", "", "a|b"])
def test_a_recipe_with_such_caption_words_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="caption_words"):
        category(caption_words=(word,))

import re
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.text.caption_words import CAPTION_BREAK, CaptionTokens, has_words, is_unspaced, split_phrase

WORDS = ("woman", "Straße", "fire arm", "女", "नारी", "café")
PIECES = ("gun", "GUN", "guns", "fight", "old", "man", "\uff4d\uff41\uff4e", "Straße", "STRASSE", "女", "銃", "a銃", "拳銃", "नारी",
          "cafe\u0301", "café", "42", "_", "-", " ", ", ", "|", "\n", "\u0301", "\ufe0f", "\u200d", "©", "½", "Ⅷ", "'s")
TEXTS = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
PHRASES = st.lists(st.sampled_from(("gun", "old man", "Strasse", "女", "a銃", "銃 a", "fire-arm", "नारी", "CAFÉ", "42", "Ⅷ", "gun_fight")),
                   min_size=1, max_size=3)


def fold_slowly(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN" and not "\ufe00" <= character <= "\ufe0f"


def split_slowly(text: str) -> list[list[str]]:
    """The words of each caption of a text."""
    return ["".join(char if is_letter(char) else " " for char in part).split() for part in fold_slowly(text).split("|")]


def has_word_slowly(text: str, phrase: str) -> bool:
    """By a pattern for each phrase instead of runs of letters that are looked up."""
    spaced = [" ".join(words) for words in split_slowly(text)]
    words = [word for part in split_slowly(phrase) for word in part]
    before = "" if is_unspaced(words[0][0]) else r"(?<!\S)"
    behind = "" if is_unspaced(words[-1][-1]) else r"(?!\S)"
    return any(re.search(before + " ".join(map(re.escape, words)) + behind, part) for part in spaced)


@pytest.mark.parametrize(("caption", "expected"), [
    ("a WOMAN walks", True), ("woman", True), ("(woman)", True), ("woman's", True),
    ("two women", False), ("womanly", False), ("superwoman", False),
    ("STRASSE", True), ("strassen", False), ("fire\n  arm", True), ("firearm", False), ("fire, arm", True), ("fire_arm", True),
    ("fire | arm", False), ("fire|arm", False), ("arm fire", False),
    ("美女图", True), ("नारी है", True), ("नारीवाद", False), ("cafe\u0301", True), ("cafe", False), ("woman\u0301", False), ("", False),
    ("\uff37\uff2f\uff2d\uff21\uff2e", True), ("snow_woman", True), ("woman_01", True), ("woman\ufe0f", True), ("woman2", False),
    (None, False)])
def test_words_are_found_whole_whatever_their_case_or_script(caption: str | None, expected: bool) -> None:
    assert has_words([caption], WORDS).tolist() == [expected]


def test_an_underscore_separates_words_in_captions_and_in_phrases() -> None:
    assert has_words(["gun_fight", "gunfight", "gun fight", "a gun-fight"], ("gun",)).tolist() == [True, False, True, True]
    assert has_words(["gun_fight", "gunfight", "gun fight", "fight, gun"], ("gun_fight",)).tolist() == [True, False, True, False]


@given(st.lists(st.one_of(st.none(), TEXTS), max_size=6), PHRASES)
def test_words_are_found_where_a_slow_search_finds_them(captions: list[str | None], phrases: list[str]) -> None:
    expected = [caption is not None and any(has_word_slowly(caption, phrase) for phrase in phrases) for caption in captions]
    assert has_words(captions, phrases).tolist() == expected


@given(st.text(alphabet="ab _-é\u0301.|", max_size=12))
def test_a_word_is_found_exactly_where_splitting_finds_it(caption: str) -> None:
    words = [word for part in split_slowly(caption) for word in part]
    tokens = CaptionTokens.of([caption])
    assert [tokens.words[code] for code in tokens.codes if tokens.words[code] != "|"] == words
    assert has_words([caption], ("ab",)).tolist() == ["ab" in words]
    assert has_words([caption], ("a b",)).tolist() == [any(("a", "b") in pairwise(part) for part in split_slowly(caption))]


@given(st.lists(TEXTS, max_size=4), PHRASES)
def test_an_input_has_the_words_that_any_of_its_captions_has(captions: list[str], phrases: list[str]) -> None:
    assert has_words([CAPTION_BREAK.join(captions)], phrases).tolist() == [bool(has_words(captions, phrases).any())]


@given(st.text(max_size=20), st.sampled_from(["gun", "old man", "女"]))
def test_any_text_with_a_word_between_spaces_has_it(text: str, word: str) -> None:
    assert has_words([f"{text} {word} {text}"], (word,)).all()


def test_signs_in_a_word_only_separate_and_are_no_pattern() -> None:
    assert has_words(["c++ code", "cxx", "a.b", "axb", "a b"], ("c++", "a.b")).tolist() == [True, False, True, False, True]
    assert has_words(["anything"], ()).tolist() == [False]
    assert split_phrase(" AK-47!") == ("ak", "47")


@pytest.mark.parametrize("word", ["…", "--", "", " ", "_"])
def test_a_word_without_a_letter_or_digit_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="holds no letter or digit"):
        has_words(["x"], (word,))


def test_a_word_with_a_bar_is_refused_for_bars_stand_between_captions() -> None:
    with pytest.raises(ValueError, match="holds a bar"):
        has_words(["x"], ("a|b",))

"""Words in captions: one rule for the filter that drops by them and for the report that counts them.

A word is a run of letters, marks and digits. Every other sign only separates words, `_` too: `gun_fight` has the words `gun` and
`fight`. Capitals, accents and wide letters are compared in one form (NFKC, case-folded). Scripts without spaces between words have
no runs to tell apart: there a word counts wherever it stands.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

CAPTION_BREAK = " | "  # between the captions of one input; no phrase goes across a bar
BAR = "|"
# Variation selectors are marks by their category, but choose a picture and no letter.
BREAKS = r"(?:[^\p{L}\p{M}\p{N}|]|[\x{FE00}-\x{FE0F}\x{E0100}-\x{E01EF}])+"
UNSPACED_SCRIPTS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")

Phrase = tuple[str, ...]


def fold(text: str) -> str:
    """Text as it is compared: letters in their plain forms and composed, case-folded, composed again (folding may take letters apart)."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


@dataclass(frozen=True)
class CaptionTokens:
    """The words of some captions, folded, in their order.

    Attributes:
        num_captions: how many captions there are.
        rows: int64 (T,), the caption of each word, rising.
        codes: int64 (T,), each word's place in `words`.
        words: the different words; a bar is one of them.
    """

    num_captions: int
    rows: NDArray[np.int64]
    codes: NDArray[np.int64]
    words: Sequence[str]

    @classmethod
    def of(cls, captions: Iterable[str | None]) -> "CaptionTokens":
        """Split captions; None has no words. Several captions of one input stand in one text, joined by `CAPTION_BREAK`."""
        folded = pa.array([None if caption is None else fold(caption).replace(BAR, CAPTION_BREAK) for caption in captions], type=pa.string())
        pieces = pc.split_pattern_regex(folded, pattern=BREAKS)
        coded = pc.list_flatten(pieces).dictionary_encode()
        words = coded.dictionary.to_pylist()
        rows, codes = pc.list_parent_indices(pieces).to_numpy().astype(np.int64), coded.indices.to_numpy().astype(np.int64)
        if "" in words:  # before the first and after the last word
            is_word = codes != words.index("")
            rows, codes = rows[is_word], codes[is_word]
        return cls(len(folded), rows, codes, words)

    def have(self, phrases: Iterable[Phrase]) -> NDArray[np.bool_]:
        """Which captions have one of the phrases of `split_phrase`, its words side by side: bool (N,)."""
        places = {word: place for place, word in enumerate(self.words)}
        has_phrase = np.zeros(self.num_captions, dtype=bool)
        for phrase in phrases:
            fitting = [self._fitting(phrase, number, places) for number in range(len(phrase))]
            if not all(fitting):
                continue
            starts = np.arange(len(self.codes) - len(phrase) + 1)
            for step, codes in enumerate(fitting):
                is_fitting = np.zeros(len(self.words), dtype=bool)
                is_fitting[codes] = True
                starts = starts[is_fitting[self.codes[starts + step]] & (self.rows[starts + step] == self.rows[starts])]
            has_phrase[self.rows[starts]] = True
        return has_phrase

    def _fitting(self, phrase: Phrase, number: int, places: dict[str, int]) -> list[int]:
        """The words that may stand at one place of a phrase: more than the word itself where its script has no spaces."""
        word = phrase[number]
        is_open_before = number == 0 and is_unspaced(word[0])
        is_open_behind = number == len(phrase) - 1 and is_unspaced(word[-1])
        if is_open_before and is_open_behind:
            return [place for place, other in enumerate(self.words) if word in other]
        if is_open_before:
            return [place for place, other in enumerate(self.words) if other.endswith(word)]
        if is_open_behind:
            return [place for place, other in enumerate(self.words) if other.startswith(word)]
        return [places[word]] if word in places else []


def split_phrase(phrase: str) -> Phrase:
    """The words of a phrase, as `CaptionTokens` has them.

    Raises:
        ValueError: it holds no letter and no digit, or a bar, which stands between captions.
    """
    tokens = CaptionTokens.of([phrase])
    words = tuple(tokens.words[code] for code in tokens.codes)
    if BAR in words:
        raise ValueError(f"{phrase!r} holds a bar, which stands between captions; name what is before and behind it as two words")
    if not words:
        raise ValueError(f"{phrase!r} holds no letter or digit; remove it")
    return words


def has_words(captions: Iterable[str | None], words: Iterable[str]) -> NDArray[np.bool_]:
    """Which captions have one of the words or phrases as whole words, whatever the case: bool (N,), false without a caption.

    Args:
        captions: one text for each input; several captions of one input are joined by `CAPTION_BREAK`.
        words: words and phrases; signs in a phrase only separate its words, as in captions.

    Raises:
        ValueError: a word that `split_phrase` refuses.
    """
    return CaptionTokens.of(captions).have([split_phrase(word) for word in words])


def is_unspaced(character: str) -> bool:
    """Whether a character is of a script that puts no space between words."""
    return unicodedata.name(character, "").startswith(UNSPACED_SCRIPTS)

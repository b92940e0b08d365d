"""The judge that looks for words in captions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ...errors import FilterError
from ...text.caption_words import has_words, split_phrase
from ..sources.source import joined_captions
from .judge import MISSING, ReadKeys

CAPTION_WORDS = "caption_words"


@dataclass(frozen=True)
class CaptionWordsJudge:
    """Flags an input if any of its captions has one of some words; and one without a caption, for it cannot say that nothing is wrong.

    Attributes:
        words: words and phrases, see `text.caption_words`.
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse words that no caption can have.

        Raises:
            FilterError: a word without a letter or digit, or with a bar.
        """
        for word in self.words:
            try:
                split_phrase(word)
            except ValueError as error:
                raise FilterError(f"{CAPTION_WORDS}: {error}") from error

    @property
    def name(self) -> str:
        """`caption_words`."""
        return CAPTION_WORDS

    def flag(self, rows: pa.Table) -> list[str]:
        """See `Judge`; reads the columns caption and captions."""
        lines = list(map(joined_captions, rows["caption"].to_pylist(), rows["captions"].to_pylist()))
        is_hit = has_words(lines, self.words).tolist()
        return [CAPTION_WORDS + MISSING if not line else CAPTION_WORDS if hit else "" for line, hit in zip(lines, is_hit, strict=True)]

    def inputs(self) -> Mapping[str, str]:
        """See `OutsideJudge`."""
        return {}

    def summary(self, num_inputs: int, num_flagged: Mapping[str, int], read_keys: ReadKeys) -> Mapping[str, Any]:
        """See `OutsideJudge`."""
        return {}

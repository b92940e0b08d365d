"""The judges beside the classifier that a recipe's category asks for. A new kind of judge is a file of this folder and a line here."""

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from ...errors import FilterError
from ...recipe.filters import Category
from .caption_words import CaptionWordsJudge
from .detectors import DetectorJudge
from .judge import OutsideJudge


def open_judges(category: Category) -> tuple[OutsideJudge, ...]:
    """The judges of a category; their order is that of their flags.

    Raises:
        FilterError: a detector's file or a word that cannot be used, or two judges of one name.
    """
    words = [CaptionWordsJudge(category.caption_words)] if category.caption_words else []
    judges: tuple[OutsideJudge, ...] = (*words, *map(DetectorJudge.open, category.detectors))
    names = Counter(["caption_words", *(detector.name for detector in category.detectors)])
    if repeated := [name for name, count in names.items() if count > 1]:
        raise FilterError(f"{category.name}: judges need names of their own, {', '.join(repeated)} is the name of several")
    return judges


def flag_rows(judges: Sequence[OutsideJudge], rows: pa.Table) -> list[list[str]]:
    """Ask every judge about some rows of the index: the flags of each row, in the judges' order."""
    verdicts = [judge.flag(rows) for judge in judges]
    return [[verdict[row] for verdict in verdicts if verdict[row]] for row in range(len(rows))]

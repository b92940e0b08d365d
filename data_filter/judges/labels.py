"""The judge that goes by labels: what somebody has seen in an image counts, whatever its score."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from ...store.vocabulary import Cause, Reason
from ..labels.store import Judgement


@dataclass(frozen=True)
class LabelsJudge:
    """Flags an input of which somebody says that it counts.

    Attributes:
        labelled: key -> category, of `find_labelled`.
    """

    labelled: Mapping[str, str]

    def flag(self, rows: pa.Table) -> list[str]:
        """See `Judge`; reads the column key."""
        return [str(Reason(Cause.LABEL, self.labelled[key])) if key in self.labelled else "" for key in rows["key"].to_pylist()]


def find_labelled(judgements: Iterable[Judgement], categories: Sequence[str]) -> dict[str, str]:
    """Key -> first category, in this order, that somebody says it counts as. A key on which people disagree is among them."""
    order = {category: number for number, category in enumerate(categories)}
    category_of: dict[str, str] = {}
    for judgement in judgements:
        if judgement.category in order and judgement.label != 0:
            earlier = category_of.get(judgement.key)
            if earlier is None or order[judgement.category] < order[earlier]:
                category_of[judgement.key] = judgement.category
    return category_of

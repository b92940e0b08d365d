"""The judge of a category: its classifier's threshold, and what the judges beside the classifier have written down with the scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ...store.vocabulary import Cause, Reason
from ..deciding.threshold import is_dropped


@dataclass(frozen=True)
class FilterJudge:
    """Flags an input whose score reaches the threshold, one without a score, and one that another judge of the category has flagged.

    Attributes:
        category: name of the filter.
        threshold: of its classifier.
    """

    category: str
    threshold: float

    def flag(self, rows: pa.Table) -> list[str]:
        """See `Judge`; reads the ledger's columns score_<category> and flags_<category>."""
        scores = rows[f"score_{self.category}"]
        values = np.array([np.nan if score is None else score for score in scores.to_pylist()], dtype=np.float32)
        verdicts = zip(is_dropped(values, self.threshold).tolist(), np.isfinite(values).tolist(), rows[f"flags_{self.category}"].to_pylist(),
                       strict=True)
        return [reason_of(self.category, dropped, has_score, flags) for dropped, has_score, flags in verdicts]


def reason_of(category: str, dropped: bool, has_score: bool, flags: Sequence[str]) -> str:
    """Why one filter drops an input, "" when it does not: the classifier before the other judges."""
    if not has_score:
        return str(Reason(Cause.MISSING_SCORE))
    if dropped:
        return str(Reason(Cause.FILTER, category))
    return str(Reason(Cause.FILTER, category, flags[0])) if flags else ""

"""What a filter's scores prove: every figure of filter.json from the scores and the threshold, by one pure function."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ...store.vocabulary import Role
from .statistics import lower_bound, upper_bound
from .threshold import Scores, is_dropped

MAX_CURVE_POINTS = 200

SCORES_SCHEMA = pa.schema([
    pa.field("key", pa.string(), nullable=False),
    pa.field("concept", pa.string(), nullable=False),
    pa.field("caption", pa.string(), nullable=False),
    pa.field("label", pa.int8(), nullable=False),
    pa.field("role", pa.string(), nullable=False),
    pa.field("in_training", pa.bool_(), nullable=False),
    pa.field("groups", pa.map_(pa.string(), pa.string()), nullable=False),
    pa.field("score", pa.float32(), nullable=False),
    pa.field("flags", pa.list_(pa.string()), nullable=False),
])


def combined_scores(scores: pa.Table) -> Scores:
    """The classifier's scores, infinite where another judge says "drop": the rule "drop if any says so" as one number. float32 (N,)."""
    flagged = np.asarray(pc.greater(pc.list_value_length(scores["flags"]), 0).to_numpy(), dtype=bool)
    return np.asarray(np.where(flagged, np.float32(np.inf), scores["score"].to_numpy()), dtype=np.float32)


def measure_filter(scores: pa.Table, threshold: float) -> dict[str, Any]:
    """The evidence of a filter at a threshold.

    Args:
        scores: a table of `SCORES_SCHEMA`, one row per labelled input.
        threshold: images with a lower score are kept, unless another judge flagged them.

    Returns:
        Plain data with the keys train, calibrate, test, groups, missed and curve of filter.json. Bounds are one-sided
        95 % Clopper-Pearson bounds; a share of nothing is null. `calibrate` was used to choose the threshold, so its
        recall is no evidence; `test` was used for nothing else.
    """
    score = combined_scores(scores)
    label = scores["label"].to_numpy()
    role = np.array(scores["role"].to_pylist(), dtype=object)
    trained = scores["in_training"].to_numpy(zero_copy_only=False)
    dropped = is_dropped(score, threshold)
    is_test = role == Role.TEST
    return {
        "train": {"num_positive": int((trained & (label == 1)).sum()), "num_negative": int((trained & (label == 0)).sum())},
        "calibrate": measure_recall(label, dropped, role == Role.CALIBRATE),
        "test": measure_recall(label, dropped, is_test) | measure_kept(label, dropped, is_test),
        "groups": measure_groups(scores, label, dropped, is_test),
        "missed": list_missed(scores, is_test & (label == 1) & ~dropped),
        "curve": trace_curve(score[is_test], label[is_test]),
    }


def share(part: int, whole: int) -> float | None:
    """part / whole, or None for a share of nothing."""
    return part / whole if whole else None


def measure_recall(label: NDArray[Any], dropped: NDArray[np.bool_], chosen: NDArray[np.bool_]) -> dict[str, Any]:
    """How many of the chosen positives the filter catches."""
    num_positive = int((chosen & (label == 1)).sum())
    num_caught = int((chosen & (label == 1) & dropped).sum())
    return {"num_positive": num_positive, "num_negative": int((chosen & (label == 0)).sum()), "num_caught": num_caught,
            "recall": share(num_caught, num_positive), "recall_lower_bound": lower_bound(num_caught, num_positive)}


def measure_kept(label: NDArray[Any], dropped: NDArray[np.bool_], chosen: NDArray[np.bool_]) -> dict[str, Any]:
    """How many of the chosen negatives stay, and how many positives are among all that stays."""
    num_negative = int((chosen & (label == 0)).sum())
    num_kept_negative = int((chosen & (label == 0) & ~dropped).sum())
    num_kept = int((chosen & ~dropped).sum())
    num_leaked = num_kept - num_kept_negative
    return {"num_kept_negative": num_kept_negative, "kept_share": share(num_kept_negative, num_negative),
            "kept_share_lower_bound": lower_bound(num_kept_negative, num_negative),
            "leak": {"num_kept": num_kept, "num_positive_kept": num_leaked, "rate": share(num_leaked, num_kept),
                     "rate_upper_bound": upper_bound(num_leaked, num_kept)}}


def measure_groups(scores: pa.Table, label: NDArray[Any], dropped: NDArray[np.bool_], is_test: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Recall on the test positives of each group value that occurs among them; "" (unspecified) comes first."""
    rows = []
    given = [dict(pairs) for pairs in scores["groups"].to_pylist()]
    for group in sorted({name for row, chosen in zip(given, is_test & (label == 1), strict=True) if chosen for name in row}):
        values = np.array([row.get(group, "") for row in given], dtype=object)
        for value in sorted(set(values[is_test & (label == 1)])):
            figures = measure_recall(label, dropped, is_test & (values == value))
            del figures["num_negative"]
            rows.append({"group": group, "value": value, **figures})
    return rows


def list_missed(scores: pa.Table, chosen: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """The chosen rows by key, caption and score, the lowest score first."""
    rows = scores.filter(pa.array(chosen)).select(["key", "caption", "score"]).to_pylist()
    return sorted(rows, key=lambda row: (row["score"], row["key"]))


def trace_curve(score: Scores, label: NDArray[Any]) -> list[list[float]]:
    """Recall, kept share and threshold along the positives' finite scores, at most 200 points, recall falling."""
    positives, negatives = np.sort(score[label == 1]), np.sort(score[label == 0])
    thresholds = np.unique(positives[np.isfinite(positives)])
    if not len(thresholds) or not len(negatives):
        return []
    if len(thresholds) > MAX_CURVE_POINTS:
        thresholds = thresholds[np.unique(np.linspace(0, len(thresholds) - 1, MAX_CURVE_POINTS).round().astype(int))]
    recall = 1 - np.searchsorted(positives, thresholds, side="left") / len(positives)
    kept = np.searchsorted(negatives, thresholds, side="left") / len(negatives)
    return [[float(r), float(k), float(t)] for r, k, t in zip(recall, kept, thresholds, strict=True)]

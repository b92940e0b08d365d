"""What becomes of each input: one row of the ledger from index, scores, thresholds and labels. Nothing is scored here.

Fails closed: an image is kept only when no judge objects. Each category has a judge that wants `score < threshold` to be true and no
flag of another judge; the last judge knows what people said who looked at it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ...store.vocabulary import Cause, Decision, Split, Status
from ..judges.filter import FilterJudge
from ..judges.judge import Judge
from ..judges.labels import LabelsJudge
from ..sources.source import hash_share
from .threshold import Filter


def ledger_schema(categories: Sequence[str], *, has_several: bool = False) -> pa.Schema:
    """Columns of the ledger: one row for every input that the run has ever seen.

    Args:
        categories: names of the filters.
        has_several: whether any input has several captions: then `captions` holds the list of each that has, and null elsewhere.
    """
    fields = [pa.field("key", pa.string(), nullable=False), pa.field("sha256", pa.string()),
              pa.field("decision", pa.string(), nullable=False), pa.field("reason", pa.string(), nullable=False),
              pa.field("detail", pa.string()), pa.field("split", pa.string(), nullable=False),
              pa.field("weight", pa.float32(), nullable=False), pa.field("caption", pa.string())]
    fields += [pa.field("captions", pa.list_(pa.string()))] if has_several else []
    for category in categories:
        fields += [pa.field(f"score_{category}", pa.float32()), pa.field(f"flags_{category}", pa.list_(pa.string()), nullable=False),
                   pa.field(f"classifier_{category}", pa.string(), nullable=False)]
    return pa.schema(fields)


def decide(index: pa.Table, scores: Mapping[str, pa.Table], filters: Sequence[Filter], labelled: Mapping[str, str],
           validation_share: float, *, captions_required: bool = True) -> list[dict[str, Any]]:
    """The ledger rows of one index shard, before the bytes are read again.

    Args:
        index: key, sha256, status, reason, error, caption, captions and concept of a shard's inputs.
        scores: category -> its scores and flags, in the same order.
        filters: in the recipe's order; the first that drops an input names the reason.
        labelled: of `find_labelled`.
        validation_share: share of concepts held back.
        captions_required: whether a sound image without a caption is dropped for that.
    """
    rows = [first_row(row, captions_required) for row in
            index.select(["key", "sha256", "status", "reason", "error", "caption", "captions", "concept"]).to_pylist()]
    said = index.select(["key"])
    for one in filters:
        columns = score_columns(one, scores[one.category])
        for name, column in columns.items():
            said = said.append_column(name, column)
            for row, value in zip(rows, column.to_pylist(), strict=True):
                row[name] = value
    judges: list[Judge] = [*(FilterJudge(one.category, one.threshold) for one in filters), LabelsJudge(labelled)]
    for judge in judges:
        for row, objection in zip(rows, judge.flag(said), strict=True):
            row["reason"] = row["reason"] or objection
    for row in rows:
        row["decision"] = Decision.DROP if row["reason"] else Decision.KEEP
        is_validation = hash_share("validation", row.pop("concept")) < validation_share
        row["split"] = "" if row["reason"] else Split.VALIDATION if is_validation else Split.TRAIN
        row["weight"] = 0.0 if row["reason"] else 1.0
    return rows


def first_row(row: Mapping[str, Any], captions_required: bool) -> dict[str, Any]:
    """A ledger row with what the index alone says of an input."""
    reason, detail = row["reason"] or (Cause.NOTHING if row["status"] == Status.OK else Cause.UNREADABLE), row["error"]
    if reason == Cause.CAPTION and row["status"] == Status.OK and not captions_required:
        reason, detail = Cause.NOTHING, None
    return {name: row[name] for name in ("key", "sha256", "caption", "captions", "concept")} | {"reason": reason, "detail": detail}


def score_columns(one: Filter, scores: pa.Table) -> dict[str, pa.Array]:
    """What a ledger holds of one filter: score, flags and classifier of each row; a score that is not finite is none."""
    values = np.array([np.nan if score is None else score for score in scores["score"].to_pylist()], dtype=np.float32)
    return {f"score_{one.category}": pa.array(values, mask=~np.isfinite(values)),
            f"flags_{one.category}": scores["flags"],
            f"classifier_{one.category}": pa.array([one.sha256] * len(scores), type=pa.string())}

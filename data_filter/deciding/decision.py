"""What becomes of each input: one row of the ledger from index, scores, thresholds and labels. Nothing is scored here.

Fails closed: an image is kept only when, for every category, `score < threshold` is true, no other judge flags it, and nobody
who looked at it said that it counts.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ...store.vocabulary import Cause, Decision, Reason, Split, Status
from ..labels.store import Judgement
from ..sources.source import hash_share
from .threshold import Filter, is_dropped


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
    for judge in filters:
        record_verdicts(rows, judge, scores[judge.category])
    for row in rows:
        if not row["reason"] and row["key"] in labelled:
            row["reason"] = str(Reason(Cause.LABEL, labelled[row["key"]]))
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


def record_verdicts(rows: Sequence[dict[str, Any]], judge: Filter, scores: pa.Table) -> None:
    """Write what one filter says into the ledger rows, and the reason where it is the first to drop one."""
    values = np.array([np.nan if score is None else score for score in scores["score"].to_pylist()], dtype=np.float32)
    for row, score, dropped, flags in zip(rows, values, is_dropped(values, judge.threshold), scores["flags"].to_pylist(), strict=True):
        row[f"score_{judge.category}"] = float(score) if np.isfinite(score) else None
        row[f"flags_{judge.category}"] = flags
        row[f"classifier_{judge.category}"] = judge.sha256
        row["reason"] = row["reason"] or reason_of(judge.category, bool(dropped), bool(np.isfinite(score)), flags)


def reason_of(category: str, dropped: bool, has_score: bool, flags: Sequence[str]) -> str:
    """Why one filter drops an input, "" when it does not: the classifier before the other judges."""
    if dropped:
        return str(Reason(Cause.FILTER, category) if has_score else Reason(Cause.MISSING_SCORE))
    return str(Reason(Cause.FILTER, category, flags[0])) if flags else ""

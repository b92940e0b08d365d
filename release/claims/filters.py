"""What the card says of a filter, computed from its scores and the ledger."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...data_filter.deciding.filter_figures import combined_scores, measure_filter
from ...data_filter.deciding.statistics import lower_bound
from ...data_filter.deciding.threshold import is_dropped
from ...data_filter.reports.balance import word_groups
from ...data_filter.reports.slices import measure_slices, slice_by_groups, slice_by_words
from ...errors import ReleaseError
from ...recipe.filters import Category
from ...store.vocabulary import Decision, Role
from ..evidence.comparison import Claims, flatten
from ..evidence.contents import Release, need

MIN_IN_WORD_GROUP = 10
MIN_OTHERS_COMPARED = 20
SLICE_KEYS = ("kind", "group", "value", "num_positive", "num_caught", "recall", "recall_lower_bound", "num_negative", "num_dropped_negative",
              "drop_rate", "exclusion_ratio", "exclusion_ratio_lower_bound", "exclusion_ratio_upper_bound", "is_thin")


def filter_claims(release: Release, category: Category) -> Claims:
    """The claims about one category's filter.

    Raises:
        ReleaseError: evidence is missing or malformed.
    """
    name, prefix = category.name, f"filters.{category.name}"
    report = release.filter(name)
    threshold = need(report, "threshold", where=f"evidence/filters/{name}/filter.json")
    table = release.scores(name)
    measured = dict(measure_filter(table, threshold))
    for key in ("curve", "groups"):  # the curve is drawn, groups are among the slices
        measured.pop(key)
    claims = flatten(prefix, measured)
    claims |= {f"{prefix}.test.concepts.{key}": value for key, value in measure_concepts(table, threshold).items()}
    claims[f"{prefix}.slices"] = measure_groups(release, table, threshold)
    claims |= {f"{prefix}.{key}": value for key, value in describe_category(category, report).items()}
    claims |= describe_demands(release, name)
    claims |= {f"{prefix}.{key}": value for key, value in count_rows(release, name, table, threshold).items()}
    rate = measured["test"]["leak"]["rate_upper_bound"]
    num_kept = release.ledger["decision"].count(Decision.KEEP)
    return claims | {f"{prefix}.max_remaining": None if rate is None else math.ceil(rate * num_kept)}


def describe_category(category: Category, report: Mapping[str, Any]) -> Claims:
    """What the recipe says of a category, and how its classifier decides."""
    where = f"evidence/filters/{category.name}/filter.json"
    return {"counts": category.counts, "does_not_count": category.does_not_count, "target_recall": category.target_recall,
            "threshold": need(report, "threshold", where=where), "classifier": describe_classifier(need(report, "classifier", where=where)),
            "caption_words": list(category.caption_words), "detectors": [detector.name for detector in category.detectors],
            "num_ambiguous": report.get("num_ambiguous", 0), "num_out_of_fold": report.get("threshold_set_on", {}).get("num_out_of_fold", 0)}


def describe_demands(release: Release, category: str) -> Claims:
    """What the packed policy demands of a category's filter.

    Raises:
        ReleaseError: the policy does not name the category.
    """
    if problems := release.policy.find_unnamed([category]):
        raise ReleaseError(problems[0])
    demands = release.policy.categories[category]
    return {f"filters.{category}.demands.recall.at_least": demands.recall.at_least,
            f"filters.{category}.demands.recall.bound": demands.recall.bound,
            f"filters.{category}.demands.kept_share.at_least": demands.kept_share.at_least,
            f"filters.{category}.demands.leak.at_most": None if demands.leak is None else demands.leak.at_most}


def describe_classifier(classifier: Mapping[str, Any]) -> str:
    """A classifier's kind, and for an average what it averages."""
    parts = [f"{part['kind']} (gamma {part['gamma']:g})" if "gamma" in part else str(part["kind"]) for part in classifier["parts"]]
    return parts[0] if len(parts) == 1 else f"average of {' and '.join(parts)}"


def count_rows(release: Release, name: str, table: Any, threshold: float) -> Claims:
    """How many inputs have a label, how many the filter drops, and how many kept ones a label speaks against."""
    ledger = release.ledger
    kept = {key for key, decision in zip(ledger["key"], ledger["decision"], strict=True) if decision == Decision.KEEP}
    labels = dict(zip(table["key"].to_pylist(), table["label"].to_pylist(), strict=True))
    verdicts = zip(ledger[f"score_{name}"], ledger[f"flags_{name}"], strict=True)
    return {"num_labelled": len(labels),
            "num_flagged": sum(score is not None and not (score < threshold and not flags) for score, flags in verdicts),
            "num_known_kept": sum(1 for key, label in labels.items() if label == 1 and key in kept)}


def measure_concepts(scores: Any, threshold: float) -> dict[str, Any]:
    """Recall on test positives counted by concept: a concept is caught only when each of its images is.

    Images of one concept (a drawing in several skin tones, say) stand or fall together, so that a bound that takes
    images as independent is too sure of itself; this one is not.

    Args:
        scores: a table of `filter_figures.SCORES_SCHEMA`.
        threshold: images with a lower score are kept, unless another judge flagged them.
    """
    columns = (scores[name].to_pylist() for name in ("concept", "label", "role"))
    caught: dict[str, bool] = {}
    for concept, label, role, score in zip(*columns, combined_scores(scores).tolist(), strict=True):
        if label == 1 and role == Role.TEST:
            caught[concept] = caught.get(concept, True) and not score < threshold
    num_caught = sum(caught.values())
    return {"num_positive": len(caught), "num_caught": num_caught, "recall": num_caught / len(caught) if caught else None,
            "recall_lower_bound": lower_bound(num_caught, len(caught))}


def measure_groups(release: Release, scores: Any, threshold: float) -> list[dict[str, Any]]:
    """The figures of each group that labels or captions name, on test labels: what is caught, and what is dropped wrongly.

    Groups by caption words are listed from ten test labels on; those by label, always.
    """
    chosen = scores.filter(np.array(scores["role"].to_pylist(), dtype=object) == Role.TEST)
    slices = slice_by_groups([dict(pairs) for pairs in chosen["groups"].to_pylist()])
    slices += [part for part in slice_by_words(chosen["caption"].to_pylist(), word_groups(release.recipe))
               if part.rows.sum() >= MIN_IN_WORD_GROUP]
    rows = measure_slices(chosen["label"].to_numpy(), is_dropped(combined_scores(chosen), threshold), slices)
    return [{key: row[key] for key in SLICE_KEYS} | {"is_compared": row["num_negative"] >= MIN_OTHERS_COMPARED} for row in rows]

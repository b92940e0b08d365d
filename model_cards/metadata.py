"""The YAML headers of the cards: what the Hub reads of a release without reading the text."""

import math
from collections.abc import Callable
from typing import Any

from .terms import data_fields, gated_fields, licence_fields

LIBRARY_NAME = "glideslope"
PIPELINE_TAG = "text-to-image"
TAGS = ("text-to-image", "glide", "diffusion", "filtered-data", "safetensors")
# Upper ends of the Hub's classes of data set size, and their names.
SIZE_CATEGORIES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"),
                   (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"), (10_000_000_000, "1B<n<10B"))
LARGEST = "n>1T"

Lookup = Callable[..., Any]


def hub_metadata(claim: Lookup) -> dict[str, Any]:
    """The front matter of the model card, in the form that huggingface_hub reads.

    Args:
        claim: gives a claim's value by its id, whose parts may be given one by one.

    Returns:
        Licence, languages, library, task, tags, data on the Hub, terms of a gated copy, and a model-index with the measured results.
    """
    results = [_evaluation_result(claim)]
    results += [_filter_result(claim, category) for category in claim("recipe.categories")]
    return {**licence_fields(claim), "language": list(claim("release.languages")), "library_name": LIBRARY_NAME,
            "pipeline_tag": PIPELINE_TAG, "tags": list(dict.fromkeys((*TAGS, *claim("release.tags")))),
            **data_fields(claim), **gated_fields(claim),
            "model-index": [{"name": claim("release.title"), "results": results}]}


def dataset_metadata(claim: Lookup) -> dict[str, Any]:
    """The front matter of the dataset card."""
    kept = claim("ledger.num_kept")
    size = next((name for end, name in SIZE_CATEGORIES if kept < end), LARGEST)
    return {"pretty_name": f"Training data of {claim('release.title')}", "language": list(claim("release.languages")),
            "task_categories": [PIPELINE_TAG], "size_categories": [size]}


def _evaluation_result(claim: Lookup) -> dict[str, Any]:
    metrics = [("caption_win_share", "Share of pictures whose own caption is in the better half of those compared", "evaluation.share"),
               ("caption_win_share_lower_bound", "Its one-sided 95 % lower bound", "evaluation.share_lower_bound")]
    return {"task": {"type": PIPELINE_TAG, "name": "Text to image"}, "dataset": _dataset(claim, "evaluation captions"),
            "metrics": [_metric(kind, claim(name), title) for kind, title, name in metrics]}


def _filter_result(claim: Lookup, category: str) -> dict[str, Any]:
    test = f"filters.{category}.test"
    metrics = [("recall", "Recall on test labels", "recall"),
               ("recall_lower_bound", "One-sided 95 % lower bound of the recall", "recall_lower_bound"),
               ("kept_share", "Share of other images kept", "kept_share"),
               ("leak_rate_upper_bound", "One-sided 95 % upper bound of the share of the category among kept images", "leak.rate_upper_bound")]
    measured = [(kind, claim(test, name), title) for kind, title, name in metrics]
    return {"task": {"type": "image-classification", "name": f"Filtering the training data: {category}"},
            "dataset": _dataset(claim, "test labels"),
            "metrics": [_metric(kind, value, title) for kind, value, title in measured if value is not None]}


def _dataset(claim: Lookup, part: str) -> dict[str, Any]:
    return {"type": claim("source.kind"), "name": f"{claim('source.kind')}, {part}"}


def _metric(kind: str, value: float, title: str) -> dict[str, Any]:
    cautious = {"lower_bound": math.floor, "upper_bound": math.ceil}.get("_".join(kind.split("_")[-2:]), round)
    return {"type": kind, "value": cautious(value * 1e6) / 1e6, "name": title}

""".eval_results/glideslope.yaml: the measured figures in the form that the Hub reads evaluation results in.

Form: `huggingface_hub.EvalResultEntry`. The Hub names each data set as `owner/name`; data that is not on the Hub is named
`local/<name of the run>`, and the notes say so.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import yaml

from .plain_json import claim, decimal, lower, upper

EVAL_RESULTS_PATH = ".eval_results/glideslope.yaml"
LOCAL_OWNER = "local"


def eval_results_text(claims: Mapping[str, Any]) -> str:
    """The text of the file."""
    ask = partial(claim, claims)
    entries = [_evaluation_entry(claims)]
    for category in ask("recipe.categories"):
        entries += _filter_entries(claims, category)
    return yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=10_000)


def dataset_of(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Id of the data set and, where it is on the Hub, its revision."""
    ask = partial(claim, claims)
    if ask("source.dataset_id") is not None:
        return {"id": claims["source.dataset_id"], "revision": ask("source.dataset_revision")}
    return {"id": f"{LOCAL_OWNER}/{ask('recipe.name')}"}


def _entry(claims: Mapping[str, Any], task: str, value: float, notes: str) -> dict[str, Any]:
    ask = partial(claim, claims)
    dataset = dataset_of(claims)
    where = "" if "revision" in dataset else f"; {dataset['id']} stands for this run's own data, which is not on the Hub"
    entry: dict[str, Any] = {"dataset": {"id": dataset["id"], "task_id": task, **({"revision": dataset["revision"]} if not where else {})},
                             "value": float(decimal(value))}
    if ask("release.homepage"):
        entry["source"] = {"url": claims["release.homepage"], "name": ask("release.title")}
    return entry | {"notes": f"{notes}; recomputed by `glideslope verify`{where}"}


def _evaluation_entry(claims: Mapping[str, Any]) -> dict[str, Any]:
    ask = partial(claim, claims)
    wins, pairs, bound = (ask("evaluation", key) for key in ("num_wins", "num_pairs", "share_lower_bound"))
    return _entry(claims, "caption_win_share", ask("evaluation.share"),
                  f"share of pictures whose own caption is in the better half of those compared: {wins} of {pairs}; one-sided 95 % lower "
                  f"bound {lower(bound)}")


def _filter_entries(claims: Mapping[str, Any], category: str) -> list[dict[str, Any]]:
    """Recall and kept share on test labels, where there were labels to measure them on."""
    ask = partial(claim, claims)
    test = f"filters.{category}.test"
    entries: list[dict[str, Any]] = []
    counts = ("num_caught", "num_positive", "num_kept_negative", "num_negative")
    caught, positive, kept, negative = (ask(test, key) for key in counts)
    if (recall := ask(test, "recall")) is not None:
        bound = lower(ask(test, "recall_lower_bound"))
        entries.append(_entry(claims, f"filter_{category}_recall", recall,
                              f"the filter of the training data found {caught} of {positive} test images of {category}; "
                              f"one-sided 95 % lower bound {bound}"))
    if (share := ask(test, "kept_share")) is not None:
        entries.append(_entry(claims, f"filter_{category}_kept_share", share,
                              f"the filter of the training data kept {kept} of {negative} other test images; one-sided 95 % lower bound "
                              f"{lower(ask(test, 'kept_share_lower_bound'))}"))
    if (leak := ask(test, "leak.rate_upper_bound")) is not None:
        entries.append(_entry(claims, f"filter_{category}_leak_upper_bound", float(upper(leak)),
                              f"one-sided 95 % upper bound of the share of {category} among what the filter keeps"))
    return entries

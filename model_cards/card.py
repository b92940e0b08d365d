"""The model card: claims in, README.md out. Every number in it is a claim; a missing claim is an error."""

import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, UndefinedError

from .. import wording
from ..errors import ReleaseError

TEMPLATE_NAME = "model_card.md.jinja"
TEMPLATE_PATH = Path(__file__).with_name(TEMPLATE_NAME)
LIBRARY_NAME = "glideslope"
PIPELINE_TAG = "text-to-image"
WEAK_LOWER_BOUND = 0.9
CHANCE = 0.5
TAGS = ("text-to-image", "glide", "diffusion", "filtered-data", "safetensors")


def render_card(claims: Mapping[str, Any]) -> str:
    """Render the card of a release.

    Args:
        claims: claim id -> value, as `release.claims.compute_claims` gives them.

    Returns:
        README.md: Hub metadata as YAML front matter, then Markdown. Equal claims give equal text.

    Raises:
        ReleaseError: a claim that the card needs is missing; the message names it.
    """
    lookup = ClaimLookup(claims)
    try:
        front_matter = yaml.safe_dump(hub_metadata(lookup), sort_keys=False, allow_unicode=True, width=10_000)
        text = load_template().render(front_matter=front_matter, claim=lookup)
    except UndefinedError as error:
        raise ReleaseError(f"model card: {error.message}; pack the release again") from error
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise ReleaseError(f"model card: a claim has an unexpected value ({error}); pack the release again") from error
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


@cache
def load_template() -> Template:
    """The card's template with the wording of numbers as its filters."""
    environment = Environment(loader=FileSystemLoader(TEMPLATE_PATH.parent), undefined=StrictUndefined, autoescape=False,
                              trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    filters = (wording.count, wording.percent, wording.at_least, wording.at_most, wording.at_most_precise, wording.decimal, wording.significant,
               wording.millions, wording.megabytes, wording.duration, wording.cell)
    environment.filters.update({function.__name__: function for function in filters})
    environment.tests |= {"weak": is_weak, "above_chance": is_above_chance}
    return environment.get_template(TEMPLATE_NAME)


def is_weak(lower_bound: float) -> bool:
    """Whether a bound on a filter's recall is too low to rely on, so that the card must say so."""
    return lower_bound < WEAK_LOWER_BOUND


def is_above_chance(lower_bound: float) -> bool:
    """Whether a bound on the share of wins rules out that each pair was decided by a fair coin."""
    return lower_bound > CHANCE


class ClaimLookup:
    """Claims by id, as the template asks for them; a claim that is not there is an error that names it."""

    def __init__(self, claims: Mapping[str, Any]) -> None:
        """Remember the claims."""
        self._claims = claims

    def __call__(self, *parts: str) -> Any:
        """The value of the claim whose id is these parts joined by dots.

        Raises:
            ReleaseError: there is no such claim.
        """
        name = ".".join(parts)
        if name not in self._claims:
            raise ReleaseError(f"model card: claim {name!r} is missing; pack the release again")
        return self._claims[name]


def hub_metadata(claim: ClaimLookup) -> dict[str, Any]:
    """The front matter of the card, in the form that huggingface_hub reads.

    Args:
        claim: looks claims up by id.

    Returns:
        Licence, library, task, tags and a model-index with the measured results.
    """
    results = [_evaluation_result(claim)]
    results += [_filter_result(claim, category) for category in claim("recipe.categories")]
    return {"license": claim("release.license"), "library_name": LIBRARY_NAME, "pipeline_tag": PIPELINE_TAG, "tags": list(TAGS),
            "model-index": [{"name": claim("release.title"), "results": results}]}


def _evaluation_result(claim: ClaimLookup) -> dict[str, Any]:
    metrics = [("caption_win_share", "Share of pictures whose own caption outranks a random one", "evaluation.share"),
               ("caption_win_share_lower_bound", "Its one-sided 95 % lower bound", "evaluation.share_lower_bound")]
    return {"task": {"type": PIPELINE_TAG, "name": "Text to image"}, "dataset": _dataset(claim, "evaluation captions"),
            "metrics": [_metric(kind, claim(name), title) for kind, title, name in metrics]}


def _filter_result(claim: ClaimLookup, category: str) -> dict[str, Any]:
    audit = f"filters.{category}.audit"
    metrics = [("recall", "Recall on audit labels", "recall"),
               ("recall_lower_bound", "One-sided 95 % lower bound of the recall", "recall_lower_bound"),
               ("kept_share", "Share of other images kept", "kept_share"),
               ("leak_rate_upper_bound", "One-sided 95 % upper bound of the share of the category among kept images", "leak.rate_upper_bound")]
    measured = [(kind, claim(audit, name), title) for kind, title, name in metrics]
    return {"task": {"type": "image-classification", "name": f"Filtering the training data: {category}"},
            "dataset": _dataset(claim, "audit labels"),
            "metrics": [_metric(kind, value, title) for kind, value, title in measured if value is not None]}


def _dataset(claim: ClaimLookup, part: str) -> dict[str, Any]:
    return {"type": claim("source.kind"), "name": f"{claim('source.kind')}, {part}"}


def _metric(kind: str, value: float, title: str) -> dict[str, Any]:
    cautious = {"lower_bound": math.floor, "upper_bound": math.ceil}.get("_".join(kind.split("_")[-2:]), round)
    return {"type": kind, "value": cautious(value * 1e6) / 1e6, "name": title}

"""What the cards say of the data: the recipe's words, the ledger's counts, and how the captions changed."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from ...data_filter.reports.balance import count_captions, measure_balance
from ...data_filter.reports.report import word_groups
from ...errors import ReleaseError
from ...store.strict_yaml import load_yaml
from ..evidence.comparison import Claims
from ..evidence.contents import Release

POLICY_PATH = "evidence/policy.yaml"
NUM_WORDS_LISTED = 10
MIN_INPUTS_OF_GROUP = 20
CHANGE_KEYS = ("num_inputs", "num_kept", "share_before", "share_after", "change", "change_lower_bound", "change_upper_bound")


def recipe_claims(release: Release) -> Claims:
    """What the recipe says of itself, of the source and of the release."""
    recipe, words = release.recipe, release.recipe.release
    return {"recipe.name": recipe.name, "recipe.seed": recipe.seed, "recipe.categories": [category.name for category in recipe.categories],
            "release.title": words.title, "release.license": words.license, "release.data_attribution": words.data_attribution,
            "release.homepage": words.homepage, "release.citation": words.citation, "release.languages": list(words.languages),
            "release.tags": list(words.tags), "release.blurred": list(words.blurred), "source.kind": recipe.source.kind,
            "source.image_size": getattr(recipe.source, "image_size", None),
            "clip.model": recipe.clip.model, "clip.pretrained": recipe.clip.pretrained}


def unsafe_claims(release: Release) -> Claims:
    """What the release's policy sets aside: whatever in it is called `unsafe_...`, with its reason.

    Raises:
        ReleaseError: the policy is not readable.
    """
    if not (release.directory / POLICY_PATH).is_file():
        return {"unsafe.bypasses": []}
    try:
        policy = release.read(POLICY_PATH, load_yaml)
    except yaml.YAMLError as error:
        raise ReleaseError(f"{POLICY_PATH}: not readable as YAML ({' '.join(str(error).split())}); pack again") from error
    return {"unsafe.bypasses": list(find_unsafe(policy))}


def find_unsafe(value: Any, name: str = "") -> Iterator[dict[str, str]]:
    """Every entry below a key that begins with `unsafe_`, as gate and reason, however deep it lies."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            inside = f"{name}.{key}" if name else str(key) if str(key).startswith("unsafe_") else ""
            yield from find_unsafe(inner, inside)
    elif isinstance(value, list):
        for inner in value:
            yield from find_unsafe(inner, name)
    elif name and value not in (None, False):
        yield {"gate": name, "reason": str(value)}


def ledger_claims(release: Release) -> Claims:
    """How many inputs were seen, kept and dropped, and why.

    Raises:
        ReleaseError: the ledger knows decisions or splits that there are not.
    """
    ledger = release.ledger
    decisions = Counter(ledger["decision"])
    dropped = Counter(reason for reason, decision in zip(ledger["reason"], ledger["decision"], strict=True) if decision == "drop")
    splits = Counter(split for split, decision in zip(ledger["split"], ledger["decision"], strict=True) if decision == "keep")
    if set(decisions) - {"keep", "drop"} or set(splits) - {"train", "validation"}:
        raise ReleaseError(f"evidence/ledger: unknown decisions or splits ({dict(decisions)}, {dict(splits)}); curate again")
    return {"ledger.num_seen": len(ledger["key"]), "ledger.num_kept": decisions["keep"], "ledger.num_dropped": decisions["drop"],
            "ledger.dropped_by_reason": dict(sorted(dropped.items())), "ledger.num_train": splits["train"],
            "ledger.num_validation": splits["validation"]}


def balance_claims(release: Release) -> Claims:
    """How much rarer or more frequent words became in the captions, among all inputs that a filter or a label decided on.

    Groups are listed from 20 inputs on; single words only where the change is sure.
    """
    measured = measure_balance(count_captions(release.directory / "evidence/ledger", word_groups(release.recipe)))
    groups = [{"name": row["group"], **_pick(row)} for row in measured["groups"] if row["num_inputs"] >= MIN_INPUTS_OF_GROUP]
    words = {side: [{"name": row["word"], **_pick(row)} for row in measured[side] if row["is_sure"]][:NUM_WORDS_LISTED]
             for side in ("losers", "gainers")}
    return {"balance.num_inputs": measured["num_inputs"], "balance.num_kept": measured["num_kept"],
            "balance.num_words_compared": measured["num_words_compared"], "balance.min_inputs": measured["min_inputs"],
            "balance.groups": groups, "balance.losers": words["losers"], "balance.gainers": words["gainers"]}


def _pick(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in CHANGE_KEYS}

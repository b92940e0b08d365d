"""What the cards say of the data: the recipe's words, the ledger's counts, and how the captions changed."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ...data_filter.reports.balance import count_captions, measure_balance, word_groups
from ...errors import ReleaseError
from ...store.vocabulary import Decision, Split
from ..evidence.comparison import Claims
from ..evidence.contents import Release

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
    """The gates whose demands the packed policy leaves out, each with its reason.

    Raises:
        ReleaseError: the policy is not readable.
    """
    return {"unsafe.bypasses": [{"gate": gate, "reason": reason} for gate, reason in release.policy.unsafe_skip.items()]}


def ledger_claims(release: Release) -> Claims:
    """How many inputs were seen, kept and dropped, and why.

    Raises:
        ReleaseError: the ledger knows decisions or splits that there are not.
    """
    ledger = release.ledger
    decisions = Counter(ledger["decision"])
    dropped = Counter(reason for reason, decision in zip(ledger["reason"], ledger["decision"], strict=True) if decision == Decision.DROP)
    splits = Counter(split for split, decision in zip(ledger["split"], ledger["decision"], strict=True) if decision == Decision.KEEP)
    if set(decisions) - set(Decision) or set(splits) - set(Split):
        raise ReleaseError(f"evidence/ledger: unknown decisions or splits ({dict(decisions)}, {dict(splits)}); curate again")
    return {"ledger.num_seen": len(ledger["key"]), "ledger.num_kept": decisions[Decision.KEEP], "ledger.num_dropped": decisions[Decision.DROP],
            "ledger.dropped_by_reason": dict(sorted(dropped.items())), "ledger.num_train": splits[Split.TRAIN],
            "ledger.num_validation": splits[Split.VALIDATION]}


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

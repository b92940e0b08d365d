"""The held-back pictures that trained networks are evaluated on: the recipe's seed chooses them, and `verify` chooses them again."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...data_filter.sources.source import hash_share
from ...errors import ReleaseError
from ...store.vocabulary import Decision, Split
from ..evidence.comparison import show
from ..evidence.contents import Release, need

MAX_OF_UPSAMPLER = 64
MAX_OF_NOISED_CLIP = 128
Image = Mapping[str, Any]


def choose_for_upsampler(held_back: Iterable[Image], seed: int) -> list[Image]:
    """The pictures that the upsampler enlarges: the first 64 in the order of the hash of seed and key, so that nobody picks one.

    Args:
        held_back: key and caption of each image that is held back.
        seed: of the recipe.
    """
    return _in_order(held_back, seed)[:MAX_OF_UPSAMPLER]


def choose_for_noised_clip(held_back: Iterable[Image], seed: int) -> list[Image]:
    """The pairs that the noised CLIP tells apart: in the same order the first 128 images of different captions, or none of one caption.

    Args:
        held_back: key and caption of each image that is held back.
        seed: of the recipe.
    """
    first: dict[str, Image] = {}
    for image in _in_order(held_back, seed):
        first.setdefault(image["caption"], image)
    return list(first.values())[:MAX_OF_NOISED_CLIP] if len(first) > 1 else []


def _in_order(images: Iterable[Image], seed: int) -> list[Image]:
    return sorted(images, key=lambda image: (hash_share(str(seed), "held back", image["key"]), image["key"]))


def list_held_back(release: Release) -> list[Image]:
    """Key and caption of each image that the ledger of a release keeps and holds back."""
    ledger = release.ledger
    rows = zip(ledger["key"], ledger["caption"], ledger["decision"], ledger["split"], strict=True)
    return [{"key": key, "caption": caption} for key, caption, decision, split in rows
            if decision == Decision.KEEP and split == Split.VALIDATION and caption]


def compare_keys(rows: Sequence[Mapping[str, Any]], expected: Sequence[str], *, where: str) -> list[str]:
    """One sentence for each row that is of another picture than the recipe's seed chooses, and one where there are more or fewer."""
    found = [need(row, "key", where=where) for row in rows]
    compared = enumerate(zip(found, expected, strict=False))
    problems = [f"{where}: row {number} is of the picture {show(key)}, the recipe's seed chooses {show(chosen)} of those that the ledger "
                "holds back; run the evaluation again" for number, (key, chosen) in compared if key != chosen]
    if len(found) != len(expected):
        problems.append(f"{where}: has {len(found)} rows, the recipe's seed chooses {len(expected)} of what the ledger holds back; run the "
                        "evaluation again")
    return problems


def need_number(row: Mapping[str, Any], key: str, least: float, most: float, *, where: str) -> float:
    """A number of a row, within bounds.

    Raises:
        ReleaseError: it is missing, no number, or none that there can be.
    """
    value = need(row, key, where=where)
    if type(value) not in (int, float) or not least <= value <= most:
        raise ReleaseError(f"{where}: {key} is {show(value)}, expected a number from {least:g} to {most:g}; run the evaluation again, then "
                           "pack")
    return float(value)

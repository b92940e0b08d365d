"""An order in which concepts take turns, so that one with many variants does not crowd out the others."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def take_turns(items: Iterable[T], concept_of: Callable[[T], str], hash_item: Callable[[T], float],
               hash_concept: Callable[[str], float]) -> list[T]:
    """The items, one of each concept before the second of any.

    Args:
        items: in any order.
        concept_of: what an item shows.
        hash_item: which variant of a concept comes first: the one with the smallest number.
        hash_concept: which concept comes first within a round: the one with the smallest number.
    """
    rounds: dict[str, int] = defaultdict(int)
    turns = []
    for place, item in enumerate(sorted(items, key=hash_item)):
        concept = concept_of(item)
        turns.append((rounds[concept], hash_concept(concept), place, item))
        rounds[concept] += 1
    return [item for *_, item in sorted(turns, key=lambda turn: turn[:3])]

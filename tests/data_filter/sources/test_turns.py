from collections import Counter
from collections.abc import Sequence
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from glideslope.data_filter.sources.source import hash_share
from glideslope.data_filter.sources.turns import take_turns

ITEMS = st.lists(st.tuples(st.text("abc", min_size=1, max_size=2), st.integers(0, 10**6)), unique=True, max_size=30)


def ordered(items: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    return take_turns(items, lambda item: item[0], lambda item: hash_share("x", *map(str, item)), partial(hash_share, "x"))


@given(ITEMS, st.randoms())
def test_no_concept_has_another_turn_before_all_others_had_one_whatever_the_order(items: list[tuple[str, int]], random: object) -> None:
    found = ordered(items)
    assert sorted(found) == sorted(items)
    rounds = [Counter(concept for concept, _ in found[:place])[found[place][0]] for place in range(len(found))]
    assert rounds == sorted(rounds)
    random.shuffle(items)  # type: ignore[attr-defined]
    assert ordered(items) == found

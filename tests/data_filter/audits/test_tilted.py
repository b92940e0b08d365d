import math
from collections.abc import Sequence
from itertools import islice, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.data_filter.audits.strata import Stratum, anytime_upper_bound, schedule_strata
from glideslope.data_filter.audits.tilted import BETS, Bet, LabelledStratum, tilted_upper_bound

RATES = (0.001, 0.05, 0.4)


@st.composite
def small_strata(draw: st.DrawFn) -> list[LabelledStratum]:
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        items = draw(st.integers(1, 10))
        labels = draw(st.lists(st.integers(0, 1), max_size=items))
        parts.append(LabelledStratum(items, labels, draw(st.sampled_from(RATES))))
    return parts


def stake(part: LabelledStratum, tilt: float, total: int) -> float:
    """What the bets have won, label by label; 0 for a total that the labels refute."""
    won, hits = 1.0, 0
    for place, label in enumerate(part.labels):
        chance = (total - hits) / (part.num_items - place)
        if not 0 <= chance <= 1 or (label and chance == 0) or (not label and chance == 1):
            return math.inf
        if tilt == 1 and label:
            return 0.0
        won *= (1 - tilt if label else 1) / (1 - tilt * chance)
        hits += label
    return won


@given(small_strata(), st.sampled_from([0.3, 0.8, 1.0]))
def test_costs_are_the_logarithms_of_the_stakes_and_convex(strata: list[LabelledStratum], tilt: float) -> None:
    bet = Bet(strata[0], tilt)
    if tilt == 1 and bet.least:
        assert bet.lost == -math.inf, "who stakes everything on no hit has lost everything"
        return
    costs = [bet.cost(total) for total in range(bet.least, bet.most + 1)]
    for total, cost in enumerate(costs, start=bet.least):
        expected = stake(strata[0], tilt, total)
        assert math.exp(cost + bet.lost) == pytest.approx(expected) or expected == math.inf
    steps = [bet.marginal_cost(bet.least + n) for n in range(1, len(costs))]
    finite = [n for n in range(len(steps)) if math.isfinite(costs[n + 1])]
    assert [steps[n] for n in finite] == pytest.approx([costs[n + 1] - costs[n] for n in finite], abs=1e-9)
    assert all(steps[a] <= steps[a + 1] + 1e-12 for a in range(len(steps) - 1))


@given(small_strata(), st.sampled_from([0.5, 0.9, 0.99]))
def test_the_bound_is_the_largest_total_that_no_boldness_rules_out_for_every_division(strata: list[LabelledStratum], confidence: float) -> None:
    thinnest = min(part.spread for part in strata)
    ends = [sum(part.num_items - len(part.labels) + sum(part.labels) for part in strata)]
    for boldness, share in BETS:
        left = []
        for way in product(*(range(part.num_items + 1) for part in strata)):
            if all(sum(part.labels) <= m <= part.num_items - len(part.labels) + sum(part.labels) for part, m in zip(strata, way, strict=True)):
                won = [stake(part, boldness * thinnest / part.spread, m) for part, m in zip(strata, way, strict=True)]
                left += [sum(way)] if share * math.prod(won) < 1 / (1 - confidence) else []
        ends.append(max(left))
    assert tilted_upper_bound(strata, confidence=confidence) == min(ends)


@pytest.mark.parametrize("confidence", [0.2, 0.5, 0.8, 0.95])
@pytest.mark.parametrize(("sizes", "rates"), [((3, 4), (0.05, 0.4)), ((6,), (0.1,)), ((2, 2, 3), (0.01, 0.2, 0.4))])
def test_of_all_orders_of_small_strata_few_enough_ever_mislead(sizes: tuple[int, ...], rates: tuple[float, ...], confidence: float) -> None:
    order = list(schedule_strata(sizes, rates))
    known: dict[tuple[tuple[int, ...], ...], int] = {}
    wrong: dict[tuple[int, ...], int] = {}
    for labels in product(*(list(product((0, 1), repeat=size)) for size in sizes)):
        truth, misled = tuple(map(sum, labels)), False
        for n in range(len(order) + 1):
            state = tuple(given[:order[:n].count(number)] for number, given in enumerate(labels))
            if state not in known:
                known[state] = tilted_upper_bound([LabelledStratum(size, given, rate) for size, given, rate in
                                                   zip(sizes, state, rates, strict=True)], confidence=confidence)
            misled |= known[state] < sum(truth)
        wrong[truth] = wrong.get(truth, 0) + misled
    for truth, number in wrong.items():
        orders = math.prod(math.comb(size, hits) for size, hits in zip(sizes, truth, strict=True))
        assert number / orders <= 1 - confidence + 1e-12
    assert confidence > 0.2 or any(wrong.values()), "the bound is not just always trivial"


def draw_labels(sizes: Sequence[int], leaks: Sequence[int], counts: Sequence[int], rates: Sequence[float],
                generator: np.random.Generator) -> list[LabelledStratum]:
    return [LabelledStratum(size, (generator.permutation(size) < leak)[:count].astype(int).tolist(), rate)
            for size, leak, count, rate in zip(sizes, leaks, counts, rates, strict=True)]


def test_where_leaks_have_high_scores_the_bound_is_far_below_those_that_ignore_it() -> None:
    generator = np.random.default_rng(0)
    sizes, leaks, rates = (8000, 1500, 400, 100), (2, 3, 5, 40), (1e-3, 2e-3, 0.02, 0.3)
    drawn = list(islice(schedule_strata(sizes, rates), 1200))
    counts = [drawn.count(number) for number in range(len(sizes))]
    found, ignoring, misled = [], [], 0
    for _ in range(20):
        strata = draw_labels(sizes, leaks, counts, rates, generator)
        found.append(tilted_upper_bound(strata))
        hits = int(generator.hypergeometric(sum(leaks), sum(sizes) - sum(leaks), 1200))
        ignoring.append(anytime_upper_bound([Stratum(sum(sizes), 1200, hits, 1e-3)]))
        misled += found[-1] < sum(leaks)
    assert np.mean(found) < 0.85 * np.mean(ignoring)
    assert misled <= 2


@given(small_strata())
def test_more_confidence_widens_and_a_miss_narrows(strata: list[LabelledStratum]) -> None:
    bound = tilted_upper_bound(strata, confidence=0.8)
    assert tilted_upper_bound(strata, confidence=0.9) >= bound
    for number, part in enumerate(strata):
        if len(part.labels) < part.num_items:
            longer = LabelledStratum(part.num_items, [*part.labels, 0], part.expected_rate)
            assert tilted_upper_bound([*strata[:number], longer, *strata[number + 1:]], confidence=0.8) <= bound


def test_a_census_knows_and_no_label_says_nothing() -> None:
    assert tilted_upper_bound([LabelledStratum(4, [0, 1, 0, 0], 0.1), LabelledStratum(2, [1, 1], 0.4)]) == 3
    assert tilted_upper_bound([LabelledStratum(40, [], 0.1), LabelledStratum(2, [], 0.4)]) == 42


def test_impossible_strata_are_refused() -> None:
    with pytest.raises(ValueError, match="3 hits of 2 trials"):
        LabelledStratum(2, [0, 0, 0], 0.1)
    with pytest.raises(ValueError, match="expected rate is 1"):
        LabelledStratum(2, [0], 1.0)

import math
from collections.abc import Sequence
from itertools import islice, pairwise, product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from glideslope.data_filter.audits.strata import (
    Stratum,
    anytime_lower_bound,
    anytime_upper_bound,
    estimate_total,
    log_mixture,
    required_anytime_trials,
    schedule_strata,
)
from glideslope.data_filter.deciding.statistics import required_trials


def bounds(strata: Sequence[Stratum], confidence: float) -> tuple[int, int]:
    return anytime_lower_bound(strata, confidence=confidence), anytime_upper_bound(strata, confidence=confidence)


def allowed_totals(strata: Sequence[Stratum], confidence: float) -> list[int]:
    """By trying every way in which the hits may lie."""
    limit = log_mixture(strata) + math.log(1 - confidence)
    ways = product(*(range(part.num_items + 1) for part in strata))
    return [sum(way) for way in ways if limit + sum(part.cost(m) for part, m in zip(strata, way, strict=True)) < 0]


@st.composite
def small_strata(draw: st.DrawFn) -> list[Stratum]:
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        items = draw(st.integers(1, 12))
        trials = draw(st.integers(0, items))
        parts.append(Stratum(items, trials, draw(st.integers(0, trials)), draw(st.sampled_from([0.001, 0.05, 0.4]))))
    return parts


@given(small_strata(), st.sampled_from([0.5, 0.9, 0.99]))
def test_the_bounds_are_the_ends_of_what_trying_every_division_allows(strata: list[Stratum], confidence: float) -> None:
    totals = allowed_totals(strata, confidence)
    assert bounds(strata, confidence) == (min(totals), max(totals))


@given(small_strata())
def test_costs_are_convex_and_marginal_costs_are_their_steps(strata: list[Stratum]) -> None:
    for part in strata:
        costs = [part.cost(m) for m in range(part.num_hits, part.num_items - part.num_trials + part.num_hits + 1)]
        steps = [part.marginal_cost(part.num_hits + n) for n in range(1, len(costs))]
        assert np.diff(costs) == pytest.approx(steps, abs=1e-9)
        assert all(a <= b + 1e-12 for a, b in pairwise(steps))


def sequence_chance(items: int, total: int, trials: int, hits: int) -> float:
    return math.comb(items - trials, total - hits) / math.comb(items, total)


@given(small_strata(), st.data())
def test_a_cost_is_the_chance_of_the_labels_in_their_order(strata: list[Stratum], data: st.DataObject) -> None:
    part = strata[0]
    total = data.draw(st.integers(part.num_hits, part.num_items - part.num_trials + part.num_hits))
    assert math.exp(-part.cost(total)) == pytest.approx(sequence_chance(part.num_items, total, part.num_trials, part.num_hits), rel=1e-9)


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("items", [1, 4, 7, 9])
def test_of_all_orders_of_a_small_population_few_enough_ever_mislead(items: int, confidence: float) -> None:
    wrong = [0] * (items + 1)
    known = {(n, k): bounds([Stratum(items, n, k, 0.1)], confidence) for n in range(items + 1) for k in range(n + 1)}
    for labels in product((0, 1), repeat=items):
        total = sum(labels)
        path = [known[n, sum(labels[:n])] for n in range(items + 1)]
        wrong[total] += any(not low <= total <= high for low, high in path)
    assert all(wrong[total] / math.comb(items, total) <= 1 - confidence + 1e-12 for total in range(items + 1))
    assert confidence > 0.9 or items < 7 or any(wrong), "the bounds are not just always trivial"


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95])
def test_of_all_orders_of_two_small_strata_few_enough_ever_mislead(confidence: float) -> None:
    sizes, rates = (3, 4), (0.3, 0.05)
    order = list(schedule_strata(sizes, rates))
    known: dict[tuple[tuple[int, int], ...], tuple[int, int]] = {}
    wrong: dict[tuple[int, int], int] = {}
    for labels in product(product((0, 1), repeat=3), product((0, 1), repeat=4)):
        truth = sum(labels[0]), sum(labels[1])
        misled = False
        for n in range(len(order) + 1):
            drawn = [order[:n].count(number) for number in range(2)]
            state = tuple((drawn[number], sum(labels[number][:drawn[number]])) for number in range(2))
            if state not in known:
                known[state] = bounds([Stratum(size, t, k, rate) for size, (t, k), rate in zip(sizes, state, rates, strict=True)], confidence)
            low, high = known[state]
            misled |= not low <= sum(truth) <= high
        wrong[truth] = wrong.get(truth, 0) + misled
    assert all(number / (math.comb(3, a) * math.comb(4, b)) <= 1 - confidence + 1e-12 for (a, b), number in wrong.items())


def test_in_simulated_audits_the_bound_is_seldom_wrong_at_any_moment_and_shrinks_to_the_truth() -> None:
    generator = np.random.default_rng(0)
    items, total, misled = 300, 12, 0
    checked = range(10, items + 1, 10)
    known = {(n, k): bounds([Stratum(items, n, k, 0.02)], 0.9) for n in checked for k in range(min(n, total) + 1) if items - n >= total - k}
    for _ in range(1000):
        hits = np.cumsum(generator.permutation(np.arange(items) < total))
        misled += any(not known[n, hits[n - 1]][0] <= total <= known[n, hits[n - 1]][1] for n in checked)
    assert 0 < misled / 1000 <= 0.1
    assert known[300, 12] == (total, total)


@given(small_strata(), st.floats(0.5, 0.95))
def test_more_confidence_widens_and_the_estimate_lies_between(strata: list[Stratum], confidence: float) -> None:
    low, high = bounds(strata, confidence)
    wider = bounds(strata, confidence + 0.04)
    assert wider[0] <= low <= high <= wider[1]
    estimate = estimate_total(strata)
    if estimate is None:
        assert any(part.num_trials == 0 for part in strata)
    elif len(strata) == 1:
        assert low - 1 <= estimate <= high + 1, "the bounds hold the best guess, up to whole numbers"


def test_the_estimate_is_unbiased_over_all_samples() -> None:
    sizes, trials, truth = (4, 6), (2, 3), (3, 1)
    mean = 0.0
    for hits in product(range(3), range(4)):
        chance = math.prod(math.comb(m, k) * math.comb(size - m, n - k) / math.comb(size, n)
                           for size, n, m, k in zip(sizes, trials, truth, hits, strict=True))
        estimate = estimate_total([Stratum(size, n, k) for size, n, k in zip(sizes, trials, hits, strict=True)])
        assert estimate is not None
        mean += chance * estimate
    assert mean == pytest.approx(sum(truth))


def variance(sizes: Sequence[int], rates: Sequence[float], counts: Sequence[int]) -> float:
    return sum(N**2 * p * (1 - p) / n for N, p, n in zip(sizes, rates, counts, strict=True))


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(2, 9), st.floats(0.01, 0.6)), min_size=1, max_size=3), st.data())
def test_the_allocation_has_the_least_variance_of_all(strata: list[tuple[int, float]], data: st.DataObject) -> None:
    sizes, rates = zip(*strata, strict=True)
    num_trials = data.draw(st.integers(len(sizes), sum(sizes)))
    drawn = list(islice(schedule_strata(sizes, rates), num_trials))
    found = [drawn.count(number) for number in range(len(sizes))]
    assume(all(n <= size for n, size in zip(found, sizes, strict=True)))
    every = [counts for counts in product(*(range(1, size + 1) for size in sizes)) if sum(counts) == num_trials]
    assert variance(sizes, rates, found) == pytest.approx(min(variance(sizes, rates, counts) for counts in every))


def test_the_schedule_extends_itself_and_visits_every_item() -> None:
    sizes, rates = (1000, 100, 10), (0.001, 0.01, 0.1)
    order = list(schedule_strata(sizes, rates))
    assert [order.count(number) for number in range(3)] == list(sizes)
    assert sorted(order[:3]) == [0, 1, 2], "every stratum has a label before any has two"
    assert list(islice(schedule_strata(sizes, rates), 50)) == order[:50]
    assert order[:50].count(1) > 5, "the riskier stratum gets more than its share"


def test_bounds_of_one_hundred_million_are_close_to_those_of_independent_trials() -> None:
    items = 100_000_000
    part = Stratum(items, 3120, 0, 0.001 / 8)
    assert anytime_upper_bound([part]) / items == pytest.approx(0.001, rel=0.01)
    assert anytime_lower_bound([part]) == 0
    halves = [Stratum(items // 2, 1560, 0, 0.001 / 8)] * 2
    assert anytime_upper_bound(halves) / items == pytest.approx(anytime_upper_bound([part]) / items, rel=0.1)


@settings(max_examples=25)
@given(st.integers(2, 80), st.floats(0.01, 0.4), st.integers(0, 2))
def test_the_anytime_planner_gives_the_smallest_number_that_is_enough(items: int, claim: float, hits: int) -> None:
    hits = min(hits, items)
    size = required_anytime_trials(claim, items, num_hits=hits, expected_rate=claim / 8)
    enough = [n for n in range(hits, items + 1) if anytime_upper_bound([Stratum(items, n, hits, claim / 8)]) / items <= claim]
    assert size == (min(enough) if enough else None)


def test_looking_all_the_time_costs_few_labels() -> None:
    fixed = [required_trials(0.001, num_hits=hits, num_items=1_000_000) for hits in (0, 1, 2)]
    anytime = [required_anytime_trials(0.001, 1_000_000, num_hits=hits, expected_rate=0.001 / 8) for hits in (0, 1, 2)]
    assert fixed == [2987, 4729, 6274]
    assert anytime == [3120, 7298, 9806]


@pytest.mark.parametrize(("sizes", "rates"), [((), ()), ((0,), (0.1,)), ((2,), (0.0,)), ((2, 3), (0.1,))])
def test_impossible_strata_are_refused(sizes: tuple[int, ...], rates: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="expected as many rates"):
        next(schedule_strata(sizes, rates))


def test_impossible_counts_are_refused() -> None:
    for values in ((3, 4, 0), (3, 2, 3)):
        with pytest.raises(ValueError, match="expected 0 <= hits <= trials"):
            Stratum(*values)
    with pytest.raises(ValueError, match="expected rate is 0"):
        Stratum(3, 2, 1, 0.0)

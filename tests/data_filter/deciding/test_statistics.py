import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.data_filter.deciding.statistics import (
    choose_threshold,
    count_within,
    finite_lower_bound,
    finite_upper_bound,
    hypergeometric_cdf,
    lower_bound,
    required_trials,
    upper_bound,
)

COUNTS = st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
FINITE = st.integers(1, 40).flatmap(lambda N: st.integers(0, N).flatmap(
    lambda n: st.tuples(st.integers(0, n), st.just(n), st.just(N))))


# 0 of 1,024 is the size of GLIDE's own check (arXiv 2112.10741, appendix F); the row follows from the definition.
@pytest.mark.parametrize(("hits", "percent"), [(0, 0.292), (1, 0.462), (2, 0.614), (3, 0.755), (5, 1.024), (10, 1.651)])
def test_upper_bounds_of_1024_trials_are_the_known_ones(hits: int, percent: float) -> None:
    assert round(100 * upper_bound(hits, 1024), 3) == percent


@pytest.mark.parametrize(("hits", "trials", "bound"), [(100, 100, 0.9705), (299, 299, 0.9900), (598, 598, 0.9950), (499, 500, 0.9905)])
def test_lower_bounds_of_recall_are_the_known_ones(hits: int, trials: int, bound: float) -> None:
    assert round(lower_bound(hits, trials), 4) == bound


# Two-sided 95 % Clopper-Pearson limits as tables and R's binom.test print them: 7 of 20, 5 of 10, 0 of 10, 1 of 10.
@pytest.mark.parametrize(("hits", "trials", "low", "high"), [
    (7, 20, 0.1539, 0.5922), (5, 10, 0.1871, 0.8129), (0, 10, 0.0, 0.3085), (1, 10, 0.0025, 0.4450), (81, 263, 0.2527, 0.3676)])
def test_two_sided_limits_are_those_of_published_tables(hits: int, trials: int, low: float, high: float) -> None:
    assert round(lower_bound(hits, trials, confidence=0.975), 4) == low
    assert round(upper_bound(hits, trials, confidence=0.975), 4) == high


def binomial_chance(hits: int, trials: int, share: float) -> float:
    return math.comb(trials, hits) * share**hits * (1 - share) ** (trials - hits)


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))))
def test_at_the_lower_bound_a_result_as_good_has_a_chance_of_five_percent(counts: tuple[int, int]) -> None:
    hits, trials = counts
    share = lower_bound(hits, trials)
    assert sum(binomial_chance(k, trials, share) for k in range(hits, trials + 1)) == pytest.approx(0.05, abs=1e-9)


@given(COUNTS)
def test_the_bounds_mirror_each_other(counts: tuple[int, int]) -> None:
    hits, trials = counts
    assert upper_bound(hits, trials) == pytest.approx(1 - lower_bound(trials - hits, trials), abs=1e-12)


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95, 0.99])
@pytest.mark.parametrize("trials", [1, 2, 5, 9, 14])
def test_both_bounds_cover_every_true_share_at_least_as_often_as_they_say(trials: int, confidence: float) -> None:
    for share in np.linspace(0, 1, 101):
        chances = [binomial_chance(hits, trials, share) for hits in range(trials + 1)]
        below = sum(c for hits, c in enumerate(chances) if upper_bound(hits, trials, confidence=confidence) >= share)
        above = sum(c for hits, c in enumerate(chances) if lower_bound(hits, trials, confidence=confidence) <= share)
        assert min(below, above) >= confidence - 1e-12


@given(COUNTS, st.floats(0.5, 0.98))
def test_bounds_widen_with_confidence_and_hits_and_tighten_with_trials(counts: tuple[int, int], confidence: float) -> None:
    hits, trials = counts
    bound = upper_bound(hits, trials, confidence=confidence)
    assert upper_bound(hits, trials, confidence=confidence + 0.01) >= bound >= hits / trials
    assert upper_bound(hits + 1, trials + 1, confidence=confidence) >= bound >= upper_bound(hits, trials + 1, confidence=confidence)


def exact_cdf(hits: int, trials: int, total: int, items: int) -> Fraction:
    return sum((Fraction(math.comb(total, x) * math.comb(items - total, trials - x), math.comb(items, trials))
                for x in range(hits + 1) if x <= trials), Fraction(0))


@given(FINITE, st.data())
def test_the_hypergeometric_chance_is_the_counted_one(counts: tuple[int, int, int], data: st.DataObject) -> None:
    hits, trials, items = counts
    total = data.draw(st.integers(0, items))
    assert hypergeometric_cdf(hits, trials, total, items) == pytest.approx(float(exact_cdf(hits, trials, total, items)), rel=1e-11, abs=1e-14)


def test_the_hypergeometric_chance_keeps_its_digits_in_a_hundred_million() -> None:
    found = hypergeometric_cdf(2, 3000, 100_000, 100_000_000)
    assert found == pytest.approx(float(exact_cdf(2, 3000, 100_000, 100_000_000)), rel=1e-12)
    assert hypergeometric_cdf(0, 10, 10**8, 10**8) == 0.0


@given(FINITE, st.sampled_from([0.5, 0.9, 0.95]))
def test_finite_bounds_are_the_ends_of_what_the_definition_allows(counts: tuple[int, int, int], confidence: float) -> None:
    hits, trials, items = counts
    error = 1 - Fraction(confidence)
    allowed = [total for total in range(hits, items - trials + hits + 1) if exact_cdf(hits, trials, total, items) > error]
    assert finite_upper_bound(hits, trials, items, confidence=confidence) == max(allowed)
    from_below = [total for total in range(hits, items - trials + hits + 1)
                  if 1 - exact_cdf(hits - 1, trials, total, items) > error]
    assert finite_lower_bound(hits, trials, items, confidence=confidence) == min(from_below)


@pytest.mark.parametrize("confidence", [0.6, 0.9, 0.95])
@pytest.mark.parametrize(("items", "trials"), [(6, 3), (11, 5), (18, 17), (20, 8), (7, 7), (5, 0)])
def test_finite_bounds_cover_every_population_at_least_as_often_as_they_say(items: int, trials: int, confidence: float) -> None:
    for total in range(items + 1):
        chance = below = above = Fraction(0)
        for hits in range(trials + 1):
            chance = Fraction(math.comb(total, hits) * math.comb(items - total, trials - hits), math.comb(items, trials))
            below += chance * (chance > 0 and finite_upper_bound(hits, trials, items, confidence=confidence) >= total)
            above += chance * (chance > 0 and finite_lower_bound(hits, trials, items, confidence=confidence) <= total)
        assert min(below, above) >= confidence - 1e-12


def test_a_census_knows_and_a_large_population_is_like_independent_trials() -> None:
    assert finite_upper_bound(3, 50, 50) == finite_lower_bound(3, 50, 50) == 3
    assert (finite_upper_bound(0, 0, 9), finite_lower_bound(0, 0, 9)) == (9, 0)
    assert finite_upper_bound(2, 1000, 10**7) / 10**7 == pytest.approx(upper_bound(2, 1000), rel=1e-3)
    assert finite_upper_bound(0, 1024, 2000) / 2000 < 0.75 * upper_bound(0, 1024)


# Zero-hit sizes ln(0.05) / ln(1 - p), the exact form of the "rule of three" (Hanley and Lippman-Hand, JAMA 249, 1983).
@pytest.mark.parametrize(("claim", "size"), [(0.01, 299), (0.005, 598), (0.001, 2995), (0.0001, 29_956), (0.00001, 299_572)])
def test_the_planner_gives_the_known_sizes_without_a_hit(claim: float, size: int) -> None:
    assert required_trials(claim) == size == math.ceil(math.log(0.05) / math.log1p(-claim))


@given(st.floats(0.005, 0.5), st.integers(0, 4), st.sampled_from([0.8, 0.95]))
def test_the_planner_gives_the_smallest_number_that_is_enough(claim: float, hits: int, confidence: float) -> None:
    size = required_trials(claim, num_hits=hits, confidence=confidence)
    assert size is not None and upper_bound(hits, size, confidence=confidence) <= claim
    assert size == hits or upper_bound(hits, size - 1, confidence=confidence) > claim


@given(st.floats(0.01, 0.6), st.integers(0, 3), st.integers(1, 300))
def test_the_finite_planner_gives_the_smallest_number_that_is_enough(claim: float, hits: int, items: int) -> None:
    hits = min(hits, items)
    size = required_trials(claim, num_hits=hits, num_items=items)
    enough = [n for n in range(hits, items + 1) if finite_upper_bound(hits, n, items) / items <= claim]
    assert size == (min(enough) if enough else None)


def exact_size(allowed: int, items: int) -> int:
    """The smallest sample that holds one of `allowed + 1` hits with a chance of at least 95 %."""
    return next(n for n in range(items + 1) if exact_cdf(0, n, allowed + 1, items) <= Fraction(1, 20))


def test_more_hits_and_smaller_claims_need_more_labels_and_a_small_population_needs_fewer() -> None:
    sizes = [required_trials(0.001, num_hits=hits) for hits in range(4)]
    assert sizes[0] == 2995 and all(a < b for a, b in pairwise(sizes))  # type: ignore[operator, type-var]  # none is None
    assert required_trials(0.005, num_items=800) == exact_size(4, 800) < required_trials(0.005)  # type: ignore[operator]  # neither is None
    assert required_trials(0.0001, num_items=5000) == 4751, "the one hit that would refute the claim is among more than 95 % of all"
    assert required_trials(0.0001, num_hits=1, num_items=5000) is None


@given(st.integers(1, 500), st.integers(0, 500))
def test_a_count_lies_within_its_own_share(items: int, count: int) -> None:
    count = min(count, items)
    assert count_within(count / items, items) == count
    assert count_within(math.nextafter(count / items, -1), items) == count - 1 or count == 0


def test_the_threshold_is_the_conformal_quantile() -> None:
    scores = np.arange(1, 200, dtype=np.float64)  # 199 positives: floor(0.01 * 200) = 2
    assert choose_threshold(scores, 0.99) == 2.0
    assert choose_threshold(scores[:198], 0.99) == 1.0
    assert choose_threshold([3.0, 1.0, 2.0], 0.99) == 1.0, "too few positives: all of them are caught"


def test_positives_that_another_judge_catches_lower_what_the_classifier_must_catch() -> None:
    scores = np.arange(1, 200, dtype=np.float64)
    assert choose_threshold(np.where(scores <= 3, np.inf, scores), 0.99) == 5.0
    assert choose_threshold([1.0, 2.0, np.inf, np.inf], 0.2) == 2.0, "an infinite quantile gives way to the largest finite score"


def test_the_threshold_reaches_its_target_on_average() -> None:
    generator = np.random.default_rng(0)
    caught = [(generator.normal(size=400) >= choose_threshold(generator.normal(size=150), 0.95)).mean() for _ in range(400)]
    assert 0.95 <= np.mean(caught) < 0.965


def test_a_threshold_needs_finite_positives() -> None:
    for scores in ([], [1.0, float("nan")], [-float("inf"), 1.0], [float("inf")]):
        with pytest.raises(ValueError, match="a threshold needs finite scores"):
            choose_threshold(scores, 0.99)


def test_nothing_proves_nothing_and_impossible_counts_are_refused() -> None:
    assert (lower_bound(0, 0), upper_bound(0, 0)) == (0.0, 1.0)
    for bound in (lower_bound, upper_bound):
        with pytest.raises(ValueError, match="3 hits of 2 trials"):
            bound(3, 2)
        with pytest.raises(ValueError, match="confidence is 1"):
            bound(1, 2, confidence=1)
    with pytest.raises(ValueError, match="5 hits of 4 trials"):
        finite_upper_bound(0, 5, 4)
    for claim in (0.0, 1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="the claimed share is"):
            required_trials(claim)
    with pytest.raises(ValueError, match=r"more than 10\^12 labels"):
        required_trials(1e-14)

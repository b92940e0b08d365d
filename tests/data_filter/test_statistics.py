import math

import pytest
from glideslope.data_filter.statistics import lower_bound, upper_bound
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(("hits", "percent"), [(0, 0.292), (1, 0.462), (2, 0.614), (3, 0.755), (5, 1.024), (10, 1.651)])
def test_upper_bounds_of_1024_trials_are_the_published_ones(hits: int, percent: float) -> None:
    assert round(100 * upper_bound(hits, 1024), 3) == percent


@pytest.mark.parametrize(("hits", "trials", "bound"), [(100, 100, 0.9705), (299, 299, 0.9900), (598, 598, 0.9950), (499, 500, 0.9905)])
def test_lower_bounds_of_recall_are_the_published_ones(hits: int, trials: int, bound: float) -> None:
    assert round(lower_bound(hits, trials), 4) == bound


def binomial_tail(hits: int, trials: int, share: float) -> float:
    return sum(math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(hits, trials + 1))


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))))
def test_at_the_lower_bound_a_result_as_good_has_a_chance_of_five_percent(counts: tuple[int, int]) -> None:
    hits, trials = counts
    assert binomial_tail(hits, trials, lower_bound(hits, trials)) == pytest.approx(0.05, abs=1e-9)


@given(st.integers(0, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_bounds_mirror_each_other(counts: tuple[int, int]) -> None:
    hits, trials = counts
    assert upper_bound(hits, trials) == pytest.approx(1 - lower_bound(trials - hits, trials), abs=1e-12)


def test_nothing_proves_nothing_and_impossible_counts_are_refused() -> None:
    assert (lower_bound(0, 0), upper_bound(0, 0)) == (0.0, 1.0)
    for bound in (lower_bound, upper_bound):
        with pytest.raises(ValueError, match="3 hits of 2 trials"):
            bound(3, 2)

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from glideslope.data_filter.reports.ratios import compare_shares, compare_with_all


@pytest.mark.parametrize(("trials", "other_trials", "p", "q"), [(12, 12, 0.1, 0.1), (8, 20, 0.5, 0.2), (20, 8, 0.05, 0.3), (5, 25, 0.9, 0.95)])
def test_the_interval_holds_the_true_ratio_in_at_least_95_of_100_draws(trials: int, other_trials: int, p: float, q: float) -> None:
    covered = 0.0
    for hits in range(trials + 1):
        for other in range(other_trials + 1):
            found = compare_shares(hits, trials, other, other_trials)
            if found.lower_bound <= p / q and (found.upper_bound is None or p / q <= found.upper_bound):
                covered += binom.pmf(hits, trials, p) * binom.pmf(other, other_trials, q)
    assert covered >= 0.95


@given(st.integers(0, 30), st.integers(1, 30), st.integers(0, 30), st.integers(1, 30))
def test_the_interval_holds_the_ratio_that_was_seen(hits: int, misses: int, other: int, other_misses: int) -> None:
    found = compare_shares(hits, hits + misses, other, other + other_misses)
    assert found.lower_bound >= 0
    if found.value is None:
        assert other == 0 and found.upper_bound is None
    else:
        assert found.lower_bound <= found.value
        assert found.upper_bound is None or found.value <= found.upper_bound


@given(st.integers(0, 30), st.integers(1, 30), st.integers(0, 60), st.integers(1, 60))
def test_a_group_is_compared_with_everybody_as_with_the_others(hits: int, misses: int, other: int, other_misses: int) -> None:
    trials, all_trials = hits + misses, hits + misses + other + other_misses
    found = compare_with_all(hits, trials, hits + other, all_trials)
    against_others = compare_shares(hits, trials, other, other + other_misses)
    assert found.upper_bound is not None
    assert (found.lower_bound > 1) == (against_others.lower_bound > 1)
    if hits + other:
        assert found.value == pytest.approx(hits / trials / ((hits + other) / all_trials))
        assert found.lower_bound - 1e-12 <= found.value <= found.upper_bound + 1e-12


def test_a_group_of_everybody_does_not_differ_from_everybody() -> None:
    assert compare_with_all(3, 10, 3, 10).value == 1
    assert compare_with_all(3, 10, 3, 10).upper_bound == 1


def test_more_data_narrow_the_interval() -> None:
    few, many = compare_shares(3, 10, 2, 10), compare_shares(300, 1000, 200, 1000)
    assert few.lower_bound < many.lower_bound < 1.5 < (many.upper_bound or 0) < (few.upper_bound or 99)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="4 hits of 3 trials"):
        compare_shares(4, 3, 1, 2)

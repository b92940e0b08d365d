import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import nchypergeom_fisher

from glideslope.data_filter.audits.double_labels import DoubleLabels, correct_share, estimate_missed, find_first, overlap_distribution
from glideslope.data_filter.deciding.statistics import upper_bound

SMALL = st.integers(0, 12)


def test_the_estimate_is_chapmans_on_the_textbook_example() -> None:
    """10 turtles marked, 15 caught later, 5 of them marked: Chapman gives 28.3 turtles, 8.3 of which nobody saw."""
    found = estimate_missed(5, 5, 10)
    assert found.num_found == 20
    assert found.estimate == pytest.approx(11 * 16 / 6 - 1 - 20)
    assert found.lower_bound < found.estimate < found.upper_bound
    assert "as often whether or not" in found.assumption


@given(SMALL, SMALL, SMALL, st.sampled_from([0.5, 1.0, 3.0]))
def test_the_distribution_of_the_overlap_is_fishers(both: int, first: int, second: int, odds: float) -> None:
    items = both + first + second + 3
    found = overlap_distribution(both + first, both + second, items, odds)
    least = max(0, both + first + both + second - items)
    expected = nchypergeom_fisher(items, both + first, both + second, odds).pmf(np.arange(least, least + len(found)))
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("odds", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("confidence", [0.6, 0.9])
def test_both_bounds_cover_the_truth_at_least_as_often_as_they_say(odds: float, confidence: float) -> None:
    for items, first, second in product((1, 5, 9, 14), range(0, 10, 2), range(1, 10, 2)):
        if max(first, second) > items:
            continue
        chances = overlap_distribution(first, second, items, odds)
        below = above = 0.0
        for both, chance in enumerate(chances, start=max(0, first + second - items)):
            found = estimate_missed(both, first - both, second - both, odds_ratio=odds, confidence=confidence)
            missed = items - found.num_found
            below += chance * (found.upper_bound >= missed)
            above += chance * (found.lower_bound <= missed)
        assert min(below, above) >= confidence - 1e-9


@settings(max_examples=20)
@given(SMALL, SMALL, SMALL, st.floats(0.2, 5), st.floats(1.05, 3))
def test_the_detectors_are_exchangeable_and_dependence_hides_more(both: int, first: int, second: int, odds: float, factor: float) -> None:
    one, other = estimate_missed(both, first, second, odds_ratio=odds), estimate_missed(both, second, first, odds_ratio=odds)
    assert (one.lower_bound, one.upper_bound) == (other.lower_bound, other.upper_bound)
    assert one.estimate == pytest.approx(other.estimate)
    dependent = estimate_missed(both, first, second, odds_ratio=odds * factor)
    assert dependent.estimate >= one.estimate
    assert dependent.upper_bound >= one.upper_bound and dependent.lower_bound >= one.lower_bound


def test_without_an_overlap_nothing_bounds_what_both_missed() -> None:
    assert estimate_missed(0, 4, 3).upper_bound == math.inf
    assert estimate_missed(0, 0, 0).upper_bound == math.inf
    found = estimate_missed(40, 0, 0)
    assert (found.estimate, found.lower_bound, found.upper_bound) == (0, 0, 0), "each found all that the other found"


@pytest.mark.parametrize("arguments", [(-1, 0, 0), (0, -1, 0), (0, 0, -1)])
def test_impossible_counts_are_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="expected 0 <= hits"):
        estimate_missed(*arguments)
    with pytest.raises(ValueError, match="expected 0 <= hits"):
        DoubleLabels(*arguments)
    for odds in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="odds ratio is"):
            estimate_missed(1, 1, 1, odds_ratio=odds)


def test_the_first_number_that_reaches_a_condition_is_found() -> None:
    for first in (0, 1, 2, 3, 17, 1000):
        assert find_first(lambda number, first=first: number >= first) == first  # type: ignore[misc]
    assert find_first(lambda number: False) == math.inf


@given(st.floats(0, 1), st.floats(0.51, 1), st.floats(0.51, 1))
def test_correcting_a_share_undoes_what_imperfect_labels_did(share: float, sensitivity: float, specificity: float) -> None:
    labelled = share * sensitivity + (1 - share) * (1 - specificity)
    assert correct_share(labelled, sensitivity, specificity) == pytest.approx(share, abs=1e-9)


def test_corrected_shares_stay_shares_and_worthless_labels_are_refused() -> None:
    assert correct_share(0.0, 0.9, 0.9) == 0.0 and correct_share(1.0, 0.9, 0.9) == 1.0
    with pytest.raises(ValueError, match="adding up to more than 1"):
        correct_share(0.5, 0.5, 0.5)


def test_double_labels_are_counted_and_kappa_is_scotts() -> None:
    pairs = [(1, 1)] * 20 + [(0, 1)] * 6 + [(1, 0)] * 4 + [(0, 0)] * 70
    labels = DoubleLabels.of_pairs(pairs)
    assert (labels.num_both_positive, labels.num_split, labels.num_both_negative, labels.num_items) == (20, 10, 70, 100)
    assert labels.kappa == pytest.approx((0.9 - (0.25**2 + 0.75**2)) / (1 - (0.25**2 + 0.75**2)))
    assert DoubleLabels(0, 0, 5).kappa is None and DoubleLabels(0, 0, 0).kappa is None
    assert DoubleLabels(5, 0, 5).kappa == 1


def test_the_sensitivity_is_the_harmonic_mean_of_the_two_peoples() -> None:
    s, t, positives = 0.9, 0.6, 10_000
    labels = DoubleLabels(round(positives * s * t), round(positives * (s + t - 2 * s * t)), 0)
    assert labels.sensitivity == pytest.approx(2 / (1 / s + 1 / t), abs=1e-3)
    assert DoubleLabels(0, 0, 9).sensitivity is None and DoubleLabels(0, 0, 9).sensitivity_lower_bound() == 0


@pytest.mark.parametrize(("sensitivity", "positives"), [(0.5, 10), (0.8, 15), (0.95, 20)])
def test_the_bound_of_the_sensitivity_covers_it_at_least_as_often_as_it_says(sensitivity: float, positives: int) -> None:
    both, split = sensitivity**2, 2 * sensitivity * (1 - sensitivity)
    covered = 0.0
    for b in range(positives + 1):
        for d in range(positives - b + 1):
            chance = math.comb(positives, b) * math.comb(positives - b, d) * both**b * split**d * (1 - both - split) ** (positives - b - d)
            covered += chance * (DoubleLabels(b, d, 0).sensitivity_lower_bound() <= sensitivity)
    assert covered >= 0.95 - 1e-9


def test_the_bound_of_the_error_rate_solves_the_rate_of_disagreement() -> None:
    labels = DoubleLabels(10, 5, 85)
    error = labels.error_rate_upper_bound()
    assert 2 * error * (1 - error) == pytest.approx(upper_bound(5, 100))
    assert DoubleLabels(0, 0, 0).error_rate_upper_bound() == 0.5


@given(st.integers(0, 30), st.integers(0, 10), st.integers(0, 3))
def test_imperfect_labels_can_only_widen_a_bound(both: int, split: int, hits: int) -> None:
    labels = DoubleLabels(both, split, 100)
    assert labels.corrected_upper_bound(hits, 500) >= upper_bound(hits, 500, confidence=0.975)
    assert labels.corrected_upper_bound(hits, 500, confidence=0.99) >= labels.corrected_upper_bound(hits, 500)
    if both == 0:
        assert labels.corrected_upper_bound(hits, 500) == 1.0, "nothing is known about how much people miss"

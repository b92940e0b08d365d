import math

import pytest

from glideslope.data_filter.audits.double_labels import DoubleLabels


@pytest.mark.parametrize("arguments", [(-1, 0, 0), (0, -1, 0), (0, 0, -1)])
def test_impossible_counts_are_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="expected 0 <= hits"):
        DoubleLabels(*arguments)


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

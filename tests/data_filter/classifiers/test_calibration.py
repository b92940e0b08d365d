import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.data_filter.classifiers.calibration import Calibration, fit_calibration, measure_reliability


def drawn(slope: float, offset: float, num: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and labels whose log odds are `slope * score + offset`."""
    generator = np.random.default_rng(0)
    scores = generator.normal(2, 3, num)
    return scores, (generator.random(num) < 1 / (1 + np.exp(-(slope * scores + offset)))).astype(int)


@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (0.3, -2.0), (5.0, 4.0)])
def test_the_sigmoid_that_labels_were_drawn_from_is_found(slope: float, offset: float) -> None:
    scores, labels = drawn(slope, offset)
    found = fit_calibration(scores, labels)
    assert found.slope == pytest.approx(slope, rel=0.1) and found.offset == pytest.approx(offset, rel=0.1, abs=0.1)
    figures = measure_reliability(found.probability(scores), labels)
    assert figures["brier"] < figures["brier_of_constant"]
    for row in figures["bins"]:
        spread = 4 * (0.25 / row["num"]) ** 0.5 + 0.02
        assert abs(row["mean_probability"] - row["positive_share"]) < spread


@given(st.lists(st.tuples(st.floats(-5, 5, width=32), st.integers(0, 1)), min_size=2, max_size=60))
def test_a_higher_score_never_has_a_lower_probability(pairs: list[tuple[float, int]]) -> None:
    scores, labels = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    if len(set(labels)) < 2:
        with pytest.raises(ValueError, match="calibration needs both labels"):
            fit_calibration(scores, labels)
        return
    probability = fit_calibration(scores, labels).probability(np.sort(scores))
    assert (np.diff(probability) >= 0).all() and (probability >= 0).all() and (probability <= 1).all()


def test_scores_that_rank_the_wrong_way_say_nothing() -> None:
    scores = np.array([3.0, 2.0, -1.0, -2.0])
    found = fit_calibration(scores, np.array([0, 0, 1, 1]))
    assert found.slope == pytest.approx(0, abs=1e-6) and found.probability(scores) == pytest.approx(0.5, abs=0.01)


def test_positives_may_be_weighed_as_if_they_were_rarer() -> None:
    scores, labels = drawn(1.0, 0.0)
    mean = fit_calibration(scores, labels, positive_share=0.01).probability(scores)
    weights = np.where(labels == 1, 0.01 / labels.mean(), 0.99 / (1 - labels.mean()))
    assert np.average(mean, weights=weights) == pytest.approx(0.01, rel=0.02)


def test_reliability_is_counted_by_hand() -> None:
    found = measure_reliability(np.array([0.05, 0.05, 0.95, 1.0]), np.array([0, 1, 1, 1]))
    assert found["brier"] == pytest.approx((0.0025 + 0.9025 + 0.0025) / 4)
    assert found["brier_of_constant"] == pytest.approx(0.75 * 0.25)
    assert [(row["from"], row["num"], row["positive_share"]) for row in found["bins"]] == [(0.0, 2, 0.5), (0.9, 2, 1.0)]
    assert measure_reliability(np.zeros(0), np.zeros(0)) == {"num": 0, "brier": None, "brier_of_constant": None, "bins": []}
    json.dumps(found, allow_nan=False)


def test_the_two_numbers_are_stored() -> None:
    assert Calibration(2.0, -1.0).to_json() == {"method": "platt", "slope": 2.0, "offset": -1.0}

"""From scores to probabilities: Platt's sigmoid, which keeps their order, and how far one can trust it.

Platt, Probabilistic outputs for support vector machines (1999), fitted as Lin, Lin and Weng (Machine Learning 68, 2007)
advise: the log loss is convex in slope and offset, targets are drawn in from 0 and 1.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_BINS = 10


@dataclass(frozen=True)
class Calibration:
    """probability = 1 / (1 + exp(-(slope * score + offset))); the slope is never negative, so the order stays."""

    slope: float
    offset: float

    def log_odds(self, scores: NDArray[Any]) -> NDArray[np.float64]:
        """slope * score + offset: float64 (N,)."""
        return np.asarray(self.slope * np.asarray(scores, dtype=np.float64) + self.offset)

    def probability(self, scores: NDArray[Any]) -> NDArray[np.float32]:
        """The probability that an image of such a score counts as the category: float32 (N,)."""
        from scipy.special import expit

        return np.asarray(expit(self.log_odds(scores)), dtype=np.float32)

    def to_json(self) -> dict[str, Any]:
        """The two numbers, as plain data."""
        return {"method": "platt", "slope": self.slope, "offset": self.offset}


def fit_calibration(scores: NDArray[Any], labels: NDArray[Any], *, positive_share: float | None = None) -> Calibration:
    """Fit the sigmoid.

    Args:
        scores: (N,), of examples that the classifier was not fitted to.
        labels: (N,), 1 or 0; both must occur.
        positive_share: weigh the examples as if positives had this share; None: as they are.

    Returns:
        The calibration; with scores that rank positives below negatives the slope is 0, a constant probability.

    Raises:
        ValueError: a label does not occur.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    score, positive = np.asarray(scores, dtype=np.float64), np.asarray(labels) == 1
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    if not num_positive or not num_negative:
        raise ValueError(f"calibration needs both labels, got {num_positive} positive and {num_negative} negative")
    target = np.where(positive, (num_positive + 1) / (num_positive + 2), 1 / (num_negative + 2))
    share = num_positive / len(score) if positive_share is None else positive_share
    weight = np.where(positive, share / num_positive, (1 - share) / num_negative)
    middle, spread = float(score.mean()), float(score.std()) or 1.0
    scaled = (score - middle) / spread

    def loss(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        odds = values[0] * scaled + values[1]
        error = weight * (expit(odds) - target)
        return float(weight @ (np.logaddexp(0, odds) - target * odds)), np.array([error @ scaled, error.sum()])

    start = np.array([1.0, np.log(share / (1 - share))])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)]).x
    slope = float(found[0]) / spread
    return Calibration(slope, float(found[1]) - slope * middle)


def measure_reliability(probabilities: NDArray[Any], labels: NDArray[Any]) -> dict[str, Any]:
    """How well probabilities fit labels that they were not fitted to.

    Args:
        probabilities: (N,), in [0, 1].
        labels: (N,), 1 or 0.

    Returns:
        num: N; brier: mean squared error, null for N = 0; brier_of_constant: the same for their mean label, to compare with;
        bins: one row per tenth of [0, 1] that holds any, with num, mean_probability and positive_share.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    place = np.minimum((p * NUM_BINS).astype(int), NUM_BINS - 1)
    bins = [{"from": n / NUM_BINS, "to": (n + 1) / NUM_BINS, "num": int((place == n).sum()),
             "mean_probability": float(p[place == n].mean()), "positive_share": float(y[place == n].mean())}
            for n in range(NUM_BINS) if (place == n).any()]
    return {"num": len(p), "brier": float(((p - y) ** 2).mean()) if len(p) else None,
            "brier_of_constant": float(y.mean() * (1 - y.mean())) if len(p) else None, "bins": bins}

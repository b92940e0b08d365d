"""What a second opinion tells: how many both detectors missed, and how far labels can be trusted.

Two opinions say something about what neither saw only under an assumption about how they depend on each other; every
function here names its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from ..deciding.statistics import CONFIDENCE, check_counts, lower_bound, upper_bound

MAX_MISSED = 10**12


@dataclass(frozen=True)
class Missed:
    """How many positives neither of two detectors found.

    Attributes:
        num_found: positives that at least one found.
        estimate: of those that neither found.
        lower_bound, upper_bound: exact one-sided bounds at the asked confidence each; inf where the data bound nothing.
        assumption: under which this holds, in a sentence.
    """

    num_found: int
    estimate: float
    lower_bound: int
    upper_bound: float
    assumption: str


def estimate_missed(num_both: int, num_first_only: int, num_second_only: int, *, odds_ratio: float = 1.0,
                    confidence: float = CONFIDENCE) -> Missed:
    """Capture-recapture: how many positives two detectors both missed, from what each of them found.

    The estimate is Chapman's (University of California Publications in Statistics 1, 1951), times the odds ratio; it is
    nearly unbiased when the detectors are independent and find enough. The bounds invert the chance of the overlap,
    given what each found, under Fisher's noncentral hypergeometric distribution; they hold at any size.

    Args:
        num_both: positives that both found.
        num_first_only, num_second_only: positives that only one found.
        odds_ratio: odds of the second finding a positive that the first found, over its odds for one that the first
            missed. 1: independent. Above 1: both tend to miss the same ones, so that more are missed than independence says.
        confidence: of each one-sided bound.

    Raises:
        ValueError: a negative count, an odds ratio that is not above 0, or a confidence that is no probability.
    """
    for count in (num_both, num_first_only, num_second_only):
        check_counts(0, count, confidence)
    if not 0 < odds_ratio < inf:
        raise ValueError(f"odds ratio is {odds_ratio}, expected a finite number above 0")
    first, second = num_both + num_first_only, num_both + num_second_only
    found, error = num_both + num_first_only + num_second_only, 1 - confidence

    def overlap_chances(missed: int) -> tuple[float, float]:
        """Chance of an overlap as small as the observed one, and of one as large."""
        weights = overlap_distribution(first, second, found + missed, odds_ratio)
        place = num_both - max(0, first + second - found - missed)
        return float(weights[:place + 1].sum()), float(weights[place:].sum())

    # The more were missed, the smaller the overlap has to be: a large observed overlap speaks against many missed.
    fewest = find_first(lambda missed: overlap_chances(missed)[0] > error)
    beyond = find_first(lambda missed: overlap_chances(missed)[1] <= error)
    assumption = ("given what it is, one detector finds a positive " + ("as often whether or not the other finds it" if odds_ratio == 1 else
                  f"with odds {odds_ratio:g} times as high when the other finds it"))
    return Missed(found, odds_ratio * num_first_only * num_second_only / (num_both + 1), int(fewest),
                  beyond - 1 if beyond < inf else inf, assumption)


def overlap_distribution(first: int, second: int, num_items: int, odds_ratio: float) -> NDArray[np.float64]:
    """Chances of each possible overlap of two sets of these sizes among all items, the smallest overlap first."""
    least = max(0, first + second - num_items)
    overlap = np.arange(least, min(first, second), dtype=np.float64)
    ratios = (first - overlap) * (second - overlap) / ((overlap + 1) * (num_items - first - second + overlap + 1))
    logs = np.concatenate([[0.0], np.cumsum(np.log(odds_ratio * ratios))])
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def find_first(is_reached: Callable[[int], bool]) -> float:
    """The smallest number from 0 for which a rising condition is true; inf where it is not within 10^12."""
    low, high = 0, 1
    if is_reached(0):
        return 0
    while not is_reached(high):
        low, high = high, 2 * high
        if high > MAX_MISSED:
            return inf
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_reached(middle) else (middle, high)
    return high


def correct_share(share: float, sensitivity: float, specificity: float) -> float:
    """The true share of positives behind a share that imperfect labels state (Rogan and Gladen, Am J Epidemiol 107, 1978).

    Args:
        share: of items labelled positive.
        sensitivity: chance that a positive is labelled so.
        specificity: chance that a negative is labelled so.

    Raises:
        ValueError: no probabilities, or labels that are no better than chance.
    """
    if not all(0 <= value <= 1 for value in (share, sensitivity, specificity)) or sensitivity + specificity <= 1:
        raise ValueError(f"share {share}, sensitivity {sensitivity}, specificity {specificity}: expected probabilities, "
                         "the last two adding up to more than 1")
    return min(1.0, max(0.0, (share + specificity - 1) / (sensitivity + specificity - 1)))


@dataclass(frozen=True)
class DoubleLabels:
    """Items that two people judged without knowing of each other.

    Attributes:
        num_both_positive, num_split, num_both_negative: items by what the two said.
    """

    num_both_positive: int
    num_split: int
    num_both_negative: int

    def __post_init__(self) -> None:
        """Refuse counts that cannot be."""
        for count in (self.num_both_positive, self.num_split, self.num_both_negative):
            check_counts(0, count)

    @classmethod
    def of_pairs(cls, pairs: Sequence[tuple[int, int]]) -> "DoubleLabels":
        """Count pairs of labels, each 0 or 1."""
        sums = [first + second for first, second in pairs]
        return cls(sums.count(2), sums.count(1), sums.count(0))

    @property
    def num_items(self) -> int:
        """How many items both judged."""
        return self.num_both_positive + self.num_split + self.num_both_negative

    @property
    def kappa(self) -> float | None:
        """Agreement beyond chance for two people who say "positive" equally often (Scott's pi, Public Opinion Quarterly 19, 1955).

        None where all labels are equal, when there is no chance to disagree.
        """
        if not self.num_items:
            return None
        share = (2 * self.num_both_positive + self.num_split) / (2 * self.num_items)
        expected = share**2 + (1 - share) ** 2
        return (1 - self.num_split / self.num_items - expected) / (1 - expected) if expected < 1 else None

    @property
    def sensitivity(self) -> float | None:
        """Chance that one person sees a positive, the harmonic mean of the two; None where nobody saw any.

        Assumes that the two miss positives independently and that nobody calls a negative positive. With sensitivities s and t a
        positive that anybody saw was seen by both with the chance s t / (s + t - s t), which gives their harmonic mean.
        False positives make it too low, never too high; positives that are hard for everybody make it too high.
        """
        seen = self.num_both_positive + self.num_split
        return 2 * self.num_both_positive / (seen + self.num_both_positive) if seen else None

    def sensitivity_lower_bound(self, *, confidence: float = CONFIDENCE) -> float:
        """Exact lower bound of `sensitivity` under the same assumption; 0 where nobody saw a positive."""
        both = lower_bound(self.num_both_positive, self.num_both_positive + self.num_split, confidence=confidence)
        return 2 * both / (1 + both)

    def error_rate_upper_bound(self, *, confidence: float = CONFIDENCE) -> float:
        """Most that one label in how many may be wrong, if wrong labels are as likely on positives as on negatives and independent.

        People disagree on a share 2 e (1 - e) of items when each is wrong with the chance e; 0.5 where the data bound nothing.
        """
        split = upper_bound(self.num_split, self.num_items, confidence=confidence)
        return 0.5 if split >= 0.5 else float((1 - (1 - 2 * split) ** 0.5) / 2)

    def corrected_upper_bound(self, num_hits: int, num_trials: int, *, confidence: float = CONFIDENCE) -> float:
        """Upper bound of the true share of positives when each of `num_trials` independent items has one person's label.

        Joins the exact bound on the labelled share with `sensitivity_lower_bound`, half of the allowed error each
        (Bonferroni), in Rogan and Gladen's formula with specificity 1, for which the true share is largest.

        Args:
            num_hits: items labelled positive.
            num_trials: labelled items; they may be the double ones too.
            confidence: of the statement, under the assumption of `sensitivity`.
        """
        half = (1 + confidence) / 2
        sensitivity = self.sensitivity_lower_bound(confidence=half)
        share = upper_bound(num_hits, num_trials, confidence=half)
        return min(1.0, share / sensitivity) if sensitivity > 0 else 1.0

"""Exact one-sided bounds on shares, how many labels they need, and thresholds with a guarantee.

Independent trials: Clopper and Pearson, Biometrika 26 (1934), 404-413. Trials drawn without replacement from so many
items: the hypergeometric counterpart (Konijn, Statistical Theory of Sample Survey Design and Analysis, 1973; Wang,
JASA 110 (2015), 1435-1444, calls it the exact one-sided limit for the number of defectives). Both hold whatever the truth.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from math import floor

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

MAX_TRIALS = 2**40
CONFIDENCE = 0.95


def lower_bound(num_hits: int, num_trials: int, *, confidence: float = CONFIDENCE) -> float:
    """The largest share p0 of which one can say, with this confidence, that the true share is at least p0.

    Args:
        num_hits: trials that succeeded.
        num_trials: independent trials; 0 proves nothing and gives 0.
        confidence: of the one-sided statement.

    Raises:
        ValueError: not 0 <= num_hits <= num_trials, or a confidence that is no probability.
    """
    check_counts(num_hits, num_trials, confidence)
    if num_hits == 0:
        return 0.0
    return float(beta.ppf(1 - confidence, num_hits, num_trials - num_hits + 1))


def upper_bound(num_hits: int, num_trials: int, *, confidence: float = CONFIDENCE) -> float:
    """The smallest share p1 of which one can say, with this confidence, that the true share is at most p1.

    0 of 1,024 gives 0.00292. 0 trials prove nothing and give 1. See `lower_bound`.
    """
    check_counts(num_hits, num_trials, confidence)
    if num_hits == num_trials:
        return 1.0
    return float(beta.ppf(confidence, num_hits + 1, num_trials - num_hits))


def finite_upper_bound(num_hits: int, num_trials: int, num_items: int, *, confidence: float = CONFIDENCE) -> int:
    """The most hits that may be among all items, with this confidence, after some were drawn at random without replacement.

    Args:
        num_hits: hits among the drawn.
        num_trials: items drawn; their number was fixed beforehand.
        num_items: all items, the drawn ones included.
        confidence: of the one-sided statement.

    Returns:
        The largest number of hits among all items at which a sample with so few of them still has a chance of more
        than 1 - confidence. Everything drawn gives the number of hits itself.

    Raises:
        ValueError: not 0 <= num_hits <= num_trials <= num_items, or a confidence that is no probability.
    """
    check_counts(num_hits, num_trials, confidence)
    check_counts(num_trials, num_items, confidence)
    more = range(num_hits + 1, num_items - num_trials + num_hits + 1)
    return num_hits + bisect_left(more, True, key=lambda total: hypergeometric_cdf(num_hits, num_trials, total, num_items) <= 1 - confidence)


def finite_lower_bound(num_hits: int, num_trials: int, num_items: int, *, confidence: float = CONFIDENCE) -> int:
    """The fewest hits that must be among all items, with this confidence; see `finite_upper_bound`."""
    return num_items - finite_upper_bound(num_trials - num_hits, num_trials, num_items, confidence=confidence)


def hypergeometric_cdf(num_hits: int, num_trials: int, total_hits: int, num_items: int) -> float:
    """Chance of at most `num_hits` hits among `num_trials` items drawn without replacement from `num_items` of which `total_hits` are hits.

    Sums of logarithms of plain ratios, so that it keeps its digits where factorials of a hundred million would not.
    """
    least = max(0, num_trials + total_hits - num_items)
    if num_hits >= min(num_trials, total_hits):
        return 1.0
    if num_hits < least:
        return 0.0
    if least == 0:  # no drawn item is a hit
        small, large = sorted((num_trials, total_hits))
        start = np.log1p(-large / (num_items - np.arange(small))).sum()
    else:  # no item that was left is a hit
        start = np.log1p(-(num_items - num_trials) / (num_items - np.arange(num_items - total_hits))).sum()
    x = np.arange(least, num_hits, dtype=np.float64)
    ratios = (total_hits - x) * (num_trials - x) / ((x + 1) * (num_items - total_hits - num_trials + x + 1))
    terms = start + np.concatenate([[0.0], np.cumsum(np.log(ratios))])
    return float(min(1.0, np.exp(np.logaddexp.reduce(terms))))


def required_trials(max_share: float, *, num_hits: int = 0, num_items: int | None = None, confidence: float = CONFIDENCE) -> int | None:
    """How many trials it takes to prove that a share is at most `max_share`, when so many of them turn out to be hits.

    "At most 0.1 % with 95 % confidence" takes 2,995 independent trials without a hit.

    Args:
        max_share: the claim, in (0, 1).
        num_hits: hits that are allowed for.
        num_items: size of the population drawn from without replacement; None: independent trials.
        confidence: of the one-sided statement.

    Returns:
        The smallest number of trials; None when even labelling every item can't prove the claim, for so many hits refute it.

    Raises:
        ValueError: a claim, count or confidence that can't be.
    """
    check_claim(max_share, num_hits, confidence)
    if num_items is None:
        return search_trials(lambda trials: upper_bound(num_hits, trials, confidence=confidence) <= max_share, num_hits)
    check_counts(num_hits, num_items, confidence)
    allowed = count_within(max_share, num_items)
    if num_hits > allowed:
        return None

    def is_enough(trials: int) -> bool:
        """Whether one hit more than allowed would be ruled out."""
        return trials >= num_items or hypergeometric_cdf(num_hits, trials, min(allowed + 1, num_items), num_items) <= 1 - confidence

    return min(search_trials(is_enough, num_hits), num_items)


def search_trials(is_enough: Callable[[int], bool], least: int) -> int:
    """The smallest number of at least `least` for which a rising condition is true."""
    low, high = least, max(least, 1)
    while not is_enough(high):
        low, high = high + 1, 2 * high
        if high > MAX_TRIALS:
            raise ValueError("the claim would take more than 10^12 labels")
    return low + bisect_left(range(low, high), True, key=is_enough)


def count_within(share: float, num_items: int) -> int:
    """The largest count whose share of all items is at most `share`."""
    count = min(num_items, floor(share * num_items) + 1)
    while count > 0 and count / num_items > share:
        count -= 1
    return count


def choose_threshold(positive_scores: Sequence[float] | NDArray[np.floating], target_recall: float) -> float:
    """The threshold that catches a new positive with probability at least `target_recall`.

    Split conformal quantile: of n held-out positives, the k-th smallest score with k = floor((1 - target) (n + 1));
    for exchangeable positives the expected recall is then at least the target. Where n is too small for that (k = 0), no
    threshold can be vouched for and the smallest score is taken: every calibrate positive is caught, and the bound in
    the evidence says how little that proves.

    Args:
        positive_scores: (N,), infinite for a positive that another judge catches anyhow.
        target_recall: in (0, 1).

    Returns:
        A finite number. Where the others catch so many that the quantile is infinite, the largest finite score, which catches more.

    Raises:
        ValueError: no positives, a score that is NaN or minus infinity, or none that is finite.
    """
    scores = sort_scores(positive_scores)
    rank = floor((1 - target_recall) * (len(scores) + 1) + 1e-9)
    return float(min(scores[max(rank, 1) - 1], scores[np.isfinite(scores)][-1]))


def sort_scores(positive_scores: Sequence[float] | NDArray[np.floating]) -> NDArray[np.float64]:
    """Scores in rising order.

    Raises:
        ValueError: none at all, one that is NaN or minus infinity, or none that is finite.
    """
    scores = np.sort(np.asarray(positive_scores, dtype=np.float64))
    if not len(scores) or np.isnan(scores).any() or not np.isfinite(scores[0]):
        raise ValueError(f"a threshold needs finite scores of positives, got {int(np.isfinite(scores).sum())} of {len(scores)}")
    return scores


def check_counts(num_hits: int, num_trials: int, confidence: float = CONFIDENCE) -> None:
    """Refuse counts that cannot be."""
    if not 0 <= num_hits <= num_trials:
        raise ValueError(f"{num_hits} hits of {num_trials} trials: expected 0 <= hits <= trials")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a number between 0 and 1")


def check_claim(share: float, num_hits: int, confidence: float) -> None:
    """Refuse a claim that says nothing or can't be proved."""
    check_counts(0, num_hits, confidence)
    if not 0 < share < 1:
        raise ValueError(f"the claimed share is {share}, expected a number between 0 and 1")

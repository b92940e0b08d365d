"""What a labelled sample says about a finite population that is divided into strata: order of drawing, estimate, bounds.

One stratum is plain random sampling. Two statements: an unbiased estimate, and bounds that hold at every moment of
labelling at once, so that a reviewer may look at the result, stop or go on as they like.

The bounds are a confidence sequence. For any way M_1, ..., M_S in which the hits may lie, the ratio of a mixture likelihood of
the labels to their likelihood under M is a martingale that starts at 1 when M is true; the chance that it ever reaches
1 / alpha is at most alpha (Ville). It is the prior-posterior ratio of Waudby-Smith and Ramdas ("Confidence sequences for
sampling without replacement", NeurIPS 2020), here with half of the prior on "no hit at all" and half on independent beta-binomial counts.
A total is ruled out when every way to divide it is (Spertus and Stark, "Sweeter than SUITE", E-Vote-ID 2022: a union of intersections).
Minus the logarithm of the likelihood is convex in each M, so the largest total that is not ruled out is found exactly.
"""

import heapq
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, log, log1p, sqrt
from typing import Protocol

import numpy as np

from ..deciding.statistics import CONFIDENCE, check_claim, check_counts, count_within, search_trials

ZERO_SHARE = 0.5
SHAPE = 0.5
MAX_PRICE = 1e4  # e^-10000: no chance that matters is smaller


class Part(Protocol):
    """What is known of one part of a population, as far as the search for the largest total needs it.

    Costs are convex in the number of hits; above `most` they are infinite.
    """

    @property
    def least(self) -> int:
        """The fewest hits that agree with the labels."""

    @property
    def most(self) -> int:
        """The most hits that agree with the labels."""

    def cost(self, total_hits: int) -> float:
        """How strongly the labels speak against so many hits, in natural logarithms."""

    def marginal_cost(self, total_hits: int) -> float:
        """`cost(total_hits) - cost(total_hits - 1)`."""


@dataclass(frozen=True)
class Stratum:
    """A part of the population and what its labels say so far.

    Attributes:
        num_items: items in it.
        num_trials: how many of them were drawn, at random without replacement, and labelled.
        num_hits: hits among the labelled.
        expected_rate: a guess of the share of hits, made before labelling, in (0, 1). Bounds hold whatever it is, and are
            tight when it is good.
    """

    num_items: int
    num_trials: int
    num_hits: int
    expected_rate: float = 0.01

    def __post_init__(self) -> None:
        """Refuse counts that cannot be."""
        check_counts(self.num_hits, self.num_trials)
        check_counts(self.num_trials, self.num_items)
        if not 0 < self.expected_rate < 1:
            raise ValueError(f"expected rate is {self.expected_rate}, expected a number between 0 and 1")

    @property
    def least(self) -> int:
        """The fewest hits that agree with the labels."""
        return self.num_hits

    @property
    def most(self) -> int:
        """The most hits that agree with the labels."""
        return self.num_items - self.num_trials + self.num_hits

    def cost(self, total_hits: int) -> float:
        """Minus the logarithm of the chance of these labels, in their order, if so many of the items are hits."""
        hits, misses, items = self.num_hits, self.num_trials - self.num_hits, self.num_items
        if not self.least <= total_hits <= self.most:
            return inf
        i, j = np.arange(hits), np.arange(misses)
        return float(-np.log((total_hits - i) / (items - i)).sum() - np.log1p(-(total_hits - hits) / (items - hits - j)).sum())

    def marginal_cost(self, total_hits: int) -> float:
        """`cost(total_hits) - cost(total_hits - 1)`, which rises with `total_hits`."""
        if total_hits <= self.num_hits:
            return -inf
        rest = self.num_items - self.num_trials - total_hits + self.num_hits + 1
        if rest <= 0:
            return inf
        gain = total_hits * (self.num_trials - self.num_hits) - self.num_hits * (self.num_items - total_hits + 1)
        return log1p(gain / (total_hits * rest))

    def log_evidence(self) -> float:
        """Logarithm of the chance of these labels, in their order, when the rate of hits has a beta distribution about the expected rate."""
        a, b = SHAPE, SHAPE * (1 - self.expected_rate) / self.expected_rate
        i, j = np.arange(self.num_hits), np.arange(self.num_trials - self.num_hits)
        return float(np.log((a + i) / (a + b + i)).sum() + np.log((b + j) / (a + b + self.num_hits + j)).sum())

    def mirrored(self) -> "Stratum":
        """The same labels with hits and misses exchanged."""
        return Stratum(self.num_items, self.num_trials, self.num_trials - self.num_hits, self.expected_rate)


def schedule_strata(sizes: Sequence[int], rates: Sequence[float]) -> Iterator[int]:
    """The strata in the order in which to draw from them, each as often as it has items.

    The first n steps are the allocation of n labels that makes the variance of the estimated total least, given the rates
    (Neyman, 1934), exact in whole numbers: one draw each, then always where N s / sqrt(k (k + 1)) is largest after k
    draws, with s the standard deviation of a label (Wright, The American Statistician 66, 2012).

    Args:
        sizes: items per stratum.
        rates: expected share of hits per stratum.

    Raises:
        ValueError: numbers of different length, an empty stratum, or a rate outside (0, 1).
    """
    if len(sizes) != len(rates) or not sizes or min(sizes) < 1 or not all(0 < rate < 1 for rate in rates):
        raise ValueError(f"strata of sizes {list(sizes)} and rates {list(rates)}: expected as many rates in (0, 1) as sizes of at least 1")
    spread = [size * sqrt(rate * (1 - rate)) for size, rate in zip(sizes, rates, strict=True)]
    waiting = [(-inf, number, 0) for number in range(len(sizes))]
    while waiting:
        _, number, done = heapq.heappop(waiting)
        yield number
        done += 1
        if done < sizes[number]:
            heapq.heappush(waiting, (-spread[number] / sqrt(done * (done + 1)), number, done))


def estimate_total(strata: Sequence[Stratum]) -> float | None:
    """Unbiased estimate of the hits among all items (Horvitz and Thompson, JASA 47, 1952); None while a stratum has no label."""
    if any(part.num_trials == 0 for part in strata):
        return None
    return sum(part.num_items * part.num_hits / part.num_trials for part in strata)


def anytime_upper_bound(strata: Sequence[Stratum], *, confidence: float = CONFIDENCE) -> int:
    """The most hits among all items: with this confidence right at every moment of labelling at once.

    Args:
        strata: what is labelled so far, drawn in an order fixed beforehand, for example by `schedule_strata`.
        confidence: chance that this bound and `anytime_lower_bound` hold at all moments together.
    """
    return largest_total(strata, log_mixture(strata) + log(1 - confidence))


def anytime_lower_bound(strata: Sequence[Stratum], *, confidence: float = CONFIDENCE) -> int:
    """The fewest hits among all items; see `anytime_upper_bound`."""
    mirrored = [part.mirrored() for part in strata]
    return sum(part.num_items for part in strata) - largest_total(mirrored, log_mixture(strata) + log(1 - confidence))


def required_anytime_trials(max_share: float, num_items: int, *, num_hits: int = 0, expected_rate: float = 0.01,
                            confidence: float = CONFIDENCE) -> int | None:
    """How many labels of a plain random sample it takes until `anytime_upper_bound` proves a claim, when so many are hits.

    A little more than `statistics.required_trials`, for which nobody may look before the end.

    Args:
        max_share: the claim, in (0, 1).
        num_items: size of the population.
        num_hits: hits that are allowed for.
        expected_rate: as in `Stratum`.
        confidence: of the one-sided statement.

    Returns:
        The smallest number of labels; None when even labelling every item can't prove the claim, for so many hits refute it.

    Raises:
        ValueError: a claim, count or confidence that can't be.
    """
    check_claim(max_share, num_hits, confidence)
    check_counts(num_hits, num_items)
    allowed = count_within(max_share, num_items)
    if num_hits > allowed:
        return None

    def is_enough(trials: int) -> bool:
        """Whether one hit more than allowed is ruled out."""
        if trials >= num_items:
            return True
        part = Stratum(num_items, trials, num_hits, expected_rate)
        is_above_best = part.marginal_cost(allowed + 1) > 0
        return is_above_best and log_mixture([part]) + log(1 - confidence) + part.cost(allowed + 1) >= 0

    return min(search_trials(is_enough, num_hits), num_items)


def log_mixture(strata: Sequence[Stratum]) -> float:
    """Logarithm of the chance of the labels under the mixture: no hit at all, or hits at about the expected rates."""
    spread = log(1 - ZERO_SHARE) + sum(part.log_evidence() for part in strata)
    return spread if any(part.num_hits for part in strata) else float(np.logaddexp(log(ZERO_SHARE), spread))


def largest_within(part: Part, price: float) -> int:
    """The most hits whose marginal cost is at most a price."""
    return part.least + bisect_right(range(part.least + 1, part.most + 1), price, key=part.marginal_cost)


def largest_total(parts: Sequence[Part], log_limit: float) -> int:
    """The largest sum of hits over the parts whose costs, with `log_limit` added, stay below 0.

    Costs are convex, so adding hits where the next one is cheapest reaches the largest sum: a price per step is bisected,
    then single steps are added while they fit.
    """
    def fits(counts: Sequence[int]) -> bool:
        """Whether these hits are not ruled out."""
        return log_limit + sum(part.cost(count) for part, count in zip(parts, counts, strict=True)) < 0

    most = [part.most for part in parts]
    if fits(most):
        return sum(most)
    counts, above = [largest_within(part, 0.0) for part in parts], most
    low, high = 0.0, max(part.marginal_cost(count) for part, count in zip(parts, most, strict=True))
    high = high if high < inf else MAX_PRICE
    while sum(above) - sum(counts) > len(parts) and low < (middle := (low + high) / 2) < high:
        tried = [largest_within(part, middle) for part in parts]
        if fits(tried):
            low, counts = middle, tried
        else:
            high, above = middle, tried
    while True:
        cheapest = min(range(len(parts)), key=lambda number: parts[number].marginal_cost(counts[number] + 1))
        counts[cheapest] += 1
        if not fits(counts):
            return sum(counts) - 1

"""An anytime-valid upper bound for strata that were sampled at different rates: a hit counts by how hard one looked there.

For each way M_1, ..., M_S in which the hits may lie, each label is a bet against them: with the chance mu of a hit (the hits left
over the items left in its stratum) the stake is multiplied by (1 - g) / (1 - g mu) after a hit and by 1 / (1 - g mu) after a miss, whose
mean is 1 when M is true (betting: Waudby-Smith and Ramdas, JRSS B 86, 2024; for strata, Spertus and Stark, E-Vote-ID 2022). The stake
is the likelihood ratio of hits with odds 1 - g times as high. In a stratum that is sampled c times as densely as the thinnest one,
g = f / c: then one hit more anywhere costs the same, and a hit in a densely sampled stratum weighs less, as it does in the
Horvitz-Thompson estimate. Stakes are started with several f at once, and a total is ruled out when one of them passes its share of
1 / alpha for every way to divide the total. Logarithms of the stakes are convex in each M, so the largest total that is left is
found exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log, log1p, sqrt

import numpy as np
from numpy.typing import NDArray

from ..deciding.statistics import CONFIDENCE, check_counts
from .strata import largest_total

# Boldness f of the bets and the share of the stake that each starts with; the boldest wins fastest while the thinnest stratum has no hit.
BETS = ((1.0, 0.5), (0.8, 0.25), (0.4, 0.25))


@dataclass(frozen=True)
class LabelledStratum:
    """A part of the population and its labels.

    Attributes:
        num_items: items in it.
        labels: 1 or 0 in the order in which the items were drawn, at random without replacement.
        expected_rate: a guess of the share of hits, made before labelling, in (0, 1), by whose standard deviation the stratum was sampled.
    """

    num_items: int
    labels: Sequence[int]
    expected_rate: float

    def __post_init__(self) -> None:
        """Refuse counts that cannot be."""
        check_counts(len(self.labels), self.num_items)
        if not 0 < self.expected_rate < 1:
            raise ValueError(f"expected rate is {self.expected_rate}, expected a number between 0 and 1")

    @property
    def spread(self) -> float:
        """Standard deviation of a label, to which Neyman's allocation makes the rate of sampling proportional."""
        return sqrt(self.expected_rate * (1 - self.expected_rate))


class Bet:
    """The bets on one stratum at one boldness; a `strata.Part`."""

    def __init__(self, stratum: LabelledStratum, tilt: float) -> None:
        """Count the hits before each label.

        Args:
            stratum: the labels.
            tilt: g, in (0, 1].
        """
        labels = np.asarray(stratum.labels, dtype=np.int64)
        self.tilt = tilt
        self.least = int(labels.sum())
        self.most = stratum.num_items - len(labels) + self.least
        self._before: NDArray[np.int64] = np.cumsum(labels) - labels
        self._left: NDArray[np.int64] = stratum.num_items - np.arange(len(labels))

    @property
    def lost(self) -> float:
        """Logarithm of what the hits cost."""
        if not self.least:
            return 0.0
        return -inf if self.tilt == 1 else self.least * log1p(-self.tilt)

    def cost(self, total_hits: int) -> float:
        """Logarithm of what the misses won against so many hits."""
        if not self.least <= total_hits <= self.most:
            return inf
        with np.errstate(divide="ignore"):
            return float(-np.log1p(-self.tilt * (total_hits - self._before) / self._left).sum())

    def marginal_cost(self, total_hits: int) -> float:
        """`cost(total_hits) - cost(total_hits - 1)`."""
        if total_hits <= self.least:
            return -inf
        rest = self._left - self.tilt * (total_hits - self._before)
        if total_hits > self.most or (rest <= 0).any():
            return inf
        return float(np.log1p(self.tilt / rest).sum())


def tilted_upper_bound(strata: Sequence[LabelledStratum], *, confidence: float = CONFIDENCE) -> int:
    """The most hits among all items: with this confidence right at every moment of labelling at once.

    Args:
        strata: what is labelled so far, drawn in an order fixed beforehand, for example by `strata.schedule_strata`.
        confidence: of the one-sided statement.
    """
    thinnest = min(stratum.spread for stratum in strata)
    bounds = [sum(stratum.num_items - len(stratum.labels) + sum(stratum.labels) for stratum in strata)]
    for boldness, share in BETS:
        bets = [Bet(stratum, boldness * thinnest / stratum.spread) for stratum in strata]
        lost = sum(bet.lost for bet in bets)
        if lost > -inf:
            bounds.append(largest_total(bets, log(1 - confidence) + log(share) + lost))
    return min(bounds)

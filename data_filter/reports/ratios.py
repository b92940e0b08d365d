"""Exact intervals for the ratio of two shares, such as how much more often one group is dropped than the rest."""

from dataclasses import dataclass
from typing import Any

from ..deciding.statistics import lower_bound, upper_bound

MAX_PART = 0.9


@dataclass(frozen=True)
class Ratio:
    """A ratio with its interval.

    Attributes:
        value: None where the lower share is 0.
        lower_bound, upper_bound: two-sided interval; no upper bound where the lower share may be 0.
    """

    value: float | None
    lower_bound: float
    upper_bound: float | None

    def to_json(self, name: str) -> dict[str, Any]:
        """The ratio as three figures: `name`, `name_lower_bound`, `name_upper_bound`."""
        return {name: self.value, f"{name}_lower_bound": self.lower_bound, f"{name}_upper_bound": self.upper_bound}


def compare_shares(hits: int, trials: int, other_hits: int, other_trials: int, *, confidence: float = 0.95) -> Ratio:
    """The ratio of two independent shares, `hits / trials` to `other_hits / other_trials`, with a guaranteed interval.

    Each end joins an exact (Clopper-Pearson) bound on either share, so that the interval holds the true ratio with at
    least this confidence at any size of the groups, however rare the hits (Bonferroni's inequality). The smaller group,
    whose bound is the wider one, gets the larger part of the allowed error; the sizes alone decide that.

    Args:
        hits, trials: of the group.
        other_hits, other_trials: of what it is compared with; the two share no trial.
        confidence: of the two-sided interval.

    Raises:
        ValueError: not 0 <= hits <= trials.
    """
    per_end = (1 - confidence) / 2
    part = 0.5 if trials + other_trials == 0 else min(MAX_PART, max(1 - MAX_PART, other_trials / (trials + other_trials)))
    own, other = 1 - per_end * part, 1 - per_end * (1 - part)
    low, high = lower_bound(hits, trials, confidence=own), upper_bound(hits, trials, confidence=own)
    other_low = lower_bound(other_hits, other_trials, confidence=other)
    other_high = upper_bound(other_hits, other_trials, confidence=other)
    value = (hits / trials) / (other_hits / other_trials) if trials and other_hits else None
    return Ratio(value, low / other_high, high / other_low if other_low > 0 else None)


def compare_with_all(hits: int, trials: int, all_hits: int, all_trials: int, *, confidence: float = 0.95) -> Ratio:
    """The ratio of a group's share to the share of everybody, the group included, with a guaranteed interval.

    With the group's part s of all trials, everybody's share is s p + (1 - s) q for the shares p inside and q outside;
    the ratio p / (s p + (1 - s) q) rises with p / q, whose interval is carried over.

    Args:
        hits, trials: of the group.
        all_hits, all_trials: of everybody, the group's own included.
        confidence: of the two-sided interval.

    Raises:
        ValueError: counts that cannot be.
    """
    inside = compare_shares(hits, trials, all_hits - hits, all_trials - trials, confidence=confidence)
    if trials == all_trials:
        return Ratio(1.0 if hits else None, 1.0, 1.0)
    part = trials / all_trials
    value = (hits / trials) / (all_hits / all_trials) if trials and all_hits else None
    lower = carry_over(inside.lower_bound, part)
    upper = (1 / part if part else None) if inside.upper_bound is None else carry_over(inside.upper_bound, part)
    return Ratio(value, lower, upper)


def carry_over(ratio: float, part: float) -> float:
    """p / (s p + (1 - s) q) from p / q and s; 0 for 0."""
    return ratio / (part * ratio + 1 - part)

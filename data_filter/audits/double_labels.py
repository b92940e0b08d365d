"""What a second opinion tells: how far two people agree, and how many positives one person sees."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..deciding.statistics import CONFIDENCE, check_counts, lower_bound


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

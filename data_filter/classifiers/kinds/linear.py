"""Classifiers that are one direction among prepared embeddings: `logistic` learns it, `zero_shot` takes it from prompts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from .classifier import Preparation, Scores

LINEAR_SHAPES: Mapping[str, str] = {"center": "D", "scale": "D", "weights": "D", "intercept": ""}


@dataclass(frozen=True)
class Linear:
    """Logistic regression, or CLIP without training: score(x) = weights.z + intercept.

    Attributes:
        kind: `logistic` or `zero_shot`.
        preparation: gives z of x.
        weights: float64 (D,).
        intercept: float64 scalar.
    """

    kind: str
    preparation: Preparation
    weights: Tensor
    intercept: Tensor

    @property
    def width(self) -> int:
        """Numbers per embedding."""
        return self.preparation.width

    def score(self, embeddings: NDArray[Any]) -> Scores:
        """See `Classifier`."""
        return self.preparation.score(embeddings, lambda z: z @ self.weights + self.intercept)

    def tensors(self) -> dict[str, Tensor]:
        """See `Classifier`."""
        return {**self.preparation.tensors(), "weights": self.weights, "intercept": self.intercept}

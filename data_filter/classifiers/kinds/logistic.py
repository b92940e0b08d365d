"""The kind `logistic`: logistic regression."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .classifier import Classifier, Preparation
from .estimator import Estimator, Task, TrainingSet, prepare
from .linear import LINEAR_SHAPES, Linear


@dataclass(frozen=True)
class LogisticEstimator(Estimator):
    """Settings of a regression, by scikit-learn's names.

    Attributes:
        C: how little large weights cost.
    """

    kind: ClassVar[str] = "logistic"
    SHAPES: ClassVar[Mapping[str, str]] = LINEAR_SHAPES
    C: float

    @classmethod
    def grid(cls, task: Task) -> "Sequence[Estimator]":
        """Two strengths of regularisation."""
        return [cls(10.0), cls(100.0)]

    def fit(self, data: TrainingSet, *, seed: int = 0) -> Linear:
        """`sklearn.linear_model.LogisticRegression` on prepared embeddings; it draws no random numbers."""
        from sklearn.linear_model import LogisticRegression

        preparation, x, weights = prepare(data)
        model = LogisticRegression(C=self.C, max_iter=1000).fit(x, data.labels, sample_weight=weights)
        return Linear(self.kind, preparation, torch.from_numpy(model.coef_[0].copy()), torch.tensor(model.intercept_[0], dtype=torch.float64))

    @classmethod
    def build(cls, preparation: Preparation, tensors: Mapping[str, Tensor]) -> Classifier:
        """The regression of its tensors."""
        return Linear(cls.kind, preparation, **tensors)

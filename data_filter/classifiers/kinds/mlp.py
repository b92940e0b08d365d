"""The kind `mlp`: a perceptron with one hidden layer."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .classifier import Classifier, Preparation, Scores
from .estimator import Estimator, Task, TrainingSet, prepare

GAIN = 4.0  # prepared embeddings are short for a network's usual initial weights


@dataclass(frozen=True)
class Mlp:
    """A perceptron with one hidden layer: score(x) = output.relu(hidden z + hidden_bias) + intercept, the log odds.

    Attributes:
        preparation: gives z of x.
        hidden: float64 (H, D).
        hidden_bias, output: float64 (H,).
        intercept: float64 scalar.
    """

    preparation: Preparation
    hidden: Tensor
    hidden_bias: Tensor
    output: Tensor
    intercept: Tensor

    @property
    def kind(self) -> str:
        """`mlp`."""
        return "mlp"

    @property
    def width(self) -> int:
        """Numbers per embedding."""
        return self.preparation.width

    def score(self, embeddings: NDArray[Any]) -> Scores:
        """See `Classifier`."""
        return self.preparation.score(embeddings, lambda z: (z @ self.hidden.T + self.hidden_bias).relu() @ self.output + self.intercept)

    def tensors(self) -> dict[str, Tensor]:
        """See `Classifier`."""
        return {**self.preparation.tensors(), "hidden": self.hidden, "hidden_bias": self.hidden_bias, "output": self.output,
                "intercept": self.intercept}


@dataclass(frozen=True)
class MlpEstimator(Estimator):
    """Settings of a perceptron.

    Attributes:
        width: hidden units.
        alpha: weight decay, by scikit-learn's name.
    """

    kind: ClassVar[str] = "mlp"
    SHAPES: ClassVar[Mapping[str, str]] = {"center": "D", "scale": "D", "hidden": "HD", "hidden_bias": "H", "output": "H", "intercept": ""}
    width: int = 64
    alpha: float = 0.1

    @classmethod
    def grid(cls, task: Task) -> "Sequence[Estimator]":
        """One setting."""
        return [cls()]

    def fit(self, data: TrainingSet, *, seed: int = 0) -> Mlp:
        """`sklearn.neural_network.MLPClassifier` on prepared embeddings, fitted in float32; the seed is of its initial weights."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier

        preparation, x, weights = prepare(data)
        network = MLPClassifier((self.width,), alpha=self.alpha, batch_size=min(64, len(x)), max_iter=60, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # 60 epochs are meant as they are
            network.fit((GAIN * x).astype(np.float32), data.labels, sample_weight=weights)
        (hidden, output), (hidden_bias, intercept) = network.coefs_, network.intercepts_
        return Mlp(preparation, torch.from_numpy(GAIN * hidden.T.astype(np.float64)), torch.from_numpy(hidden_bias.astype(np.float64)),
                   torch.from_numpy(output[:, 0].astype(np.float64)), torch.tensor(float(intercept[0]), dtype=torch.float64))

    @classmethod
    def build(cls, preparation: Preparation, tensors: Mapping[str, Tensor]) -> Classifier:
        """The perceptron of its tensors."""
        return Mlp(preparation, **tensors)

"""The kind `rbf_svm`: a support vector machine with an RBF kernel, as GLIDE used (arXiv 2112.10741, Appendix F)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .classifier import BLOCK_ROWS, Classifier, Floats, Preparation, Scores
from .estimator import Estimator, Task, TrainingSet, balance, prepare

REGULARISATION = 10.0  # wide machines need it where positives are many, to narrow ones it makes no difference
WIDE_GAMMA, MIDDLE_GAMMA, NARROW_GAMMA = 1.0, 2.0, 3.0


@dataclass(frozen=True)
class RbfSvm:
    """A support vector machine: score(x) = sum_i dual_i exp(-gamma |z - v_i|^2) + intercept.

    Attributes:
        preparation: gives z of x, and v_i of the support embeddings.
        support_embeddings: (S, D), training embeddings as they came, float16 where that holds them exactly.
        dual_coefficients: float64 (S,).
        intercept, gamma: float64 scalars.
    """

    preparation: Preparation
    support_embeddings: Tensor
    dual_coefficients: Tensor
    intercept: Tensor
    gamma: Tensor

    @property
    def kind(self) -> str:
        """`rbf_svm`."""
        return "rbf_svm"

    @property
    def width(self) -> int:
        """Numbers per embedding."""
        return self.preparation.width

    @cached_property
    def _exponent(self) -> tuple[Tensor, Tensor]:
        """With |z| = 1 the exponent is one matrix product, 2 gamma z.v - gamma (|v|^2 + 1): float64 (D, S) and (S,)."""
        vectors = self.preparation.apply(self.support_embeddings)
        return (2 * self.gamma * vectors.T).contiguous(), -self.gamma * (vectors.square().sum(1) + 1)

    def score(self, embeddings: NDArray[Any]) -> Scores:
        """See `Classifier`."""
        gamma, (rows, offset) = float(self.gamma), self._exponent
        buffer = torch.empty(min(BLOCK_ROWS[0], len(embeddings) + BLOCK_ROWS[1]), len(offset), dtype=torch.float64)

        def head(z: Tensor) -> Tensor:
            kernel = torch.addmm(offset, z, rows, out=buffer[:len(z)]).exp_()
            # 1 for every z of length 1; for the zeros of an embedding at the center it puts the missing 1 back
            return (kernel @ self.dual_coefficients) * torch.exp(gamma * (1 - z.square().sum(1))) + self.intercept

        return self.preparation.score(embeddings, head)

    def tensors(self) -> dict[str, Tensor]:
        """See `Classifier`."""
        return {**self.preparation.tensors(), "support_embeddings": self.support_embeddings,
                "dual_coefficients": self.dual_coefficients, "intercept": self.intercept, "gamma": self.gamma}


@dataclass(frozen=True)
class RbfSvmEstimator(Estimator):
    """Settings of a machine, by scikit-learn's names.

    Attributes:
        gamma: narrowness of the kernel.
        C: how much an example on the wrong side costs.
    """

    kind: ClassVar[str] = "rbf_svm"
    SHAPES: ClassVar[Mapping[str, str]] = {"center": "D", "scale": "D", "support_embeddings": "SD", "dual_coefficients": "S", "intercept": "",
                                           "gamma": ""}
    gamma: float
    C: float = REGULARISATION

    @classmethod
    def grid(cls, task: Task) -> "Sequence[Estimator]":
        """The recipe's gamma, or a middle one, a wide and a narrow one."""
        gamma = task.category.kernel_gamma
        return [cls(value) for value in ((MIDDLE_GAMMA, WIDE_GAMMA, NARROW_GAMMA) if gamma is None else (gamma,))]

    @classmethod
    def sturdiest(cls, grid: "Sequence[Estimator]") -> "Sequence[tuple[Estimator, ...]]":
        """The recipe's gamma, for somebody knew better; else the average of a wide and a narrow machine.

        One generalises to what is unlike the train labels, the other knows what is like them; neither alone did well everywhere.
        """
        return [tuple(grid) if len(grid) == 1 else tuple(grid[1:])]

    @classmethod
    def partner(cls, grid: "Sequence[Estimator]") -> "Estimator":
        """The narrow one."""
        return grid[-1]

    def fit(self, data: TrainingSet, *, seed: int = 0) -> RbfSvm:
        """`sklearn.svm.SVC` on prepared embeddings; it draws no random numbers."""
        from sklearn.svm import SVC

        preparation, x, weights = prepare(data)
        machine = SVC(C=self.C, gamma=self.gamma, cache_size=500).fit(x, data.labels, sample_weight=weights)
        return RbfSvm(preparation, torch.from_numpy(shorten_exactly(data.embeddings[machine.support_])),
                      torch.from_numpy(machine.dual_coef_[0].copy()), torch.tensor(machine.intercept_[0], dtype=torch.float64),
                      torch.tensor(self.gamma, dtype=torch.float64))

    @classmethod
    def score_held_out(cls, estimators: Sequence[Estimator], data: TrainingSet, held_out: NDArray[Any], *, seed: int) -> Iterator[Floats]:
        """Scores by one machine per setting, all from one matrix of distances.

        Quicker than fitting one by one: the distances are one matrix product, and the kernels are handed to scikit-learn.
        """
        from sklearn.svm import SVC

        preparation, weights = Preparation.fit(data.embeddings), balance(data.weights, data.labels)
        x, z = preparation.apply(data.embeddings).numpy(), preparation.apply(held_out).numpy()
        among, across = squared_distances(x, x), squared_distances(z, x)
        for estimator in estimators:
            assert isinstance(estimator, RbfSvmEstimator)
            machine = SVC(C=estimator.C, kernel="precomputed", cache_size=500)
            machine.fit(np.exp(-estimator.gamma * among), data.labels, sample_weight=weights)
            kernel = np.exp(-estimator.gamma * across[:, machine.support_])
            yield kernel @ machine.dual_coef_[0] + machine.intercept_[0]

    @classmethod
    def build(cls, preparation: Preparation, tensors: Mapping[str, Tensor]) -> Classifier:
        """The machine of its tensors."""
        return RbfSvm(preparation, **tensors)


def shorten_exactly(rows: NDArray[Any]) -> NDArray[Any]:
    """Rows as float16 where that changes no number, as for what an index holds; else as they are."""
    with np.errstate(over="ignore"):
        short = rows.astype(np.float16)
    return short if np.array_equal(short, rows) else np.ascontiguousarray(rows)


def squared_distances(a: Floats, b: Floats) -> Floats:
    """|a_i - b_j|^2: float64 (N, M)."""
    return np.asarray(np.maximum((a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T, 0))

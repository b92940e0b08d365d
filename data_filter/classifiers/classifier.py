"""Classifiers on CLIP embeddings: fitted by scikit-learn, kept as tensors, scored as matrix products in torch.

An RBF support vector machine is what GLIDE used (arXiv 2112.10741, Appendix F); `estimators` fits these, `selection` chooses.
Every score is computed in float64, in blocks of fixed sizes, and rounded to float32 at the end. So it does not depend on
how the inputs were batched (a last bit may, about once in 10^8 scores), and it lies on the same side of any float32
threshold as scikit-learn's own decision function rounded to float32: before rounding the two differ by about 1e-13, and
rounding keeps the order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import FilterError

BLOCK_ROWS = (1024, 256)  # large ones while there are as many rows; the last small one is filled up

Floats = NDArray[np.float64]
Scores = NDArray[np.float32]


class Classifier(Protocol):
    """What tells images of a category from others by their embeddings."""

    @property
    def kind(self) -> str:
        """`rbf_svm`, `logistic`, `mlp`, `zero_shot` or `average`."""

    @property
    def width(self) -> int:
        """Numbers per embedding."""

    def score(self, embeddings: NDArray[Any]) -> Scores:
        """Score embeddings (N, D) of any float type: float32 (N,), the higher, the more it looks like the category.

        Raises:
            FilterError: embeddings of another width, from another CLIP.
        """

    def tensors(self) -> dict[str, Tensor]:
        """All that the scores depend on, by name."""


@dataclass(frozen=True)
class Preparation:
    """What is done to an embedding before it is judged: z = u / |u| with u = (x - center) * scale.

    The embeddings of one CLIP all point roughly one way; taking their mean off, evening out the numbers' spreads and scaling
    to length 1 again makes distances tell images apart, whatever the CLIP.

    Attributes:
        center: float64 (D,), the mean of the training embeddings.
        scale: float64 (D,), 1 / sqrt(standard deviation): halfway between the raw numbers and standardised ones.
    """

    center: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, embeddings: NDArray[Any]) -> "Preparation":
        """Learn it from training embeddings (N, D); spreads below a hundredth of the largest count as that."""
        x = np.asarray(embeddings, dtype=np.float64)
        spread = x.std(0)
        largest = spread.max(initial=0.0)
        scale = 1 / np.sqrt(np.maximum(spread, 0.01 * largest)) if largest > 0 else np.ones(x.shape[1])
        return cls(torch.from_numpy(x.mean(0)), torch.from_numpy(scale))

    @property
    def width(self) -> int:
        """Numbers per embedding."""
        return len(self.center)

    def apply(self, embeddings: NDArray[Any] | Tensor) -> Tensor:
        """Prepare embeddings (N, D): float64 (N, D), rows of length 1; one at the center becomes zeros."""
        moved = (torch.as_tensor(embeddings).double() - self.center).mul_(self.scale)
        return moved.div_(moved.square().sum(1, keepdim=True).sqrt_().clamp_min_(1e-12))

    def score(self, embeddings: NDArray[Any], head: Callable[[Tensor], Tensor]) -> Scores:
        """Prepare and score in blocks of `BLOCK_ROWS`: float32 (N,).

        Args:
            embeddings: (N, D), any float type.
            head: prepared rows float64 (B, D) -> float64 (B,).

        Raises:
            FilterError: embeddings of another width.
        """
        x = np.asarray(embeddings)
        if x.ndim != 2 or x.shape[1] != self.width:
            raise FilterError(f"the classifier takes embeddings of {self.width} numbers, got shape {tuple(x.shape)}: "
                              "it was fitted on another CLIP")
        scores = np.empty(len(x), dtype=np.float32)
        start = 0
        while start < len(x):
            size = BLOCK_ROWS[0] if len(x) - start >= BLOCK_ROWS[0] else BLOCK_ROWS[1]
            rows = x[start:start + size]
            block = np.zeros((size, self.width))
            block[:len(rows)] = rows
            scores[start:start + len(rows)] = head(self.apply(block)).numpy()[:len(rows)]
            start += size
        return scores

    def tensors(self) -> dict[str, Tensor]:
        """The two tensors by name."""
        return {"center": self.center, "scale": self.scale}


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
class Average:
    """Several classifiers at once: the mean of their calibrated log odds, slope * score + offset each.

    Attributes:
        members: at least two, of one width.
        slopes, offsets: float64 (M,).
    """

    members: Sequence[Classifier]
    slopes: Tensor
    offsets: Tensor

    @property
    def kind(self) -> str:
        """`average`."""
        return "average"

    @property
    def width(self) -> int:
        """Numbers per embedding."""
        return self.members[0].width

    def score(self, embeddings: NDArray[Any]) -> Scores:
        """See `Classifier`."""
        total = np.zeros(len(embeddings))
        for member, slope, offset in zip(self.members, self.slopes.tolist(), self.offsets.tolist(), strict=True):
            total += slope * member.score(embeddings).astype(np.float64) + offset
        return (total / len(self.members)).astype(np.float32)

    def tensors(self) -> dict[str, Tensor]:
        """See `Classifier`; those of a member carry its place and kind before their name."""
        found = {"slopes": self.slopes, "offsets": self.offsets}
        for place, member in enumerate(self.members):
            found |= {f"{place}.{member.kind}.{name}": tensor for name, tensor in member.tensors().items()}
        return found


# Names and numbers of dimensions: D numbers per embedding, S support embeddings, H hidden units.
SHAPES: Mapping[str, Mapping[str, str]] = {
    "rbf_svm": {"center": "D", "scale": "D", "support_embeddings": "SD", "dual_coefficients": "S", "intercept": "", "gamma": ""},
    "logistic": {"center": "D", "scale": "D", "weights": "D", "intercept": ""},
    "zero_shot": {"center": "D", "scale": "D", "weights": "D", "intercept": ""},
    "mlp": {"center": "D", "scale": "D", "hidden": "HD", "hidden_bias": "H", "output": "H", "intercept": ""},
}


def build_classifier(kind: str, tensors: Mapping[str, Tensor]) -> Classifier:
    """Make a classifier of its tensors; the opposite of `Classifier.tensors`.

    Raises:
        FilterError: a kind that is none, a tensor that is missing, too many or of a wrong shape, or a number that is not finite.
    """
    if kind == "average":
        return build_average(tensors)
    if kind not in SHAPES:
        raise FilterError(f"unknown kind {kind!r}, expected average or one of {', '.join(SHAPES)}")
    check_tensors(tensors, SHAPES[kind])
    preparation = Preparation(tensors["center"], tensors["scale"])
    rest = {name: tensor for name, tensor in tensors.items() if name not in ("center", "scale")}
    if kind == "rbf_svm":
        return RbfSvm(preparation, **rest)
    return Mlp(preparation, **rest) if kind == "mlp" else Linear(kind, preparation, **rest)


def check_tensors(tensors: Mapping[str, Tensor], shapes: Mapping[str, str]) -> None:
    """Refuse missing and unknown tensors, shapes that do not belong together and numbers that are not finite."""
    if sorted(tensors) != sorted(shapes):
        raise FilterError(f"holds {', '.join(sorted(tensors))}, expected {', '.join(sorted(shapes))}")
    sizes: dict[str, int] = {}
    for name, dimensions in shapes.items():
        shape = tuple(tensors[name].shape)
        fits = len(shape) == len(dimensions) and all(sizes.setdefault(d, size) == size for d, size in zip(dimensions, shape, strict=True))
        if not fits or 0 in shape:
            raise FilterError(f"{name} has shape {shape}, which does not fit the other tensors")
        if name != "support_embeddings" and tensors[name].dtype != torch.float64:
            raise FilterError(f"{name} is {tensors[name].dtype}, expected torch.float64")
        if not bool(torch.isfinite(tensors[name]).all()):
            raise FilterError(f"{name} holds numbers that are not finite")


def build_average(tensors: Mapping[str, Tensor]) -> Average:
    """Make an average of its members' tensors."""
    parts: dict[tuple[int, str], dict[str, Tensor]] = {}
    own = {}
    for name, tensor in tensors.items():
        place, _, rest = name.partition(".")
        kind, _, inner = rest.partition(".")
        if not rest:
            own[name] = tensor
        elif place.isdecimal() and kind in SHAPES:
            parts.setdefault((int(place), kind), {})[inner] = tensor
        else:
            raise FilterError(f"holds {name}, which is no part of an average")
    check_tensors(own, {"slopes": "M", "offsets": "M"})
    members = [build_classifier(kind, part) for (_, kind), part in sorted(parts.items())]
    if len(members) < 2 or len(members) != len(own["slopes"]) or [place for place, _ in sorted(parts)] != list(range(len(members))):
        raise FilterError(f"holds {len(members)} members and {len(own['slopes'])} slopes; an average needs as many slopes, and at least two")
    if len({member.width for member in members}) != 1:
        raise FilterError("the members of the average take embeddings of different widths")
    return Average(members, own["slopes"], own["offsets"])

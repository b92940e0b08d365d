"""What a fitted classifier on CLIP embeddings is: kept as tensors, scored as matrix products in torch.

Each kind has a file of its own here, `table` lists them, `selection` chooses.
Every score is computed in float64, in blocks of fixed sizes, and rounded to float32 at the end. So it does not depend on
how the inputs were batched (a last bit may, about once in 10^8 scores), and it lies on the same side of any float32
threshold as scikit-learn's own decision function rounded to float32: before rounding the two differ by about 1e-13, and
rounding keeps the order.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ....errors import FilterError

BLOCK_ROWS = (1024, 256)  # large ones while there are as many rows; the last small one is filled up

Floats = NDArray[np.float64]
Scores = NDArray[np.float32]


class Classifier(Protocol):
    """What tells images of a category from others by their embeddings."""

    @property
    def kind(self) -> str:
        """Name of the kind, as its file says it."""

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


def check_tensors(tensors: Mapping[str, Tensor], shapes: Mapping[str, str]) -> None:
    """Refuse missing and unknown tensors, shapes that do not belong together and numbers that are not finite.

    Args:
        tensors: of a file.
        shapes: name -> a letter for each dimension; equal letters are equal sizes.

    Raises:
        FilterError: one of these.
    """
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

"""What an estimator is: one kind of classifier with its settings, before it is fitted; and what all of them are fitted to."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ....errors import FilterError
from ....recipe.filters import Category, ClipConfig
from .classifier import Classifier, Floats, Preparation

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class TrainingSet:
    """Labelled embeddings.

    Attributes:
        embeddings: (N, D), any float type.
        labels: int64 (N,), 1 or 0.
        weights: float64 (N,), of the examples before the classes are balanced.
    """

    embeddings: NDArray[Any]
    labels: Labels
    weights: Floats

    def take(self, chosen: NDArray[Any]) -> "TrainingSet":
        """Some of the examples, by place or by mask."""
        return TrainingSet(self.embeddings[chosen], self.labels[chosen], self.weights[chosen])


def check_training(data: TrainingSet) -> None:
    """Refuse what no classifier can be fitted to.

    Raises:
        FilterError: a class is missing, or a number is not finite.
    """
    finite = np.isfinite(np.asarray(data.embeddings, dtype=np.float64))
    if not finite.all():
        raise FilterError(f"{int((~finite).any(axis=1).sum())} embeddings hold numbers that are not finite; build the index again")
    num_positive = int((data.labels == 1).sum())
    if num_positive == 0 or num_positive == len(data.labels):
        raise FilterError(f"a classifier needs labels of both kinds, got {num_positive} positive and {len(data.labels) - num_positive} "
                          "negative train labels; label more images")


def balance(weights: Floats, labels: Labels) -> Floats:
    """Scale weights so that both classes weigh N / 2: float64 (N,)."""
    balanced = weights.astype(np.float64)
    for label in (0, 1):
        of_class = labels == label
        balanced[of_class] *= len(labels) / 2 / balanced[of_class].sum()
    return balanced


class Prepared(NamedTuple):
    """A training set as scikit-learn gets it: prepared embeddings float64 (N, D), and weights of balanced classes float64 (N,)."""

    preparation: Preparation
    x: Floats
    weights: Floats


def prepare(data: TrainingSet) -> Prepared:
    """Prepare the embeddings and balance the classes.

    Raises:
        FilterError: a class is missing, or a number is not finite.
    """
    check_training(data)
    preparation = Preparation.fit(data.embeddings)
    return Prepared(preparation, preparation.apply(data.embeddings).numpy(), balance(data.weights, data.labels))


@dataclass(frozen=True)
class Task:
    """What a classifier is to find, and with what.

    Attributes:
        category: the recipe's part.
        clip: the CLIP of the index.
        text_dir: the finished stage `clip`, where the CLIP's text tower was trained by the run.
    """

    category: Category
    clip: ClipConfig
    text_dir: Path | None = None


class Estimator(ABC):
    """Base of the kinds of classifiers. A kind is a frozen dataclass of its settings; `table.KINDS` lists all.

    Attributes:
        kind: the name in recipes and files.
        SHAPES: tensor of a fitted one -> its dimensions, a letter each: D numbers per embedding, others as the kind likes.
        NEEDS_TEXT: whether it compares images with text, so that it depends on the CLIP's text tower.
    """

    kind: ClassVar[str]
    SHAPES: ClassVar[Mapping[str, str]]
    NEEDS_TEXT: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def grid(cls, task: Task) -> "Sequence[Estimator]":
        """The settings to choose from, at least one."""

    @classmethod
    def sturdiest(cls, grid: "Sequence[Estimator]") -> "Sequence[tuple[Estimator, ...]]":
        """What of the grid is taken unless another candidate is clearly better, alone or as an average; most kinds have nothing such."""
        return ()

    @classmethod
    def partner(cls, grid: "Sequence[Estimator]") -> "Estimator":
        """The one of the grid that goes into averages with other kinds."""
        return grid[0]

    @abstractmethod
    def fit(self, data: TrainingSet, *, seed: int = 0) -> Classifier:
        """Fit it with both classes balanced.

        Args:
            data: both labels must occur.
            seed: of random numbers, where the kind draws any.

        Raises:
            FilterError: a class is missing, or a number is not finite.
        """

    @classmethod
    def score_held_out(cls, estimators: "Sequence[Estimator]", data: TrainingSet, held_out: NDArray[Any], *, seed: int) -> Iterator[Floats]:
        """Scores of held-out embeddings (M, D) by each estimator of this kind, fitted to the data: float64 (M,) each."""
        for estimator in estimators:
            yield estimator.fit(data, seed=seed).score(held_out).astype(np.float64)

    @classmethod
    @abstractmethod
    def build(cls, preparation: Preparation, tensors: Mapping[str, Tensor]) -> Classifier:
        """The fitted classifier of its tensors, those of the preparation taken off."""

    def settings(self) -> dict[str, float]:
        """The settings as plain data, for the report."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]  # every kind is a dataclass

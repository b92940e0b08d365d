"""Fit classifiers with scikit-learn and take them apart into tensors."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import FilterError
from .classifier import Classifier, Floats, Linear, Mlp, Preparation, RbfSvm

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


def fit_kind(kind: str, settings: Mapping[str, float], data: TrainingSet, *, seed: int = 0) -> Classifier:
    """Fit one kind of classifier with both classes balanced.

    Args:
        kind: `rbf_svm` (settings gamma and C), `logistic` (C) or `mlp` (width, alpha); `zero_shot` is not fitted.
        settings: scikit-learn's names.
        data: both labels must occur.
        seed: of the initial weights of `mlp`; the others draw no random numbers.

    Raises:
        FilterError: a class is missing, or a number is not finite.
    """
    check_training(data)
    preparation = Preparation.fit(data.embeddings)
    x, weights = preparation.apply(data.embeddings).numpy(), balance(data.weights, data.labels)
    if kind == "rbf_svm":
        return fit_rbf_svm(preparation, x, data, weights, settings)
    if kind == "logistic":
        return fit_logistic(preparation, x, data, weights, settings)
    return fit_mlp(preparation, x, data, weights, settings, seed)


def fit_rbf_svm(preparation: Preparation, x: Floats, data: TrainingSet, weights: Floats, settings: Mapping[str, float]) -> RbfSvm:
    """`sklearn.svm.SVC` with an RBF kernel on prepared embeddings."""
    from sklearn.svm import SVC

    machine = SVC(C=settings["C"], gamma=settings["gamma"], cache_size=500).fit(x, data.labels, sample_weight=weights)
    return RbfSvm(preparation, torch.from_numpy(shorten_exactly(data.embeddings[machine.support_])),
                  torch.from_numpy(machine.dual_coef_[0].copy()), torch.tensor(machine.intercept_[0], dtype=torch.float64),
                  torch.tensor(settings["gamma"], dtype=torch.float64))


def shorten_exactly(rows: NDArray[Any]) -> NDArray[Any]:
    """Rows as float16 where that changes no number, as for what an index holds; else as they are."""
    with np.errstate(over="ignore"):
        short = rows.astype(np.float16)
    return short if np.array_equal(short, rows) else np.ascontiguousarray(rows)


def fit_logistic(preparation: Preparation, x: Floats, data: TrainingSet, weights: Floats, settings: Mapping[str, float]) -> Linear:
    """`sklearn.linear_model.LogisticRegression` on prepared embeddings."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=settings["C"], max_iter=1000).fit(x, data.labels, sample_weight=weights)
    return Linear("logistic", preparation, torch.from_numpy(model.coef_[0].copy()), torch.tensor(model.intercept_[0], dtype=torch.float64))


MLP_GAIN = 4.0  # prepared embeddings are short for a network's usual initial weights


def fit_mlp(preparation: Preparation, x: Floats, data: TrainingSet, weights: Floats, settings: Mapping[str, float], seed: int) -> Mlp:
    """`sklearn.neural_network.MLPClassifier` with one hidden layer on prepared embeddings, fitted in float32."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    network = MLPClassifier((int(settings["width"]),), alpha=settings["alpha"], batch_size=min(64, len(x)), max_iter=60, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 60 epochs are meant as they are
        network.fit((MLP_GAIN * x).astype(np.float32), data.labels, sample_weight=weights)
    (hidden, output), (hidden_bias, intercept) = network.coefs_, network.intercepts_
    return Mlp(preparation, torch.from_numpy(MLP_GAIN * hidden.T.astype(np.float64)), torch.from_numpy(hidden_bias.astype(np.float64)),
               torch.from_numpy(output[:, 0].astype(np.float64)), torch.tensor(float(intercept[0]), dtype=torch.float64))


def zero_shot(image_mean: NDArray[Any] | None, prompts: NDArray[Any]) -> Linear:
    """A CLIP as it is: the cosine of an image with the mean of the prompts.

    Args:
        image_mean: (D,), taken off image embeddings before they are compared with text; None: nothing.
        prompts: (P, D), embeddings of the prompts, each of length 1.

    Raises:
        FilterError: the prompts cancel out or are not finite.
    """
    mean = np.asarray(prompts, dtype=np.float64).mean(0)
    length = float(np.linalg.norm(mean))
    if not length > 1e-6:
        raise FilterError("zero_shot: the prompts' embeddings cancel out; word them otherwise")
    center = np.zeros_like(mean) if image_mean is None else np.asarray(image_mean, dtype=np.float64)
    preparation = Preparation(torch.from_numpy(center), torch.ones(len(mean), dtype=torch.float64))
    return Linear("zero_shot", preparation, torch.from_numpy(mean / length), torch.tensor(0.0, dtype=torch.float64))


def score_rbf_grid(data: TrainingSet, held_out: NDArray[Any], settings: Sequence[Mapping[str, float]]) -> Iterator[Floats]:
    """Scores of held-out embeddings by one RBF machine per setting, all from one matrix of distances: float64 (M,) each.

    Quicker than fitting one by one: the distances are one matrix product, and the kernels are handed to scikit-learn.
    """
    from sklearn.svm import SVC

    preparation, weights = Preparation.fit(data.embeddings), balance(data.weights, data.labels)
    x, z = preparation.apply(data.embeddings).numpy(), preparation.apply(held_out).numpy()
    among, across = squared_distances(x, x), squared_distances(z, x)
    for setting in settings:
        machine = SVC(C=setting["C"], kernel="precomputed", cache_size=500)
        machine.fit(np.exp(-setting["gamma"] * among), data.labels, sample_weight=weights)
        kernel = np.exp(-setting["gamma"] * across[:, machine.support_])
        yield kernel @ machine.dual_coef_[0] + machine.intercept_[0]


def squared_distances(a: Floats, b: Floats) -> Floats:
    """|a_i - b_j|^2: float64 (N, M)."""
    return np.asarray(np.maximum((a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T, 0))

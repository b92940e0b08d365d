"""What a classifier learns from: which train labels, with what weight, and the kernel, chosen on train labels alone."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .classifier import balance, centre, check_training
from .labels import Label
from .sources import hash_share

POSITIVE_SHARE = 0.3
REGULARISATION = 3.0
GAMMAS = (0.5, 1.0, 1.5, 2.0, 3.0)
NUM_FOLDS = 5
RECALLS = np.linspace(0.9, 1.0, 11)

Concepts = NDArray[np.object_]
Values = NDArray[np.int64]


@dataclass(frozen=True)
class Kernel:
    """The chosen machine.

    Attributes:
        regularisation: scikit-learn's C.
        gamma: of the kernel exp(-gamma |z - v|^2) on vectors of length 1.
        table: every candidate with its kept share on concepts left out; empty when there were too few concepts.
    """

    regularisation: float
    gamma: float
    table: list[dict[str, float]]


def choose_training(labels: Sequence[Label], max_labels: int) -> NDArray[np.int64]:
    """Places of the train labels to use, sorted: int64 (M,), M <= max_labels.

    Concepts take turns: one label of each before the second of any, concepts and labels in the order of their hashes.
    Three positives go with seven negatives, because what must be kept is more varied than what must go; a class that
    runs out leaves its turns to the other.
    """
    depth: dict[tuple[int, str], int] = defaultdict(int)
    queues: dict[int, list[tuple[int, float, int]]] = {0: [], 1: []}
    places = [place for place, label in enumerate(labels) if label.role == "train"]
    for place in sorted(places, key=lambda place: hash_share("training", labels[place].key)):
        label = labels[place]
        turn = label.label, label.concept
        queues[label.label].append((depth[turn], hash_share("training", label.concept), place))
        depth[turn] += 1
    shares = {1: POSITIVE_SHARE, 0: 1 - POSITIVE_SHARE}
    turns = sorted((number / shares[value], value, place) for value, queue in queues.items()
                   for number, (_, _, place) in enumerate(sorted(queue)))
    return np.sort(np.array([place for _, _, place in turns[:max_labels]], dtype=np.int64))


def concept_weights(concepts: Concepts) -> NDArray[np.float64]:
    """Weights that keep a concept of many variants from dominating: 1 / sqrt(labels of the concept). float64 (N,)."""
    _, inverse, counts = np.unique(concepts.astype(str), return_inverse=True, return_counts=True)
    return np.asarray(1 / np.sqrt(counts[inverse]), dtype=np.float64)


def choose_kernel(embeddings: NDArray[Any], labels: Values, concepts: Concepts) -> Kernel:
    """Choose gamma by cross-validation in which the variants of a concept are left out together.

    A candidate is worth the share of negatives that stays, averaged over thresholds of recall 0.90 to 1.00, on scores
    of concepts left out. With positives of fewer than two concepts nothing can be left out and the middle is taken.

    Args:
        embeddings: (N, D), any float type.
        labels: int64 (N,).
        concepts: str (N,).

    Raises:
        FilterError: a class is missing, or a number is not finite.
    """
    check_training(embeddings, labels)
    folds = assign_folds(concepts, labels)
    middle = GAMMAS[len(GAMMAS) // 2]
    if len(np.unique(folds[labels == 1])) < 2 or len(np.unique(folds[labels == 0])) < 2:
        return Kernel(REGULARISATION, middle, [])
    z = centre(embeddings, np.asarray(embeddings, dtype=np.float64).mean(0))
    distances = np.maximum(2 - 2 * z @ z.T, 0)
    weights = concept_weights(concepts)
    table = [{"gamma": gamma, "kept_share": round(measure_kernel(np.exp(-gamma * distances), labels, weights, folds), 4)} for gamma in GAMMAS]
    best = max(table, key=lambda row: (row["kept_share"], -abs(row["gamma"] - middle)))
    return Kernel(REGULARISATION, best["gamma"], table)


def assign_folds(concepts: Concepts, labels: Values) -> NDArray[np.int64]:
    """A fold per example: concepts in the order of their hash, those with positives first, dealt out in turn."""
    has_positive = set(concepts[labels == 1])
    ordered = sorted(set(concepts), key=lambda concept: (concept not in has_positive, hash_share("fold", concept)))
    fold = {concept: place % NUM_FOLDS for place, concept in enumerate(ordered)}
    return np.array([fold[concept] for concept in concepts], dtype=np.int64)


def measure_kernel(kernel: NDArray[np.float64], labels: Values, weights: NDArray[np.float64], folds: NDArray[np.int64]) -> float:
    """Mean share of negatives below the thresholds of `RECALLS`, on scores of left-out concepts.

    Args:
        kernel: float64 (N, N), the kernel of each pair of examples.
        labels, weights, folds: per example.
    """
    from sklearn.svm import SVC

    scores = np.full(len(labels), np.nan)
    for fold in np.unique(folds):
        rest, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        if len(np.unique(labels[rest])) < 2:
            continue
        machine = SVC(C=REGULARISATION, kernel="precomputed", cache_size=500)
        machine.fit(kernel[np.ix_(rest, rest)], labels[rest], sample_weight=balance(weights[rest], labels[rest]))
        scores[held] = kernel[np.ix_(held, rest[machine.support_])] @ machine.dual_coef_[0] + machine.intercept_[0]
    scored = np.isfinite(scores)
    positives, negatives = np.sort(scores[scored & (labels == 1)]), np.sort(scores[scored & (labels == 0)])
    thresholds = np.quantile(positives, 1 - RECALLS, method="lower")
    return float(np.mean(np.searchsorted(negatives, thresholds, side="left") / len(negatives)))

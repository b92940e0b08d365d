"""What a classifier learns from: which train labels, and with what weight."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .labels import Label
from .sources import hash_share

POSITIVE_SHARE = 0.3


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


def concept_weights(concepts: NDArray[np.object_]) -> NDArray[np.float64]:
    """Weights that keep a concept of many variants from dominating: 1 / sqrt(labels of the concept). float64 (N,)."""
    _, inverse, counts = np.unique(concepts.astype(str), return_inverse=True, return_counts=True)
    return np.asarray(1 / np.sqrt(counts[inverse]), dtype=np.float64)

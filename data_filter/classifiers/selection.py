"""Which train labels a classifier learns from, and which kind of classifier is taken, by cross-validation within them.

The criterion is the share of negatives kept while nearly all positives are caught, on scores of concepts that the fitted
classifier had not seen. At one recall of 0.99 it hangs on one or two positives of a few hundred, so it is averaged over
several recalls near it, and a candidate must beat the first one by a margin. Where everything is kept the simplest is
taken. On drawings, clip art and photographs this kept more of the others than choosing at 0.99 alone, and than any single
machine; `docs/measured.md` has the figures.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ...store.vocabulary import Role
from ..sources.source import hash_share
from ..sources.turns import take_turns
from .calibration import Calibration, fit_calibration
from .kinds.average import AVERAGE, Average
from .kinds.classifier import Classifier, Floats
from .kinds.estimator import Estimator, Labels, Task, TrainingSet, check_training
from .kinds.table import find_kind, simplicity

POSITIVE_SHARE = 0.3
NUM_FOLDS = 5
MAX_CROSS_VALIDATED = 1500
RECALLS = (0.95, 0.97, 0.98, 0.99)
MARGIN = 0.1
MIN_POSITIVES = 20  # with fewer, cross-validation cannot tell candidates apart and the first is taken
ALL_KEPT = 0.999


class Labelled(Protocol):
    """What of a label is needed to choose."""

    @property
    def key(self) -> str:
        """The input."""

    @property
    def concept(self) -> str:
        """What it shows."""

    @property
    def role(self) -> str:
        """Role of the label."""

    @property
    def label(self) -> int | None:
        """1, 0, or None where people disagree: such a label is not used."""


def choose_training(labels: Sequence[Labelled], max_labels: int) -> NDArray[np.int64]:
    """Places of the train labels to use, sorted: int64 (M,), M <= max_labels.

    Concepts take turns: one label of each before the second of any, concepts and labels in the order of their hashes.
    Three positives go with seven negatives, because what must be kept is more varied than what must go; a class that
    runs out leaves its turns to the other.
    """
    turns = []
    for value, share in ((0, 1 - POSITIVE_SHARE), (1, POSITIVE_SHARE)):
        places = [place for place, label in enumerate(labels) if label.role == Role.TRAIN and label.label == value]
        ordered = take_turns(places, lambda place: labels[place].concept, lambda place: hash_share("training", labels[place].key),
                             partial(hash_share, "training"))
        turns += [(number / share, value, place) for number, place in enumerate(ordered)]
    turns.sort()
    return np.sort(np.array([place for _, _, place in turns[:max_labels]], dtype=np.int64))


def concept_weights(concepts: NDArray[np.object_]) -> NDArray[np.float64]:
    """Weights that keep a concept of many variants from dominating: 1 / sqrt(labels of the concept). float64 (N,)."""
    _, inverse, counts = np.unique(concepts.astype(str), return_inverse=True, return_counts=True)
    return np.asarray(1 / np.sqrt(counts[inverse]), dtype=np.float64)


@dataclass(frozen=True)
class Candidate:
    """A classifier that may be taken: one estimator, or the average of two.

    Attributes:
        parts: the estimators.
    """

    parts: tuple[Estimator, ...]

    @property
    def kind(self) -> str:
        """The kind of the one part, or `average`."""
        return self.parts[0].kind if len(self.parts) == 1 else AVERAGE

    def to_json(self) -> dict[str, Any]:
        """The candidate as plain data."""
        return {"kind": self.kind, "parts": [{"kind": part.kind, **dict(sorted(part.settings().items()))} for part in self.parts]}


def list_candidates(task: Task) -> list[Candidate]:
    """What there is to choose from, the sturdiest first: it is taken unless another is clearly better.

    First what a kind calls its sturdiest. Then averages of two kinds, then single estimators, in the recipe's order.

    Raises:
        FilterError: the recipe names a kind that is none.
    """
    grids = {kind: kind.grid(task) for kind in map(find_kind, dict.fromkeys(task.category.classifiers))}
    first = [Candidate(parts) for kind, grid in grids.items() for parts in kind.sturdiest(grid)]
    single = [Candidate((estimator,)) for grid in grids.values() for estimator in grid]
    partners = [kind.partner(grid) for kind, grid in grids.items()]
    return [*first, *(Candidate(pair) for pair in combinations(partners, 2)), *(candidate for candidate in single if candidate not in first)]


def assign_folds(concepts: NDArray[np.object_], labels: Labels, num_folds: int) -> NDArray[np.int64]:
    """Fold of each example: concepts stay whole, and each next concept, the largest first, joins the fold that lacks its class most.

    Concepts of one size come in the order of their hash, so the result does not depend on the order of the examples. int64 (N,).
    """
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for concept, label in zip(concepts, labels, strict=True):
        counts[concept][label] += 1
    filled = np.zeros((num_folds, 2))
    fold_of = {}
    for concept in sorted(counts, key=lambda name: (-sum(counts[name]), hash_share("fold", name), name)):
        label = int(counts[concept][1] > 0)
        fold = min(range(num_folds), key=lambda n: (filled[n, label], filled[n].sum(), n))
        filled[fold] += counts[concept]
        fold_of[concept] = fold
    return np.array([fold_of[concept] for concept in concepts], dtype=np.int64)


def kept_shares(scores: Floats, labels: Labels) -> list[float]:
    """The share of negatives below the threshold that catches each of `RECALLS` of the positives."""
    positives, negatives = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    places = [int(np.floor((1 - recall) * len(positives) + 1e-9)) for recall in RECALLS]
    return [float(np.searchsorted(negatives, positives[place], side="left") / len(negatives)) for place in places]


@dataclass(frozen=True)
class Selection:
    """What cross-validation chose.

    Attributes:
        chosen: the candidate.
        calibrations: of the parts of an average, from part to calibration; empty for a single kind.
        folds: int64 (N,), fold of each example of the cross-validated ones; all 0 without cross-validation.
        out_of_fold: float64 (N,), the chosen one's scores of examples that it was not fitted to; None without cross-validation.
        report: plain data for classifier.json.
    """

    chosen: Candidate
    calibrations: Mapping[int, Calibration]
    folds: NDArray[np.int64]
    out_of_fold: Floats | None
    report: dict[str, Any]


def select(candidates: Sequence[Candidate], data: TrainingSet, concepts: NDArray[np.object_], *, seed: int = 0) -> Selection:
    """Choose among candidates by cross-validation that keeps concepts whole.

    Args:
        candidates: from `list_candidates`.
        data: train labels with their embeddings.
        concepts: (N,), what each example shows.
        seed: see `Estimator.fit`.

    Raises:
        FilterError: a class is missing, or a number is not finite.
    """
    check_training(data)
    num_folds = min(NUM_FOLDS, *(len(set(concepts[data.labels == label])) for label in (0, 1)))
    folds = assign_folds(concepts, data.labels, num_folds)
    if num_folds < 2 or any(len(set(data.labels[folds != fold])) < 2 for fold in range(num_folds)):
        single = next(candidate for candidate in candidates if len(candidate.parts) == 1)
        report: dict[str, Any] = {"method": "none: cross-validation needs two concepts of each label", "chosen": single.to_json()}
        return Selection(single, {}, np.zeros(len(concepts), dtype=np.int64), None, report)
    parts = list(dict.fromkeys(part for candidate in candidates for part in candidate.parts))
    scores = cross_validate(parts, data, folds, seed)
    odds = {part: fit_calibration(scores[part], data.labels) for part in parts}
    pooled = [scores[c.parts[0]] if len(c.parts) == 1 else np.mean([odds[part].log_odds(scores[part]) for part in c.parts], axis=0)
              for c in candidates]
    shares = [kept_shares(values, data.labels) for values in pooled]
    place = choose(candidates, [float(np.mean(found)) for found in shares], int(data.labels.sum()))
    chosen = candidates[place]
    report = {"method": "cross-validation over concepts", "num_folds": num_folds, "num_labels": len(concepts), "recalls": list(RECALLS),
              "margin": MARGIN, "min_positives": MIN_POSITIVES, "chosen": chosen.to_json(),
              "candidates": [candidate.to_json() | {"kept_shares": found} for candidate, found in zip(candidates, shares, strict=True)]}
    calibrations = {n: odds[part] for n, part in enumerate(chosen.parts)} if len(chosen.parts) > 1 else {}
    return Selection(chosen, calibrations, folds, pooled[place], report)


def choose(candidates: Sequence[Candidate], criteria: Sequence[float], num_positive: int) -> int:
    """Place of the candidate to take.

    The first, unless the best beats it by `MARGIN` on at least `MIN_POSITIVES` positives; where it keeps everything, the
    simplest that does.
    """
    best = max(range(len(candidates)), key=lambda place: (criteria[place], -place))
    taken = best if criteria[best] > criteria[0] + MARGIN and num_positive >= MIN_POSITIVES else 0
    if criteria[taken] < ALL_KEPT:
        return taken
    perfect = [place for place, value in enumerate(criteria) if value >= ALL_KEPT]
    return min(perfect, key=lambda place: (simplicity(candidates[place].kind), place))


def cross_validate(parts: Sequence[Estimator], data: TrainingSet, folds: NDArray[np.int64], seed: int) -> dict[Estimator, Floats]:
    """Scores of every example by a classifier that was fitted without its fold: estimator -> float64 (N,)."""
    scores = {part: np.zeros(len(folds)) for part in parts}
    of_kind: dict[type[Estimator], list[Estimator]] = defaultdict(list)
    for part in parts:
        of_kind[type(part)].append(part)
    for fold in range(int(folds.max()) + 1):
        held_out = folds == fold
        learned, rows = data.take(~held_out), data.embeddings[held_out]
        for kind, estimators in of_kind.items():
            for estimator, values in zip(estimators, kind.score_held_out(estimators, learned, rows, seed=seed), strict=True):
                scores[estimator][held_out] = values
    return scores


def fit_chosen(selection: Selection, data: TrainingSet, *, seed: int = 0) -> Classifier:
    """Fit what cross-validation chose to all train labels."""
    members = [part.fit(data, seed=seed) for part in selection.chosen.parts]
    if len(members) == 1:
        return members[0]
    calibrations = [selection.calibrations[number] for number in range(len(members))]
    return Average(members, torch.tensor([one.slope for one in calibrations], dtype=torch.float64),
                   torch.tensor([one.offset for one in calibrations], dtype=torch.float64))

"""The stage `classifiers/<category>`: choose a classifier by cross-validation, fit it to train labels, calibrate it."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...errors import FilterError
from ...recipe.filters import Category, ClipConfig
from ...recipe.stage_settings import CLASSIFIER_FIELDS
from ...store.digests import sha256_file
from ...store.records import Record, read_record, run_stage
from ...store.run_layout import RunLayout, classifier_stage
from ...store.vocabulary import Role, Status
from ...store.whole_files import write_json
from ..index.parquet import write_table
from ..labels.labelled import Labelled, LabelledSet, check_labels, count_roles, resolve_labels
from .calibration import Calibration, fit_calibration, measure_reliability
from .file import load_classifier, save_classifier
from .fitted import CLASSIFIER_NAME, FORMAT, REPORT_NAME, TRAINING_NAME
from .kinds.classifier import Classifier
from .kinds.estimator import Task, TrainingSet
from .kinds.table import find_kind
from .selection import MAX_CROSS_VALIDATED, Selection, choose_training, concept_weights, fit_chosen, list_candidates, select

TRAINING_SCHEMA = pa.schema([
    pa.field("key", pa.string(), nullable=False), pa.field("label", pa.int8(), nullable=False),
    pa.field("fold", pa.int8()), pa.field("out_of_fold_score", pa.float32())])


def fit_classifier(category: Category, layout: RunLayout, *, clip: ClipConfig | None = None, seed: int = 0) -> Record:
    """Run the stage `classifiers/<category>`.

    Args:
        category: what to find, and which kinds of classifiers to choose from.
        layout: of the run; `index` and `labels` are finished, for kinds that compare images with text by lite0 `clip` too.
        clip: the CLIP of the index, for kinds that compare images with text.
        seed: see `Estimator.fit`.

    Raises:
        FilterError: too few labels for a classifier or a threshold; the message says which.
        StageError, StorageError: as in `run_stage`.
    """
    inputs = {"index": read_record(layout.index).digest, "labels": read_record(layout.labels).digest}
    text_dir = layout.clip if clip is not None and clip.model == "lite0" else None
    if text_dir is not None and any(find_kind(name).NEEDS_TEXT for name in category.classifiers):
        inputs["clip"] = read_record(text_dir).digest
    config = category.model_dump(mode="json", include=set(CLASSIFIER_FIELDS)) | {"seed": seed, "format": FORMAT}

    def work(partial: Path) -> dict[str, Any]:
        labelled = resolve_labels(layout)
        data = labelled.embedded_set(category.name)
        check_joined(category.name, data, labelled)
        return write_classifier(Task(category, clip or ClipConfig(), text_dir), data, partial, seed)

    return run_stage(layout.classifier(category.name), stage=classifier_stage(category.name), config=config, inputs=inputs, work=work)


def check_joined(category: str, data: LabelledSet, labelled: Labelled) -> None:
    """Refuse labels that cannot give a filter.

    Raises:
        FilterError: no positives or no negatives to learn from; says how many labelled inputs have no embedding, and why.
    """
    try:
        check_labels(category, count_roles(data.values, data.roles))
    except FilterError as error:
        lost = count_lost(category, data, labelled)
        if not lost:
            raise
        reasons = ", ".join(f"{number} x {reason}" for reason, number in sorted(lost.items()))
        many = f"{lost.total()} labelled inputs have" if lost.total() > 1 else "1 labelled input has"
        raise FilterError(f"{error}. {many} no embedding ({reasons})") from error


def count_lost(category: str, data: LabelledSet, labelled: Labelled) -> Counter[str]:
    """Why labelled inputs have no embedding: reason in the index -> number of inputs."""
    agreed = {key for key, judgement in labelled.judgements_of(category).items() if not judgement.is_ambiguous}
    lost = agreed - {judgement.key for judgement in data.judgements}
    rows = labelled.rows.select(["key", "status", "reason"]).to_pylist()
    return Counter(row["reason"] if row["status"] == Status.BAD else "its embedding is no number" for row in rows if row["key"] in lost)


def write_classifier(task: Task, data: LabelledSet, directory: Path, seed: int) -> dict[str, Any]:
    """Choose, fit, calibrate and write; returns the summary."""
    counts = count_roles(data.values, data.roles)
    chosen = choose_training(data.judgements, task.category.max_train_labels)
    training = training_set(data, chosen)
    selection = choose_classifier(task, data, chosen, seed)
    save_classifier(fit_chosen(selection, training, seed=seed), directory / CLASSIFIER_NAME)
    num_positive, num_negative = counts[Role.TRAIN]
    calibration = None if selection.out_of_fold is None else fit_calibration(
        selection.out_of_fold, training.labels, positive_share=num_positive / (num_positive + num_negative))
    unscored = [None] * len(chosen)
    write_table(directory / TRAINING_NAME, pa.table({
        "key": [data.judgements[number].key for number in chosen], "label": training.labels,
        "fold": unscored if selection.out_of_fold is None else selection.folds,
        "out_of_fold_score": unscored if selection.out_of_fold is None else selection.out_of_fold.astype(np.float32)}, schema=TRAINING_SCHEMA))
    sha256 = sha256_file(directory / CLASSIFIER_NAME)
    write_json(directory / REPORT_NAME, {
        "format": FORMAT, "category": task.category.name, "sha256": sha256, **selection.chosen.to_json(),
        "num_train": {"positive": int((training.labels == 1).sum()), "negative": int((training.labels == 0).sum())},
        "num_ambiguous": data.num_ambiguous, "selection": selection.report,
        "calibration": None if calibration is None else calibration.to_json(),
        "reliability": None if calibration is None else reliability(data, load_classifier(directory / CLASSIFIER_NAME), calibration)})
    return {"classifier_sha256": sha256, "kind": selection.chosen.kind, "num_train_labels": len(chosen)}


def choose_classifier(task: Task, data: LabelledSet, chosen: NDArray[np.int64], seed: int) -> Selection:
    """Choose by cross-validation, which takes at most `MAX_CROSS_VALIDATED` labels; the scores out of fold are those of all chosen labels."""
    part = chosen if len(chosen) <= MAX_CROSS_VALIDATED else choose_training(data.judgements, MAX_CROSS_VALIDATED)
    selection = select(list_candidates(task), training_set(data, part), data.concepts[part], seed=seed)
    if len(part) == len(chosen):
        return selection
    whole = select([selection.chosen], training_set(data, chosen), data.concepts[chosen], seed=seed)
    return replace(whole, report=selection.report)


def training_set(data: LabelledSet, chosen: NDArray[np.int64]) -> TrainingSet:
    """The chosen examples with their weights."""
    return TrainingSet(data.embeddings[chosen], data.values[chosen], concept_weights(data.concepts[chosen]))


def reliability(data: LabelledSet, classifier: Classifier, calibration: Calibration) -> dict[str, Any]:
    """How well the probabilities fit the calibrate labels, of which neither classifier nor calibration knows."""
    held_out = data.roles == Role.CALIBRATE
    probabilities = calibration.probability(classifier.score(data.embeddings[held_out]))
    return {"labels": Role.CALIBRATE.value} | measure_reliability(probabilities, data.values[held_out])

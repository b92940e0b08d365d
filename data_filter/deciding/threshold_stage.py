"""The stage `filters/<category>`: threshold and evidence from scores and labels. No forward pass, no fit: seconds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from ...errors import FilterError
from ...pictures.decode import decode_image
from ...pictures.refusals import Refusal
from ...pictures.sheets import labelled_sheet, png_bytes
from ...recipe.filters import Category
from ...store.digests import sha256_file
from ...store.records import Record, check_outputs, read_record, run_stage
from ...store.vocabulary import Role, Status
from ...store.whole_files import read_json, write_bytes, write_json
from ..classifiers.fit_stage import CLASSIFIER_NAME, REPORT_NAME, TRAINING_NAME
from ..classifiers.score_stage import read_scores
from ..index.parquet import read_table, write_table
from ..index.stage import read_images
from ..labels.join import check_labels, count_roles, read_judgements
from ..labels.stage import Judgement
from ..sources.source import Source, joined_captions
from .filter_figures import SCORES_SCHEMA, combined_scores, measure_filter
from .plots import plot_precision_recall
from .statistics import choose_threshold

ENOUGH_HELD_OUT = 1000  # positives: at a recall of 0.99 the ten lowest decide
FORMAT = "glideslope.filter/4"
FILTER_NAME, SCORES_NAME = "filter.json", "scores.parquet"
MAX_MISSED = 60  # pictures on the sheet of the missed


@dataclass(frozen=True)
class Stages:
    """Where the finished stages lie that a filter is made of."""

    index: Path
    labels: Path
    classifier: Path
    scores: Path

    def inputs(self, category: str) -> dict[str, str]:
        """Their digests, for the record."""
        return {"index": read_record(self.index).digest, "labels": read_record(self.labels).digest,
                f"classifiers/{category}": read_record(self.classifier).digest, f"scores/{category}": read_record(self.scores).digest}


@dataclass(frozen=True)
class Filter:
    """A finished filter: name of its category, digest of its classifier, threshold."""

    category: str
    sha256: str
    threshold: float


def build_filter(category: Category, stages: Stages, source: Source, directory: Path) -> Record:
    """Run the stage `filters/<category>`.

    Args:
        category: what to find, and the target recall.
        stages: finished; the scores must come from the classifier.
        source: read for the pictures of the missed only.
        directory: the stage's directory.

    Raises:
        FilterError: too few labels for a threshold; the message says which.
        StageError, StorageError: as in `run_stage`.
    """
    inputs = stages.inputs(category.name)
    if read_record(stages.scores).inputs.get(f"classifiers/{category.name}") != inputs[f"classifiers/{category.name}"]:
        raise FilterError(f"{stages.scores}: scores of another classifier than {stages.classifier}; score the index again")

    def work(partial: Path) -> dict[str, Any]:
        for stage in (stages.classifier, stages.scores):
            check_outputs(stage, read_record(stage))
        return write_filter(category, stages, source, partial)

    config = category.without_places()
    return run_stage(directory, stage=f"filters/{category.name}", config=config, inputs=inputs, work=work)


def write_filter(category: Category, stages: Stages, source: Source, directory: Path) -> dict[str, Any]:
    """Choose the threshold, measure and write; returns the summary."""
    report = read_json(stages.classifier / REPORT_NAME)
    judgements = read_judgements(category.name, stages.index, stages.labels)
    training = read_table(stages.classifier / TRAINING_NAME, columns=["key", "out_of_fold_score"])
    out_of_fold = dict(zip(training["key"].to_pylist(), training["out_of_fold_score"].to_pylist(), strict=True))
    scores = tabulate_scores({key: one for key, one in judgements.items() if not one.is_ambiguous}, set(out_of_fold), stages)
    values, roles = scores["label"].to_numpy(), np.array(scores["role"].to_pylist(), dtype=object)
    check_labels(category.name, count_roles(values, roles))
    threshold, set_on = set_threshold(category, scores, out_of_fold)
    evidence = measure_filter(scores, threshold)
    write_table(directory / SCORES_NAME, scores)
    for name in (CLASSIFIER_NAME, REPORT_NAME):
        write_bytes(directory / name, (stages.classifier / name).read_bytes())
    num_ambiguous = sum(one.is_ambiguous for one in judgements.values())
    num_without_score = len(judgements) - num_ambiguous - len(scores)
    write_json(directory / FILTER_NAME, {
        "format": FORMAT,
        "category": {"name": category.name, "counts": category.counts, "does_not_count": category.does_not_count},
        "target_recall": category.target_recall, "threshold": threshold, "threshold_set_on": set_on,
        "classifier": {"kind": report["kind"], "parts": report["parts"], "sha256": report["sha256"]},
        "judges": {"caption_words": list(category.caption_words),
                   "detectors": [{"name": detector.name, "threshold": detector.threshold} for detector in category.detectors]},
        "num_ambiguous": num_ambiguous, "num_labels_without_score": num_without_score} | evidence)
    write_bytes(directory / "precision_recall.png", plot_precision_recall(category.name, evidence["curve"], evidence["test"]))
    if evidence["missed"]:
        write_bytes(directory / "missed.png", draw_missed(evidence["missed"], source, stages.index))
    test = evidence["test"]
    return {"classifier_sha256": report["sha256"], "threshold": threshold, "num_positive": test["num_positive"], "recall": test["recall"],
            "recall_lower_bound": round_down(test["recall_lower_bound"]), "num_missed": len(evidence["missed"]),
            "num_negative": test["num_negative"], "kept_share": test["kept_share"],
            "kept_share_lower_bound": round_down(test["kept_share_lower_bound"]), "num_labels_without_score": num_without_score}


def round_down(bound: float) -> float:
    """A lower bound with four decimals, rounded to the cautious side."""
    return math.floor(round(bound * 10_000, 6)) / 10_000


def tabulate_scores(judgements: Mapping[str, Judgement], trained: set[str], stages: Stages) -> pa.Table:
    """The table of scores.parquet: labelled inputs that have a score; the others are dropped for its lack whatever the threshold."""
    wanted = pa.array(list(judgements), type=pa.string())
    columns: dict[str, list[Any]] = {name: [] for name in SCORES_SCHEMA.names}
    for _, index, scores in read_scores(stages.scores, stages.index, columns=["key", "caption", "captions", "status"]):
        chosen = pc.and_(pc.and_(pc.equal(index["status"], Status.OK), pc.is_in(index["key"], value_set=wanted)), pc.is_valid(scores["score"]))
        found = index.filter(chosen)
        named = [judgements[key] for key in found["key"].to_pylist()]
        columns["key"] += [one.key for one in named]
        columns["concept"] += [one.concept for one in named]
        columns["caption"] += map(joined_captions, found["caption"].to_pylist(), found["captions"].to_pylist())
        columns["label"] += [one.label for one in named]
        columns["role"] += [one.role for one in named]
        columns["in_training"] += [one.key in trained for one in named]
        columns["groups"] += [sorted(one.groups.items()) for one in named]
        columns["score"] += scores["score"].filter(chosen).to_pylist()
        columns["flags"] += scores["flags"].filter(chosen).to_pylist()
    return pa.table(columns, schema=SCORES_SCHEMA)


def set_threshold(category: Category, scores: pa.Table, out_of_fold: Mapping[str, float | None]) -> tuple[float, dict[str, int]]:
    """The conformal threshold from positives that are not test labels; one that another judge flags counts as caught.

    Each is scored by a classifier that was not fitted to its concept: calibrate ones by the classifier itself, train ones, while there
    are fewer than `ENOUGH_HELD_OUT` of the others, by those of the cross-validation. The latter have seen a fifth less and tend to score
    an unseen positive lower, which sets the threshold rather too low (more is caught) than too high. With calibrate ones alone
    the promise of `choose_threshold` is exact, but hangs on the one or two lowest scores where they are few.

    Args:
        category: name and target recall.
        scores: table of `SCORES_SCHEMA`.
        out_of_fold: key of every train example -> its score in cross-validation, None where it had none.

    Returns:
        The threshold, and how many positives of which kind it was set on.

    Raises:
        FilterError: no such positive, or every one is flagged by another judge.
    """
    columns = (scores[name].to_pylist() for name in ("key", "label", "role", "flags"))
    positives = [(key, role, score, flags) for key, label, role, flags, score in zip(*columns, combined_scores(scores).tolist(), strict=True)
                 if label == 1]
    found = [score for _, role, score, _ in positives if role == Role.CALIBRATE]
    crossed = [math.inf if flags else value for key, role, _, flags in positives
               if role == Role.TRAIN and (value := out_of_fold.get(key)) is not None]
    num_held_out, num_crossed = len(found), 0 if len(found) >= ENOUGH_HELD_OUT else len(crossed)
    found += crossed[:num_crossed]
    if not found:
        raise FilterError(f"{category.name}: none of the calibrate labels is positive, and the train labels are too few for a "
                          f"cross-validation, so that nothing can set the threshold; label more images that count as {category.name}")
    try:
        return choose_threshold(found, category.target_recall), {"num_held_out": num_held_out, "num_out_of_fold": num_crossed}
    except ValueError as error:
        raise FilterError(f"{category.name}: all {len(found)} positive labels that could set the classifier's threshold are flagged by "
                          "caption words or detectors, which flag what they cannot judge too (an image without a caption or score); label "
                          "images of the category that they do not flag") from error


def load_filter(category: str, directory: Path) -> Filter:
    """Read a finished filter.

    Raises:
        FilterError: the classifier is not the one that filter.json names, or the threshold is no number.
        StageError: the filter was not built, or was changed since.
    """
    check_outputs(directory, read_record(directory))
    settings = read_json(directory / FILTER_NAME)
    if settings.get("format") != FORMAT:
        raise FilterError(f"{directory / FILTER_NAME}: format is {settings.get('format')!r}, expected {FORMAT!r}")
    threshold, sha256 = settings["threshold"], settings["classifier"]["sha256"]
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not np.isfinite(threshold):
        raise FilterError(f"{directory / FILTER_NAME}: threshold is {threshold!r}, expected a number")
    if (found := sha256_file(directory / CLASSIFIER_NAME)) != sha256:
        raise FilterError(f"{directory / CLASSIFIER_NAME}: sha256 is {found[:12]}…, filter.json names {sha256[:12]}…; fit the filter again")
    return Filter(category, sha256, float(threshold))


def draw_missed(missed: Sequence[Mapping[str, Any]], source: Source, index_dir: Path) -> bytes:
    """A contact sheet of the missed, the worst first, at most `MAX_MISSED`: PNG bytes."""
    shown = missed[:MAX_MISSED]
    wanted = {row["key"] for row in shown}
    images = read_images(source, index_dir, wanted)
    pictures = []
    for row in shown:
        try:
            picture = Image.fromarray(decode_image(images.get(row["key"], b""), max_pixels=10**9))
        except Refusal:
            picture = Image.new("RGB", (64, 64), "#d0d7de")
        pictures.append((picture, str(row["caption"]), f"{row['key']}  {row['score']:.3f}"))
    return png_bytes(labelled_sheet(pictures), optimize=False)

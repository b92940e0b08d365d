"""The stage `filters/<category>`: threshold and evidence from scores and labels. No forward pass, no fit: seconds."""

import math
from collections.abc import Collection, Mapping, Sequence
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
from ...store.records import Record, check_outputs, read_record, run_stage
from ...store.run_layout import RunLayout, classifier_stage, filter_stage, scores_stage
from ...store.vocabulary import Role, Status
from ...store.whole_files import read_json, write_bytes, write_json
from ..classifiers.fitted import CLASSIFIER_NAME, REPORT_NAME, TRAINING_NAME
from ..classifiers.scores import read_row_scores
from ..index.parquet import read_table, write_table
from ..index.read import read_images
from ..labels.labelled import Labelled, check_labels, count_roles, resolve_labels
from ..labels.store import Judgement
from ..sources.source import Source
from .filter_figures import SCORES_SCHEMA, combined_scores, measure_filter
from .plots import plot_precision_recall
from .statistics import choose_threshold
from .threshold import FILTER_NAME, FORMAT, SCORES_NAME

ENOUGH_HELD_OUT = 1000  # positives: at a recall of 0.99 the ten lowest decide
MAX_MISSED = 60  # pictures on the sheet of the missed

def build_filter(category: Category, layout: RunLayout, source: Source) -> Record:
    """Run the stage `filters/<category>`.

    Args:
        category: what to find, and the target recall.
        layout: of the run; `index`, `labels`, and the category's classifier and scores are finished.
        source: read for the pictures of the missed only.

    Raises:
        FilterError: too few labels for a threshold; the message says which. Or scores of another classifier.
        StageError, StorageError: as in `run_stage`.
    """
    name = category.name
    classifier_dir, scores_dir = layout.classifier(name), layout.scores(name)
    inputs = {"index": read_record(layout.index).digest, "labels": read_record(layout.labels).digest,
              classifier_stage(name): read_record(classifier_dir).digest, scores_stage(name): read_record(scores_dir).digest}
    if read_record(scores_dir).inputs.get(classifier_stage(name)) != inputs[classifier_stage(name)]:
        raise FilterError(f"{scores_dir}: scores of another classifier than {classifier_dir}; score the index again")

    def work(partial: Path) -> dict[str, Any]:
        for stage in (classifier_dir, scores_dir):
            check_outputs(stage, read_record(stage))
        return write_filter(category, layout, source, partial)

    config = category.without_places()
    return run_stage(layout.filter(name), stage=filter_stage(name), config=config, inputs=inputs, work=work)


def write_filter(category: Category, layout: RunLayout, source: Source, directory: Path) -> dict[str, Any]:
    """Choose the threshold, measure and write; returns the summary."""
    classifier_dir, labelled = layout.classifier(category.name), resolve_labels(layout)
    report = read_json(classifier_dir / REPORT_NAME)
    judgements = labelled.judgements_of(category.name)
    agreed = {key: judgement for key, judgement in judgements.items() if not judgement.is_ambiguous}
    training = read_table(classifier_dir / TRAINING_NAME, columns=["key", "out_of_fold_score"])
    out_of_fold = dict(zip(training["key"].to_pylist(), training["out_of_fold_score"].to_pylist(), strict=True))
    scores = tabulate_scores(agreed, set(out_of_fold), labelled, layout.scores(category.name))
    values, roles = scores["label"].to_numpy(), np.array(scores["role"].to_pylist(), dtype=object)
    check_labels(category.name, count_roles(values, roles))
    threshold, set_on = set_threshold(category, scores, out_of_fold)
    evidence = measure_filter(scores, threshold)
    write_table(directory / SCORES_NAME, scores)
    for name in (CLASSIFIER_NAME, REPORT_NAME):
        write_bytes(directory / name, (classifier_dir / name).read_bytes())
    num_without_score = len(agreed) - len(scores)
    write_json(directory / FILTER_NAME, {
        "format": FORMAT,
        "category": {"name": category.name, "counts": category.counts, "does_not_count": category.does_not_count},
        "target_recall": category.target_recall, "threshold": threshold, "threshold_set_on": set_on,
        "classifier": {"kind": report["kind"], "parts": report["parts"], "sha256": report["sha256"]},
        "judges": {"caption_words": list(category.caption_words),
                   "detectors": [{"name": detector.name, "threshold": detector.threshold} for detector in category.detectors]},
        "num_ambiguous": len(judgements) - len(agreed), "num_labels_without_score": num_without_score} | evidence)
    write_bytes(directory / "precision_recall.png", plot_precision_recall(category.name, evidence["curve"], evidence["test"]))
    if missed := evidence["missed"]:
        images = dict(read_images(source, labelled.find_shards([row["key"] for row in missed[:MAX_MISSED]])))
        write_bytes(directory / "missed.png", draw_missed(missed[:MAX_MISSED], images))
    test = evidence["test"]
    return {"classifier_sha256": report["sha256"], "threshold": threshold, "num_positive": test["num_positive"], "recall": test["recall"],
            "recall_lower_bound": round_down(test["recall_lower_bound"]), "num_missed": len(missed),
            "num_negative": test["num_negative"], "kept_share": test["kept_share"],
            "kept_share_lower_bound": round_down(test["kept_share_lower_bound"]), "num_labels_without_score": num_without_score}


def round_down(bound: float) -> float:
    """A lower bound with four decimals, rounded to the cautious side."""
    return math.floor(round(bound * 10_000, 6)) / 10_000


def tabulate_scores(judgements: Mapping[str, Judgement], trained: Collection[str], labelled: Labelled, scores_dir: Path) -> pa.Table:
    """The table of scores.parquet: the labelled inputs that have a score. Any threshold drops the others.

    Args:
        judgements: by key, those on which people agree.
        trained: keys that the classifier was fitted to.
        labelled: the rows of the index that have labels.
        scores_dir: the finished stage.
    """
    columns: dict[str, list[Any]] = {name: [] for name in SCORES_SCHEMA.names}
    keys = pa.array(list(judgements), type=pa.string())
    for name, rows in labelled.by_shard():
        scores = read_row_scores(scores_dir, name, rows)
        has_score = pc.and_(pc.equal(rows["status"], Status.OK), pc.is_valid(scores["score"]))
        chosen = pc.and_(pc.is_in(rows["key"], value_set=keys), has_score)
        given = [judgements[key] for key in rows["key"].filter(chosen).to_pylist()]
        columns["key"] += [judgement.key for judgement in given]
        columns["concept"] += [judgement.concept for judgement in given]
        columns["caption"] += rows["caption"].filter(chosen).to_pylist()
        columns["label"] += [judgement.label for judgement in given]
        columns["role"] += [judgement.role for judgement in given]
        columns["in_training"] += [judgement.key in trained for judgement in given]
        columns["groups"] += [sorted(judgement.groups.items()) for judgement in given]
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
    positive_scores = [score for _, role, score, _ in positives if role == Role.CALIBRATE]
    crossed = [math.inf if flags else value for key, role, _, flags in positives
               if role == Role.TRAIN and (value := out_of_fold.get(key)) is not None]
    num_held_out, num_crossed = len(positive_scores), 0 if len(positive_scores) >= ENOUGH_HELD_OUT else len(crossed)
    positive_scores += crossed[:num_crossed]
    if not positive_scores:
        raise FilterError(f"{category.name}: none of the calibrate labels is positive, and the train labels are too few for a "
                          f"cross-validation, so that nothing can set the threshold; label more images that count as {category.name}")
    try:
        return choose_threshold(positive_scores, category.target_recall), {"num_held_out": num_held_out, "num_out_of_fold": num_crossed}
    except ValueError as error:
        raise FilterError(f"{category.name}: all {len(positive_scores)} positive labels that could set the classifier's threshold are flagged "
                          "by caption words or detectors, which flag what they cannot judge too (an image without a caption or score); label "
                          "images of the category that they do not flag") from error


def draw_missed(missed: Sequence[Mapping[str, Any]], images: Mapping[str, bytes]) -> bytes:
    """A contact sheet of the missed: PNG bytes.

    Args:
        missed: the rows to draw, the worst first.
        images: key -> original bytes; a picture that is not there, or cannot be read, is a grey square.
    """
    cells = []
    for row in missed:
        try:
            picture = Image.fromarray(decode_image(images.get(row["key"], b""), max_pixels=10**9))
        except Refusal:
            picture = Image.new("RGB", (64, 64), "#d0d7de")
        cells.append((picture, str(row["caption"]), f"{row['key']}  {row['score']:.3f}"))
    return png_bytes(labelled_sheet(cells), optimize=False)

"""Fit a category's filter: classifier on train labels, threshold on calibrate labels, evidence on audit labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from ..config import Category
from ..decode import Refusal, decode_image
from ..errors import FilterError
from ..manifest import sha256_file, write_bytes, write_json
from ..records import Record, read_record, run_stage
from .classifier import RbfSvm, fit_rbf_svm, load_classifier, save_classifier
from .evidence import GROUPS, SCORES_SCHEMA, choose_threshold, measure_filter
from .index import read_images, read_index
from .labels import ROLES, Label, read_labels
from .parquet import write_table
from .plots import MAX_MISSED, draw_contact_sheet, plot_precision_recall
from .selection import choose_training, concept_weights
from .sources import Source

FORMAT = "glideslope.filter/1"
# Chosen by mean kept share at mean recall 0.99 over random role assignments of OpenMoji: the default kernel_gamma over twenty
# without the recipe's own, this and the share of positives over sixteen with it. Cross-validation over concepts inside the
# train labels chose no better.
REGULARISATION = 3.0
CLASSIFIER_NAME, FILTER_NAME, SCORES_NAME = "classifier.safetensors", "filter.json", "scores.parquet"


@dataclass(frozen=True)
class LabelledSet:
    """A category's labels joined with the index.

    Attributes:
        labels: the labels whose input has an embedding, in the order of the index.
        captions: one per label.
        embeddings: float32 (N, D).
        num_without_embedding: labels of inputs that could not be embedded; curation drops these inputs.
    """

    labels: Sequence[Label]
    captions: Sequence[str]
    embeddings: NDArray[np.float32]
    num_without_embedding: int

    @property
    def values(self) -> NDArray[np.int64]:
        """1 or 0 per label."""
        return np.array([label.label for label in self.labels], dtype=np.int64)

    @property
    def roles(self) -> NDArray[np.object_]:
        """Role per label."""
        return np.array([label.role for label in self.labels], dtype=object)

    @property
    def concepts(self) -> NDArray[np.object_]:
        """Concept per label."""
        return np.array([label.concept for label in self.labels], dtype=object)


def fit_filter(category: Category, index_dir: Path, labels_dir: Path, source: Source, directory: Path, *, seed: int = 0) -> Record:
    """Run the stage `filters/<category>`.

    Args:
        category: what to find.
        index_dir, labels_dir: finished stages.
        source: read for the pictures of the missed only.
        directory: the stage's directory.
        seed: recorded; fitting draws no random numbers.

    Raises:
        FilterError: too few labels for a classifier or a threshold; the message says which.
        StageError, StorageError: as in `run_stage`.
    """
    inputs = {"index": read_record(index_dir).digest, "labels": read_record(labels_dir).digest}
    config = category.model_dump(mode="json", exclude={"limits"}) | {"seed": seed}

    def work(partial: Path) -> dict[str, Any]:
        return write_filter(category, join_labels(category.name, index_dir, labels_dir), source, index_dir, partial)

    return run_stage(directory, stage=f"filters/{category.name}", config=config, inputs=inputs, work=work)


def join_labels(category: str, index_dir: Path, labels_dir: Path) -> LabelledSet:
    """The labels of a category with the embeddings of their inputs."""
    by_key = {label.key: label for label in read_labels(labels_dir) if label.category == category}
    labels, captions, embeddings = [], [], []
    for _, table in read_index(index_dir, columns=["key", "caption", "status", "embedding"]):
        for row in table.filter(pc.equal(table["status"], "ok")).to_pylist():
            if row["key"] in by_key and row["embedding"] is not None:
                labels.append(by_key[row["key"]])
                captions.append(row["caption"])
                embeddings.append(np.array(row["embedding"], dtype=np.float32))
    stacked = np.stack(embeddings) if embeddings else np.zeros((0, 0), np.float32)
    return LabelledSet(labels, captions, stacked, len(by_key) - len(labels))


def check_labels(category: str, data: LabelledSet) -> None:
    """Refuse what cannot give a filter: a role without positives, training without negatives."""
    for role in ROLES:
        chosen = data.roles == role
        num_positive, num_negative = int((data.values[chosen] == 1).sum()), int((data.values[chosen] == 0).sum())
        if num_positive == 0 and role != "audit":
            raise FilterError(f"{category}: none of the {num_negative} {role} labels is positive; label images of more concepts that "
                              f"count as {category} (the role follows from the concept's hash), then import them")
        if num_negative == 0 and role == "train":
            raise FilterError(f"{category}: none of the {num_positive} {role} labels is negative; label images that do not count as {category}")


def write_filter(category: Category, data: LabelledSet, source: Source, index_dir: Path, directory: Path) -> dict[str, Any]:
    """Fit, choose the threshold, measure and write; returns the summary."""
    check_labels(category.name, data)
    chosen = choose_training(data.labels, category.max_train_labels)
    x, y, concepts = data.embeddings[chosen], data.values[chosen], data.concepts[chosen]
    fitted = fit_rbf_svm(x, y, regularisation=REGULARISATION, gamma=category.kernel_gamma or 2.0, weights=concept_weights(concepts))
    save_classifier(fitted, directory / CLASSIFIER_NAME)
    scores = tabulate_scores(data, chosen, load_classifier(directory / CLASSIFIER_NAME))
    write_table(directory / SCORES_NAME, scores)
    calibrate = (data.roles == "calibrate") & (data.values == 1)
    threshold = choose_threshold(scores["score"].to_numpy()[calibrate], category.target_recall)
    evidence = measure_filter(scores, threshold)
    sha256 = sha256_file(directory / CLASSIFIER_NAME)
    write_json(directory / FILTER_NAME, {
        "format": FORMAT,
        "category": {"name": category.name, "counts": category.counts, "does_not_count": category.does_not_count},
        "target_recall": category.target_recall, "threshold": threshold,
        "classifier": {"kind": "rbf_svm", "C": REGULARISATION, "gamma": category.kernel_gamma or 2.0, "sha256": sha256,
                       "num_support_vectors": len(fitted.dual_coefficients)},
        "num_labels_without_embedding": data.num_without_embedding} | evidence)
    write_bytes(directory / "precision_recall.png", plot_precision_recall(category.name, evidence["curve"], evidence["audit"]))
    if evidence["missed"]:
        write_bytes(directory / "missed.png", draw_missed(evidence["missed"], source, index_dir))
    audit = evidence["audit"]
    return {"classifier_sha256": sha256, "threshold": threshold, "recall": audit["recall"], "kept_share": audit["kept_share"],
            "num_missed": len(evidence["missed"])}


def tabulate_scores(data: LabelledSet, training: NDArray[np.int64], classifier: RbfSvm) -> pa.Table:
    """The table of scores.parquet."""
    in_training = np.zeros(len(data.labels), dtype=bool)
    in_training[training] = True
    columns: dict[str, Any] = {
        "key": [label.key for label in data.labels], "concept": list(data.concepts), "caption": list(data.captions),
        "label": data.values, "role": list(data.roles), "in_training": in_training,
        **{group: [label.groups.get(group, "") for label in data.labels] for group in GROUPS},
        "score": classifier.score(data.embeddings)}
    return pa.table(columns, schema=SCORES_SCHEMA)


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
    return draw_contact_sheet(pictures)

"""The stage `mutations/<category>`: does the filter still find what it knows when that turns up in another shape?

Known positives that were used for nothing else are changed (`image_changes`), written as image files, and sent through the whole
pipeline: source, decoding, crops, CLIP, classifier, threshold. Known others that the filter keeps go through the same
changes, so that one sees whether a change alone makes the filter drop everything.
"""

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from ...errors import FilterError, StageError
from ...pictures.decode import decode_image
from ...pictures.refusals import Refusal
from ...pictures.sheets import labelled_sheet, png_bytes
from ...progress import Progress
from ...recipe.filters import Category, ClipConfig, IndexConfig
from ...store.digests import sha256_file
from ...store.records import Record, check_outputs, read_record, run_stage
from ...store.run_layout import INDEX, RunLayout, classifier_stage, filter_stage, mutation_stage
from ...store.vocabulary import Role
from ...store.whole_files import read_json, write_bytes, write_json
from ..classifiers.fitted import CLASSIFIER_NAME, load_classifier_once
from ..deciding.filter_figures import combined_scores
from ..deciding.plots import plot_mutations
from ..deciding.threshold import FILTER_NAME, SCORES_NAME, is_dropped
from ..index.embed import image_settings
from ..index.parquet import read_table, write_table
from ..index.read import embedding_matrix, find_shards, read_images, read_index
from ..index.stage import build_index
from ..sources.folder import FolderSource
from ..sources.source import Source, hash_share
from ..sources.turns import take_turns
from .figures import MUTATIONS_NAME, PLANTED_NAME, PLANTED_SCHEMA, measure_mutations
from .image_changes import MUTATIONS, TITLES, Subject, find_subject

FORMAT = "glideslope.mutations/1"
SHARD_SIZE = 256
MAX_BACKGROUNDS = 60
MAX_PIXELS = 50_000_000


@dataclass(frozen=True)
class Plan:
    """How large the test is.

    Attributes:
        num_positives: known positives, each planted once per mutation.
        num_others: known others that the filter keeps, each changed in the same ways.
        seed: of the choice of places, angles and backgrounds.
    """

    num_positives: int = 100
    num_others: int = 40
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data, with the mutations there are."""
        return {"num_positives": self.num_positives, "num_others": self.num_others, "seed": self.seed, "mutations": list(MUTATIONS)}


@dataclass(frozen=True)
class Known:
    """An input whose label is known.

    Attributes:
        key, concept, label: as in scores.parquet.
        is_dropped: what the classifier says of it as it is.
        image: the original bytes.
        subject: the picture and where its subject is.
    """

    key: str
    concept: str
    label: int
    is_dropped: bool
    image: bytes
    subject: Subject


def mutate(category: Category, layout: RunLayout, source: Source, clip: ClipConfig, *, plan: Plan = Plan(),
           progress: Progress | None = None) -> Record:
    """Run the stage `mutations/<category>`.

    Args:
        category: what the filter finds.
        layout: of the run; `index`, and classifier and filter of the category are finished.
        source: read for the pictures of the known inputs.
        clip: the run's CLIP.
        plan: how large the test is.
        progress: told how many planted pictures are embedded.

    Raises:
        FilterError: no held-out positive, or no other that the filter keeps.
        StageError, StorageError: as in `run_stage`.
    """
    needed = {stage: layout.stage(stage) for stage in (INDEX, classifier_stage(category.name), filter_stage(category.name))}
    made_with, now = read_record(layout.index).config["clip"], image_settings(clip)
    if made_with != now:
        raise StageError(f"{layout.index}: was embedded with {made_with}, planted pictures would be with {now}; "
                         "run `glideslope index` and `glideslope fit` again")
    inputs = {stage: read_record(directory).digest for stage, directory in needed.items()} | {"source": source.fingerprint()}

    def work(partial: Path) -> dict[str, Any]:
        for stage in needed.keys() - {INDEX}:
            check_outputs(needed[stage], read_record(needed[stage]))
        return write_mutations(category, layout, source, clip, partial, plan, progress)

    config = plan.to_json() | {"clip": clip.model_dump(mode="json", exclude=set(clip.PACE))}
    return run_stage(layout.mutations(category.name), stage=mutation_stage(category.name), config=config, inputs=inputs, work=work)


def write_mutations(category: Category, layout: RunLayout, source: Source, clip: ClipConfig, directory: Path, plan: Plan,
                    progress: Progress | None) -> dict[str, Any]:
    """Plant, judge, measure and write; returns the summary."""
    filter_dir, classifier_dir = layout.filter(category.name), layout.classifier(category.name)
    threshold = float(read_json(filter_dir / FILTER_NAME)["threshold"])
    known = read_known(read_table(filter_dir / SCORES_NAME), threshold, category.name, plan, source, layout.index)
    images, index_dir = directory / "planted", directory / "planted_index"
    shutil.rmtree(images, ignore_errors=True)
    planted_files = list(plant(known, images, plan))
    build_index(FolderSource(path=str(images)), clip, IndexConfig(shard_size=SHARD_SIZE, max_pixels=MAX_PIXELS), index_dir, progress=progress)
    planted = judge(planted_files, index_dir, classifier_dir, threshold)
    figures = measure_mutations(planted)
    write_table(directory / PLANTED_NAME, planted)
    write_json(directory / MUTATIONS_NAME, {"format": FORMAT, "category": category.name, "threshold": threshold, **plan.to_json(), **figures})
    write_bytes(directory / "mutations.png", plot_mutations(category.name, figures["mutations"], figures["sizes"]))
    write_bytes(directory / "examples.png", draw_examples(known, images, figures["mutations"]))
    for leftover in (images, index_dir):
        shutil.rmtree(leftover)
    worst = min(figures["mutations"], key=lambda row: row["recall"])
    return {"num_positives": figures["num_positives"], "num_planted": len(planted), "num_unreadable": figures["num_unreadable"],
            "worst_mutation": worst["mutation"], "worst_recall": worst["recall"]}


def read_known(scores: pa.Table, threshold: float, category: str, plan: Plan, source: Source, index_dir: Path) -> list[Known]:
    """The held-out positives and kept others to plant, positives first.

    Raises:
        FilterError: there are none, or their pictures cannot be read.
    """
    dropped = is_dropped(combined_scores(scores), threshold)
    by_classifier = is_dropped(scores["score"].to_numpy(), threshold)
    rows = [row | {"is_dropped": bool(gone)}
            for row, gone in zip(scores.select(["key", "concept", "label", "role"]).to_pylist(), by_classifier, strict=True)]
    positives = in_turns([row for row in rows if row["role"] == Role.TEST and row["label"] == 1])[:plan.num_positives]
    others = in_turns([row for row, gone in zip(rows, dropped, strict=True) if row["role"] != Role.TRAIN and row["label"] == 0 and not gone])
    others = others[:max(plan.num_others, MAX_BACKGROUNDS)]
    images = dict(read_images(source, find_shards(index_dir, {row["key"] for row in (*positives, *others)})))
    known = []
    for row in (*positives, *others):
        image = images.get(row["key"], b"")
        try:
            subject = find_subject(decode_image(image, max_pixels=MAX_PIXELS))
        except Refusal:
            continue
        known.append(Known(row["key"], row["concept"], row["label"], row["is_dropped"], image, subject))
    for label, what in ((1, "held-out label is positive"), (0, "held-out label is of another image that the filter keeps")):
        if not any(row.label == label for row in known):
            raise FilterError(f"{category}: no {what} and has a readable image; a mutation test needs some: label more images")
    return known


def in_turns(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, one of each concept before the second of any, in the order of their hashes."""
    return take_turns(rows, itemgetter("concept"), lambda row: hash_share("mutations", row["key"]), partial(hash_share, "mutations"))


@dataclass(frozen=True)
class PlantedFile:
    """Where a planted picture lies: the file's key in the folder, the mutation, what was planted, share of its area."""

    key: str
    mutation: str
    known: Known
    area_share: float


def plant(known: Sequence[Known], directory: Path, plan: Plan) -> Iterator[PlantedFile]:
    """Write every mutation of the known inputs as a folder of captioned images, `<mutation>/<number>.png`.

    `unchanged` is the original file, byte for byte. Every draw depends on the seed, the mutation and the input alone.
    """
    positives, others = ([row for row in known if row.label == label] for label in (1, 0))
    backgrounds = [row.subject.image for row in others[:MAX_BACKGROUNDS]]
    lines = []
    for name, mutation in MUTATIONS.items():
        for number, row in enumerate([*positives, *others[:plan.num_others]]):
            key = f"{name}/{number:05d}.png"
            generator = np.random.default_rng([plan.seed, *(int(256 * hash_share(name, row.key, str(byte))) for byte in range(8))])
            planted = mutation(row.subject, backgrounds, generator)
            (directory / name).mkdir(parents=True, exist_ok=True)
            (directory / key).write_bytes(row.image if name == "unchanged" else planted.encode())
            lines.append(json.dumps({"file_name": key, "text": "a picture"}))
            yield PlantedFile(key, name, row, planted.area_share)
    write_bytes(directory / "metadata.jsonl", ("\n".join(lines) + "\n").encode())


def judge(planted_files: Sequence[PlantedFile], index_dir: Path, classifier_dir: Path, threshold: float) -> pa.Table:
    """What the classifier says of the planted pictures: a table of `PLANTED_SCHEMA`, in their order."""
    classifier, _ = load_classifier_once(classifier_dir, sha256_file(classifier_dir / CLASSIFIER_NAME))
    scores: dict[str, float] = {}
    for name, table in read_index(index_dir, columns=["key", "embedding"]):
        embedded = table.filter(pc.is_valid(table["embedding"]))
        if len(embedded):
            values = classifier.score(embedding_matrix(embedded["embedding"], where=name))
            scores |= dict(zip(embedded["key"].to_pylist(), values.tolist(), strict=True))
    verdicts = is_dropped(np.array([scores.get(file.key, math.nan) for file in planted_files], dtype=np.float64), threshold)
    rows = [{"mutation": file.mutation, "key": file.known.key, "concept": file.known.concept, "label": file.known.label,
             "area_share": file.area_share, "score": scores.get(file.key), "was_dropped": file.known.is_dropped,
             "dropped": bool(dropped)} for file, dropped in zip(planted_files, verdicts, strict=True)]
    return pa.Table.from_pylist(rows, schema=PLANTED_SCHEMA)


def draw_examples(known: Sequence[Known], images: Path, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A contact sheet of one planted positive in every shape: PNG bytes."""
    number = max(range(sum(row.label == 1 for row in known)), key=lambda number: known[number].is_dropped)
    pictures = []
    for row in rows:
        with Image.open(images / row["mutation"] / f"{number:05d}.png") as image:
            pictures.append((image.convert("RGB"), TITLES[row["mutation"]], f"found {row['num_caught']} of {row['num_positive']}"))
    return png_bytes(labelled_sheet(pictures), optimize=False)

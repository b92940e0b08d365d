"""The stage `mutations/<category>`: does the filter still find what it knows when that turns up in another shape?

Known positives that were used for nothing else are changed (`mutants`), written as image files, and sent through the whole
pipeline: source, decoding, crops, CLIP, classifier, threshold. Known others that the filter keeps go through the same
changes, so that one sees whether a change alone makes the filter drop everything.
"""

import json
import math
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from ...errors import FilterError, StageError
from ...pictures.decode import decode_image
from ...pictures.refusals import Refusal
from ...pictures.sheets import labelled_sheet, png_bytes
from ...recipe.filters import Category, ClipConfig, IndexConfig
from ...store.digests import sha256_file
from ...store.records import Record, check_outputs, read_record, run_stage
from ...store.vocabulary import Role
from ...store.whole_files import read_json, write_bytes, write_json
from ..classifiers.fit_stage import CLASSIFIER_NAME
from ..classifiers.score_stage import load_classifier_once
from ..deciding.filter_figures import combined_scores, is_dropped
from ..deciding.plots import plot_mutations
from ..deciding.statistics import lower_bound, upper_bound
from ..deciding.threshold_stage import FILTER_NAME, SCORES_NAME
from ..index.parquet import read_table, write_table
from ..index.stage import Progress, build_index, image_settings, read_images, read_index
from ..labels.join import embedding_matrix
from ..sources.folder import FolderSource
from ..sources.source import Source, hash_share
from .image_changes import MUTATIONS, TITLES, Subject, find_subject

FORMAT = "glideslope.mutations/1"
MUTATIONS_NAME, PLANTED_NAME = "mutations.json", "planted.parquet"
SHARD_SIZE = 256
MAX_BACKGROUNDS = 60
MAX_PIXELS = 50_000_000
# Mutations after which the subject is whole and undamaged, only smaller: these speak about size.
RESIZED = ("unchanged", "tiny_1_2", "tiny_1_4", "tiny_1_8", "collage_2x2", "collage_3x3", "screenshot")
SIZES = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
PLANTED_SCHEMA = pa.schema([
    pa.field("mutation", pa.string(), nullable=False),
    pa.field("key", pa.string(), nullable=False),
    pa.field("concept", pa.string(), nullable=False),
    pa.field("label", pa.int8(), nullable=False),
    pa.field("area_share", pa.float32(), nullable=False),
    pa.field("score", pa.float32()),
    pa.field("was_dropped", pa.bool_(), nullable=False),
    pa.field("dropped", pa.bool_(), nullable=False),
])


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


def mutate(category: Category, run_dir: Path, source: Source, clip: ClipConfig, directory: Path, *, plan: Plan = Plan(),
           progress: Progress | None = None) -> Record:
    """Run the stage `mutations/<category>`.

    Args:
        category: what the filter finds.
        run_dir: the run, with the finished stages index, labels, classifiers, scores and filters of the category.
        source: read for the pictures of the known inputs.
        clip: the run's CLIP.
        directory: the stage's directory.
        plan: how large the test is.
        progress: told how many planted pictures are embedded.

    Raises:
        FilterError: no held-out positive, or no other that the filter keeps.
        StageError, StorageError: as in `run_stage`.
    """
    stages = ("index", f"classifiers/{category.name}", f"filters/{category.name}")
    needed = {stage: run_dir / stage for stage in stages}
    made_with, now = read_record(needed["index"]).config["clip"], image_settings(clip)
    if made_with != now:
        raise StageError(f"{needed['index']}: was embedded with {made_with}, planted pictures would be with {now}; "
                         "run `glideslope index` and `glideslope fit` again")
    inputs = {stage: read_record(place).digest for stage, place in needed.items()} | {"source": source.fingerprint()}

    def work(partial: Path) -> dict[str, Any]:
        for stage in inputs.keys() - {"index", "source"}:
            check_outputs(needed[stage], read_record(needed[stage]))
        return write_mutations(category, run_dir, source, clip, partial, plan, progress)

    config = plan.to_json() | {"clip": clip.model_dump(mode="json", exclude=set(clip.PACE))}
    return run_stage(directory, stage=f"mutations/{category.name}", config=config, inputs=inputs, work=work)


def write_mutations(category: Category, run_dir: Path, source: Source, clip: ClipConfig, directory: Path, plan: Plan,
                    progress: Progress | None) -> dict[str, Any]:
    """Plant, judge, measure and write; returns the summary."""
    filter_dir, classifier_dir = run_dir / "filters" / category.name, run_dir / "classifiers" / category.name
    threshold = float(read_json(filter_dir / FILTER_NAME)["threshold"])
    known = read_known(read_table(filter_dir / SCORES_NAME), threshold, category.name, plan, source, run_dir / "index")
    images, index_dir = directory / "planted", directory / "planted_index"
    shutil.rmtree(images, ignore_errors=True)
    places = list(plant(known, images, plan))
    build_index(FolderSource(path=str(images)), clip, IndexConfig(shard_size=SHARD_SIZE, max_pixels=MAX_PIXELS), index_dir, progress=progress)
    planted = judge(places, index_dir, classifier_dir, threshold)
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
    rows = scores.select(["key", "concept", "label", "role", "score"]).to_pylist()
    positives = take_turns([row for row in rows if row["role"] == Role.TEST and row["label"] == 1], plan.num_positives)
    others = take_turns([row for row, gone in zip(rows, dropped, strict=True) if row["role"] != Role.TRAIN and row["label"] == 0 and not gone],
                        max(plan.num_others, MAX_BACKGROUNDS))
    images = read_images(source, index_dir, {row["key"] for row in (*positives, *others)})
    known = []
    for row in (*positives, *others):
        image = images.get(row["key"], b"")
        try:
            subject = find_subject(decode_image(image, max_pixels=MAX_PIXELS))
        except Refusal:
            continue
        known.append(Known(row["key"], row["concept"], row["label"], not row["score"] < threshold, image, subject))
    for label, what in ((1, "held-out label is positive"), (0, "held-out label is of another image that the filter keeps")):
        if not any(one.label == label for one in known):
            raise FilterError(f"{category}: no {what} and has a readable image; a mutation test needs some: label more images")
    return known


def take_turns(rows: Sequence[Mapping[str, Any]], number: int) -> list[Mapping[str, Any]]:
    """At most `number` rows: one of each concept before the second of any, in the order of their hashes."""
    depth: Counter[str] = Counter()
    turns = []
    for row in sorted(rows, key=lambda row: hash_share("mutations", row["key"])):
        turns.append((depth[row["concept"]], hash_share("mutations", row["concept"]), row["key"], row))
        depth[row["concept"]] += 1
    return [row for *_, row in sorted(turns, key=lambda turn: turn[:3])[:number]]


@dataclass(frozen=True)
class Place:
    """Where a planted picture lies: the file's key in the folder, the mutation, what was planted, share of its area."""

    key: str
    mutation: str
    known: Known
    area_share: float


def plant(known: Sequence[Known], directory: Path, plan: Plan) -> Iterator[Place]:
    """Write every mutation of the known inputs as a folder of captioned images, `<mutation>/<number>.png`.

    `unchanged` is the original file, byte for byte. Every draw depends on the seed, the mutation and the input alone.
    """
    backgrounds = [one.subject.image for one in known if one.label == 0][:MAX_BACKGROUNDS]
    chosen = [one for one in known if one.label == 1] + [one for one in known if one.label == 0][:plan.num_others]
    lines = []
    for name, mutation in MUTATIONS.items():
        for number, one in enumerate(chosen):
            key = f"{name}/{number:05d}.png"
            generator = np.random.default_rng([plan.seed, *(int(256 * hash_share(name, one.key, str(place))) for place in range(8))])
            planted = mutation(one.subject, backgrounds, generator)
            (directory / name).mkdir(parents=True, exist_ok=True)
            (directory / key).write_bytes(one.image if name == "unchanged" else planted.encode())
            lines.append(json.dumps({"file_name": key, "text": "a picture"}))
            yield Place(key, name, one, planted.area_share)
    write_bytes(directory / "metadata.jsonl", ("\n".join(lines) + "\n").encode())


def judge(places: Sequence[Place], index_dir: Path, classifier_dir: Path, threshold: float) -> pa.Table:
    """What the classifier says of the planted pictures: a table of `PLANTED_SCHEMA`, in their order."""
    classifier, _ = load_classifier_once(classifier_dir, sha256_file(classifier_dir / CLASSIFIER_NAME))
    scores: dict[str, float] = {}
    for name, table in read_index(index_dir, columns=["key", "embedding"]):
        found = table.filter(pc.is_valid(table["embedding"]))
        if len(found):
            values = classifier.score(embedding_matrix(found["embedding"], where=name))
            scores |= dict(zip(found["key"].to_pylist(), values.tolist(), strict=True))
    rows = [{"mutation": place.mutation, "key": place.known.key, "concept": place.known.concept, "label": place.known.label,
             "area_share": place.area_share, "score": scores.get(place.key), "was_dropped": place.known.is_dropped,
             "dropped": not scores.get(place.key, math.nan) < threshold} for place in places]
    return pa.Table.from_pylist(rows, schema=PLANTED_SCHEMA)


def measure_mutations(planted: pa.Table) -> dict[str, Any]:
    """The figures of a mutation test from its table alone.

    Args:
        planted: a table of `PLANTED_SCHEMA`.

    Returns:
        Plain data. `mutations`, in the table's order: mutation, num_positive, num_caught, recall and its one-sided 95 % lower
        bound, num_lost (caught as they were, missed after the change), num_other, num_other_dropped and drop_rate_others with
        its upper bound (all of them are kept as they are), median_area_share. `sizes`: recall by the share of the picture that
        the subject takes, over the mutations that only make it smaller; an input counts once per size, as caught when each of
        its pictures is. `num_unreadable` planted pictures had no score and count as dropped; `num_other_verdict` unchanged
        ones were judged otherwise than in the run, which points to a fault of the pipeline.
    """
    names = planted["mutation"].to_pylist()
    columns = {name: planted[name].to_numpy(zero_copy_only=False) for name in ("label", "dropped", "was_dropped", "area_share")}
    mutation, key = np.array(names, dtype=object), np.array(planted["key"].to_pylist(), dtype=object)
    positive, dropped, was_dropped = columns["label"] == 1, columns["dropped"], columns["was_dropped"]
    rows = []
    for name in dict.fromkeys(names):
        here = mutation == name
        found, others = dropped[here & positive], dropped[here & ~positive]
        rows.append({"mutation": name, **count_caught(found), "num_lost": int((here & positive & was_dropped & ~dropped).sum()),
                     "num_other": len(others), "num_other_dropped": int(others.sum()),
                     "drop_rate_others": float(others.mean()) if len(others) else None,
                     "drop_rate_others_upper_bound": upper_bound(int(others.sum()), len(others)),
                     "median_area_share": float(np.median(columns["area_share"][here & positive]))})
    unchanged = mutation == "unchanged"
    return {"num_positives": len(set(key[positive])), "num_others": len(set(key[~positive])),
            "num_concepts": len({concept for concept, chosen in zip(planted["concept"].to_pylist(), positive, strict=True) if chosen}),
            "mutations": rows, "sizes": measure_sizes(key, np.isin(mutation, RESIZED) & positive, columns["area_share"], dropped),
            "num_unreadable": planted["score"].null_count, "num_other_verdict": int((unchanged & (dropped != was_dropped)).sum())}


def measure_sizes(key: NDArray[np.object_], chosen: NDArray[np.bool_], share: NDArray[Any], dropped: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Recall by size of the subject; see `measure_mutations`."""
    rows = []
    for low, high in pairwise(SIZES):
        here = chosen & (share >= low) & ((share < high) | (high == SIZES[-1]))
        missed = set(key[here & ~dropped])
        found = np.array([name not in missed for name in sorted(set(key[here]))], dtype=bool)
        rows.append({"from": low, "to": high, **count_caught(found)})
    return rows


def count_caught(found: NDArray[np.bool_]) -> dict[str, Any]:
    """How many of some positives are caught."""
    num_caught = int(found.sum())
    return {"num_positive": len(found), "num_caught": num_caught, "recall": num_caught / len(found) if len(found) else None,
            "recall_lower_bound": lower_bound(num_caught, len(found))}


def draw_examples(known: Sequence[Known], images: Path, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A contact sheet of one planted positive in every shape: PNG bytes."""
    number = max(range(sum(one.label == 1 for one in known)), key=lambda place: known[place].is_dropped)
    pictures = []
    for row in rows:
        with Image.open(images / row["mutation"] / f"{number:05d}.png") as image:
            pictures.append((image.convert("RGB"), TITLES[row["mutation"]], f"found {row['num_caught']} of {row['num_positive']}"))
    return png_bytes(labelled_sheet(pictures), optimize=False)

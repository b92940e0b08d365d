"""The stage `scores/<category>`: every input of the index as the classifier and the other judges see it, a shard at a time.

A new threshold needs none of this again: `filters` and `curation` read these files.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...progress import Progress
from ...recipe.filters import Category
from ...recipe.stage_settings import SCORES_FIELDS
from ...store.digests import sha256_file
from ...store.records import Record, check_outputs, read_record, run_stage
from ...store.run_layout import RunLayout, classifier_stage, scores_stage
from ...store.vocabulary import Status
from ..index.parquet import write_table
from ..index.read import embedding_matrix, read_index, shard_names
from ..judges.judge import OutsideJudge
from ..judges.outside import flag_rows, open_judges
from ..workers.engine import run_tasks
from .fitted import CLASSIFIER_NAME, load_classifier_once
from .scores import SHARD_SCHEMA


@dataclass(frozen=True)
class ScoreTask:
    """All that a worker needs to score one shard; plain data, so that it can be sent to another process.

    Attributes:
        name: of the shard.
        index_dir, classifier_dir: finished stages.
        classifier_sha256: of the classifier's file.
        judges: those beside the classifier.
        path: the file to write.
    """

    name: str
    index_dir: Path
    classifier_dir: Path
    classifier_sha256: str
    judges: tuple[OutsideJudge, ...]
    path: Path


@dataclass(frozen=True)
class ShardCounts:
    """What scoring one shard came to: inputs, scores, and inputs by flag."""

    num_inputs: int
    num_scored: int
    num_flagged: dict[str, int]


def score_index(category: Category, layout: RunLayout, *, engine: str = "local", workers: int | None = None,
                progress: Progress | None = None) -> Record:
    """Run the stage `scores/<category>`: one file per shard of the index, rows in its order.

    Args:
        category: its caption words and detectors.
        layout: of the run; `index` and the category's classifier are finished.
        engine, workers: see `engine.run_tasks`.
        progress: told how many inputs are scored.

    Raises:
        FilterError: a classifier of another CLIP, or a detector's file that cannot be used.
        StageError, StorageError: as in `run_stage`.
    """
    judges = open_judges(category)
    index_dir, classifier_dir = layout.index, layout.classifier(category.name)
    inputs = {"index": read_record(index_dir).digest, classifier_stage(category.name): read_record(classifier_dir).digest}
    for judge in judges:
        inputs |= judge.inputs()

    def work(partial: Path) -> dict[str, Any]:
        check_outputs(classifier_dir, read_record(classifier_dir))
        sha256 = sha256_file(classifier_dir / CLASSIFIER_NAME)
        tasks = [ScoreTask(name, index_dir, classifier_dir, sha256, judges, partial / f"{name}.parquet")
                 for name in shard_names(index_dir)]
        return summarise(judges, index_dir, score_shards(tasks, index_dir, engine, workers, progress))

    config = {key: value for key, value in category.without_places().items() if key in SCORES_FIELDS}
    return run_stage(layout.scores(category.name), stage=scores_stage(category.name), config=config, inputs=inputs, work=work)


def score_shards(tasks: Sequence[ScoreTask], index_dir: Path, engine: str, workers: int | None, progress: Progress | None) -> list[ShardCounts]:
    """Score every shard and tell how far it is."""
    total, done = read_record(index_dir).summary["num_inputs"], 0

    def tell(counts: ShardCounts) -> None:
        nonlocal done
        done += counts.num_inputs
        if progress is not None:
            progress(done, total, "inputs scored")

    return run_tasks(score_shard_file, tasks, engine=engine, workers=workers, progress=tell)


def score_shard_file(task: ScoreTask) -> ShardCounts:
    """Write the scores of one shard."""
    (_, index), = read_index(task.index_dir, columns=["key", "caption", "captions", "status", "embedding"], names=[task.name])
    flags = flag_rows(task.judges, index)
    classifier, calibration = load_classifier_once(task.classifier_dir, task.classifier_sha256)
    present = np.asarray(pc.and_(pc.equal(index["status"], Status.OK), pc.is_valid(index["embedding"])).to_numpy(), dtype=bool)
    scores = np.full(len(index), np.nan, dtype=np.float32)
    if present.any():
        scores[present] = classifier.score(embedding_matrix(index["embedding"].filter(pa.array(present)), where=task.name))
    is_score = np.isfinite(scores)
    probabilities = np.zeros_like(scores) if calibration is None else calibration.probability(scores)
    write_table(task.path, pa.table({
        "key": index["key"], "score": pa.array(scores, mask=~is_score),
        "probability": pa.array(probabilities, mask=~is_score | (calibration is None)),
        "flags": pa.array(flags, type=pa.list_(pa.string()))}, schema=SHARD_SCHEMA))
    return ShardCounts(len(index), int(is_score.sum()), dict(Counter(name for names in flags for name in names)))


def summarise(judges: Sequence[OutsideJudge], index_dir: Path, counts: Sequence[ShardCounts]) -> dict[str, Any]:
    """What the record says: numbers of inputs, scores and flags, and what judges add, such as keys that the index does not know."""
    num_inputs, num_flagged = sum(shard.num_inputs for shard in counts), Counter[str]()
    for shard in counts:
        num_flagged.update(shard.num_flagged)

    def read_keys() -> Iterator[list[str]]:
        return (table["key"].to_pylist() for _, table in read_index(index_dir, columns=["key"]))

    said = {judge.name: judge.summary(num_inputs, num_flagged, read_keys) for judge in judges}
    return {"num_inputs": num_inputs, "num_scored": sum(shard.num_scored for shard in counts),
            "num_flagged": dict(sorted(num_flagged.items())), "detectors": {name: summary for name, summary in said.items() if summary}}

"""The stage `scores/<category>`: every input of the index as the classifier and the other judges see it, a shard at a time.

A new threshold needs none of this again: `filters` and `curation` read these files.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...errors import FilterError, StageError
from ...recipe.filters import Category
from ...recipe.stage_settings import SCORES_FIELDS
from ...store.digests import sha256_file
from ...store.records import Record, check_outputs, read_record, run_stage
from ...store.vocabulary import Status
from ...store.whole_files import read_json
from ..index.parquet import read_table, write_table
from ..index.stage import Progress, read_index
from ..judges.judge import OutsideJudge
from ..judges.outside import flag_rows, open_judges
from ..labels.join import embedding_matrix
from ..workers.engine import run_tasks
from .calibration import Calibration
from .classifier import Classifier
from .file import load_classifier
from .fit_stage import CLASSIFIER_NAME, REPORT_NAME
from .fit_stage import FORMAT as CLASSIFIER_FORMAT

SHARD_SCHEMA = pa.schema([
    pa.field("key", pa.string(), nullable=False),
    pa.field("score", pa.float32()),
    pa.field("probability", pa.float32()),
    pa.field("flags", pa.list_(pa.string()), nullable=False),
])


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


def score_index(category: Category, index_dir: Path, classifier_dir: Path, directory: Path, *, engine: str = "local",
                workers: int | None = None, progress: Progress | None = None) -> Record:
    """Run the stage `scores/<category>`.

    Args:
        category: its caption words and detectors.
        index_dir, classifier_dir: finished stages.
        directory: the stage's directory; one file per shard of the index, rows in its order.
        engine, workers: see `engine.run_tasks`.
        progress: told how many inputs are scored.

    Raises:
        FilterError: a classifier of another CLIP, or a detector's file that cannot be used.
        StageError, StorageError: as in `run_stage`.
    """
    judges = open_judges(category)
    inputs = {"index": read_record(index_dir).digest, f"classifiers/{category.name}": read_record(classifier_dir).digest}
    for judge in judges:
        inputs |= judge.inputs()

    def work(partial: Path) -> dict[str, Any]:
        check_outputs(classifier_dir, read_record(classifier_dir))
        sha256 = sha256_file(classifier_dir / CLASSIFIER_NAME)
        tasks = [ScoreTask(name, index_dir, classifier_dir, sha256, judges, partial / f"{name}.parquet")
                 for name in shard_names(index_dir)]
        return summarise(judges, index_dir, score_shards(tasks, index_dir, engine, workers, progress))

    config = {key: value for key, value in category.without_places().items() if key in SCORES_FIELDS}
    return run_stage(directory, stage=f"scores/{category.name}", config=config, inputs=inputs, work=work)


def shard_names(index_dir: Path) -> list[str]:
    """Names of the shards of a finished index, in order."""
    return sorted(path.stem for path in index_dir.glob("shard-*.parquet"))


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


@lru_cache(maxsize=2)
def load_classifier_once(classifier_dir: Path, sha256: str) -> tuple[Classifier, Calibration | None]:
    """The classifier of this process and its calibration.

    Raises:
        FilterError: the classifier is not the one of that digest.
    """
    report = read_json(classifier_dir / REPORT_NAME)
    if report.get("format") != CLASSIFIER_FORMAT:
        raise FilterError(f"{classifier_dir / REPORT_NAME}: format is {report.get('format')!r}, expected {CLASSIFIER_FORMAT!r}")
    if (found := sha256_file(classifier_dir / CLASSIFIER_NAME)) != sha256 or report["sha256"] != sha256:
        raise FilterError(f"{classifier_dir / CLASSIFIER_NAME}: sha256 is {found[:12]}…, expected {sha256[:12]}…; fit the filter again")
    calibration = report["calibration"]
    return load_classifier(classifier_dir / CLASSIFIER_NAME), calibration and Calibration(calibration["slope"], calibration["offset"])


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


def read_scores(scores_dir: Path, index_dir: Path, *, columns: Sequence[str]) -> Iterator[tuple[str, pa.Table, pa.Table]]:
    """Index and scores of a category side by side, shard by shard: name, rows of the index, rows of scores in the same order.

    Args:
        scores_dir, index_dir: finished stages.
        columns: of the index; `key` among them.

    Raises:
        StageError: a file is missing or damaged, or the two do not belong together.
    """
    for name, index in read_index(index_dir, columns=columns):
        yield name, index, read_shard_scores(scores_dir, name, index)


def read_shard_scores(scores_dir: Path, name: str, index: pa.Table) -> pa.Table:
    """The scores of one shard, in the order of its index rows.

    Raises:
        StageError: the file is missing or damaged, or holds other inputs.
    """
    path = scores_dir / f"{name}.parquet"
    scores = read_table(path)
    if scores["key"].combine_chunks() != index["key"].combine_chunks():
        raise StageError(f"{path}: holds other inputs than the index; remove {scores_dir} and score again")
    return scores

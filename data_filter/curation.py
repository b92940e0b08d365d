"""Curate: decide on every input, write the ledger, and write what is kept with its original bytes.

Fails closed: an image is kept only when, for every category, `score < threshold` is true. A missing score, NaN, an
unreadable or changed input is dropped with that as the reason.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..config import Category, CurateConfig
from ..errors import FilterError, StageError
from ..manifest import read_json, sha256_bytes, sha256_file, write_json
from ..records import Record, check_outputs, read_record, run_stage
from .classifier import RbfSvm, load_classifier
from .evidence import is_dropped
from .fit import CLASSIFIER_NAME, FILTER_NAME
from .fit import FORMAT as FILTER_FORMAT
from .index import Progress, read_index
from .parquet import write_table
from .sources import Shard, Source, hash_share

FORMAT = "glideslope.curated/1"
SPLITS = ("train", "validation")
FEATURES = {"info": {"features": {
    "image": {"_type": "Image"},
    "caption": {"dtype": "string", "_type": "Value"},
    "key": {"dtype": "string", "_type": "Value"},
    "sha256": {"dtype": "string", "_type": "Value"},
    "concept": {"dtype": "string", "_type": "Value"},
    "weight": {"dtype": "float32", "_type": "Value"},
}}}
DATA_SCHEMA = pa.schema([
    pa.field("image", pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])),
    pa.field("caption", pa.string()),
    pa.field("key", pa.string()),
    pa.field("sha256", pa.string()),
    pa.field("concept", pa.string()),
    pa.field("weight", pa.float32()),
], metadata={"huggingface": json.dumps(FEATURES)})


@dataclass(frozen=True)
class Filter:
    """A fitted filter: name of its category, classifier and the classifier's digest, threshold."""

    category: str
    classifier: RbfSvm
    sha256: str
    threshold: float


def ledger_schema(categories: Sequence[str]) -> pa.Schema:
    """Columns of the ledger: one row for every input that the run has ever seen."""
    fields = [pa.field("key", pa.string(), nullable=False), pa.field("sha256", pa.string()),
              pa.field("decision", pa.string(), nullable=False), pa.field("reason", pa.string(), nullable=False),
              pa.field("detail", pa.string()), pa.field("split", pa.string(), nullable=False),
              pa.field("weight", pa.float32(), nullable=False), pa.field("caption", pa.string())]
    for category in categories:
        fields += [pa.field(f"score_{category}", pa.float32()), pa.field(f"classifier_{category}", pa.string(), nullable=False)]
    return pa.schema(fields)


def load_filter(category: str, directory: Path) -> Filter:
    """Read a fitted filter.

    Raises:
        FilterError: the classifier is not the one that filter.json names, or the threshold is no number.
        StageError: the filter was not fitted, or was changed since.
    """
    check_outputs(directory, read_record(directory))
    settings = read_json(directory / FILTER_NAME)
    if settings.get("format") != FILTER_FORMAT:
        raise FilterError(f"{directory / FILTER_NAME}: format is {settings.get('format')!r}, expected {FILTER_FORMAT!r}")
    threshold, sha256 = settings["threshold"], settings["classifier"]["sha256"]
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not np.isfinite(threshold):
        raise FilterError(f"{directory / FILTER_NAME}: threshold is {threshold!r}, expected a number")
    if (found := sha256_file(directory / CLASSIFIER_NAME)) != sha256:
        raise FilterError(f"{directory / CLASSIFIER_NAME}: sha256 is {found[:12]}…, filter.json names {sha256[:12]}…; fit the filter again")
    return Filter(category, load_classifier(directory / CLASSIFIER_NAME), sha256, float(threshold))


def curate(source: Source, categories: Sequence[Category], index_dir: Path, filters_dir: Path, config: CurateConfig, directory: Path, *,
           progress: Progress | None = None) -> Record:
    """Run the stage `curated`.

    Args:
        source: read again for the bytes of what is kept.
        categories: in the recipe's order; each must have a finished filter in `filters_dir/<name>`.
        index_dir, filters_dir: finished stages.
        config: shard size and validation share.
        directory: the stage's directory.
        progress: told how many inputs are decided.

    Raises:
        FilterError: no category, or a filter that cannot be trusted.
        StageError, StorageError: as in `run_stage`.
    """
    if not categories:
        raise FilterError("curate: no category to filter; a recipe needs at least one")
    inputs = {"index": read_record(index_dir).digest, "source": source.fingerprint()}
    inputs |= {f"filters/{category.name}": read_record(filters_dir / category.name).digest for category in categories}

    def work(partial: Path) -> dict[str, Any]:
        check_outputs(index_dir, read_record(index_dir))
        filters = [load_filter(category.name, filters_dir / category.name) for category in categories]
        return write_curated(source, filters, index_dir, config, partial, progress)

    return run_stage(directory, stage="curated", config=config.model_dump(mode="json"), inputs=inputs, work=work)


def write_curated(source: Source, filters: Sequence[Filter], index_dir: Path, config: CurateConfig, directory: Path,
                  progress: Progress | None) -> dict[str, Any]:
    """Write data, ledger and curated.json; returns the summary."""
    for leftover in directory.rglob("*.parquet"):  # of a killed run: this stage is quick and starts again
        leftover.unlink()
    writers = {split: SplitWriter(directory / "data", split, config.shard_size) for split in SPLITS}
    counts: Counter[str] = Counter()
    shards = {shard.name: shard for shard in source.shards()}
    position, total = 0, read_record(index_dir).summary["num_inputs"]
    for name, index in read_index(index_dir):
        ledger = decide(index, filters, config.validation_share)
        for place, image in read_kept(source, shards[name], index, ledger):
            row = ledger[place]
            writers[row["split"]].add({"image": {"bytes": image, "path": None}, "caption": row["caption"], "key": row["key"],
                                       "sha256": row["sha256"], "concept": index["concept"][place].as_py(), "weight": row["weight"]})
        write_table(directory / "ledger" / f"{name}.parquet", pa.Table.from_pylist(ledger, schema=ledger_schema([f.category for f in filters])))
        counts.update(row["reason"] for row in ledger)
        position += len(index)
        if progress is not None:
            progress(position, total, "inputs decided")
    splits = {split: writer.finish() for split, writer in writers.items()}
    return write_summary(directory, position, counts, splits, filters)


def write_summary(directory: Path, num_seen: int, counts: Counter[str], splits: Mapping[str, int], filters: Sequence[Filter]) -> dict[str, Any]:
    """Check that the counts add up and write curated.json."""
    num_kept = counts.pop("", 0)
    dropped = dict(sorted(counts.items()))
    if num_seen != num_kept + sum(dropped.values()) or num_kept != sum(splits.values()):
        raise StageError(f"curated: {num_seen} inputs seen, but {num_kept} kept ({dict(splits)}) and {dropped} dropped do not add up; "
                         "run the stage again")
    if num_kept == 0:
        raise StageError(f"curated: nothing is left of {num_seen} inputs ({dropped}); look at the ledger's reasons and the filters' thresholds")
    summary = {"seen": num_seen, "kept": num_kept, "dropped": dropped, "splits": dict(splits)}
    categories = {f.category: {"threshold": f.threshold, "classifier_sha256": f.sha256} for f in filters}
    write_json(directory / "curated.json", {"format": FORMAT, **summary, "categories": categories})
    return summary


def decide(index: pa.Table, filters: Sequence[Filter], validation_share: float) -> list[dict[str, Any]]:
    """The ledger rows of one index shard, before the bytes are read again."""
    ok = np.array([status == "ok" for status in index["status"].to_pylist()])
    present = np.array([value is not None for value in index["embedding"].to_pylist()]) & ok
    embeddings = [value for value, is_present in zip(index["embedding"].to_pylist(), present, strict=True) if is_present]
    rows = [{"key": row["key"], "sha256": row["sha256"], "reason": row["reason"] or ("" if row["status"] == "ok" else "unreadable"),
             "detail": row["error"], "caption": row["caption"], "concept": row["concept"]}
            for row in index.select(["key", "sha256", "status", "reason", "error", "caption", "concept"]).to_pylist()]
    for judge in filters:
        scores = np.full(len(rows), np.nan, dtype=np.float32)
        if embeddings:
            scores[present] = judge.classifier.score(np.array(embeddings, dtype=np.float32))
        record_verdicts(rows, judge, scores)
    for row in rows:
        row["decision"] = "drop" if row["reason"] else "keep"
        is_validation = hash_share("validation", row.pop("concept")) < validation_share
        row["split"] = "" if row["reason"] else "validation" if is_validation else "train"
        row["weight"] = 0.0 if row["reason"] else 1.0
    return rows


def record_verdicts(rows: Sequence[dict[str, Any]], judge: Filter, scores: NDArray[np.float32]) -> None:
    """Write one filter's scores into the ledger rows, and the reason where it is the first to drop one."""
    for row, score, dropped in zip(rows, scores, is_dropped(scores, judge.threshold), strict=True):
        row[f"score_{judge.category}"] = float(score) if np.isfinite(score) else None
        row[f"classifier_{judge.category}"] = judge.sha256
        if dropped and not row["reason"]:
            row["reason"] = f"filter:{judge.category}" if np.isfinite(score) else "missing score"


def read_kept(source: Source, shard: Shard, index: pa.Table, ledger: Sequence[dict[str, Any]]) -> Iterator[tuple[int, bytes]]:
    """Place and original bytes of what a shard keeps; an input that is not as it was indexed is dropped from the ledger."""
    places = {row["key"]: place for place, row in enumerate(ledger) if row["decision"] == "keep"}
    images = {item.key: item.image for item in source.read(shard, keys=places)} if places else {}
    for key, place in places.items():
        image = images.get(key)
        if image is not None and sha256_bytes(image) == index["sha256"][place].as_py():
            yield place, image
        else:
            ledger[place].update(decision="drop", reason="changed since index", detail=f"input {key} is not what was indexed",
                                 split="", weight=0.0)


class SplitWriter:
    """Writes the rows of one split to parquet files of at most `shard_size` rows."""

    def __init__(self, directory: Path, split: str, shard_size: int) -> None:
        """Nothing is written before there are rows."""
        self.directory, self.split, self.shard_size = directory, split, shard_size
        self.rows: list[dict[str, Any]] = []
        self.num_rows = self.num_files = 0

    def add(self, row: dict[str, Any]) -> None:
        """Add a row; writes a file when it is full."""
        self.rows.append(row)
        if len(self.rows) == self.shard_size:
            self._flush()

    def finish(self) -> int:
        """Write what is left; returns the number of rows of the split."""
        if self.rows:
            self._flush()
        return self.num_rows

    def _flush(self) -> None:
        write_table(self.directory / f"{self.split}-{self.num_files:05d}.parquet", pa.Table.from_pylist(self.rows, schema=DATA_SCHEMA))
        self.num_rows += len(self.rows)
        self.num_files += 1
        self.rows = []

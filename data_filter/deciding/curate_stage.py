"""Curate: decide on every input, write the ledger, and write what is kept with its original bytes.

Fails closed, see `decision`. A missing score, NaN, an unreadable or changed input is dropped with that as the reason.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...errors import FilterError, StageError
from ...progress import Progress
from ...recipe.filters import Category, CurateConfig
from ...store.digests import sha256_bytes, sha256_json
from ...store.records import Record, check_outputs, read_record, run_stage
from ...store.run_layout import CURATED, RunLayout, filter_stage, scores_stage
from ...store.vocabulary import Cause, Decision, Reason, Split
from ...store.whole_files import write_json
from ..classifiers.scores import read_shard_scores
from ..index.parquet import write_table
from ..index.read import read_index
from ..judges.labels import find_labelled
from ..labels.index_rows import sort_labels
from ..labels.store import Judgement, consensus, read_audit_labels, read_labels
from ..sources.source import Shard, Source, SourceItem, all_captions
from .decision import decide, ledger_schema
from .threshold import Filter, load_filter

FORMAT = "glideslope.curated/1"
INDEX_COLUMNS = ("key", "sha256", "status", "reason", "error", "caption", "captions", "concept")
FEATURES: dict[str, dict[str, Any]] = {
    "image": {"_type": "Image"},
    "caption": {"dtype": "string", "_type": "Value"},
    "key": {"dtype": "string", "_type": "Value"},
    "sha256": {"dtype": "string", "_type": "Value"},
    "concept": {"dtype": "string", "_type": "Value"},
    "weight": {"dtype": "float32", "_type": "Value"},
    "metadata": {"dtype": "string", "_type": "Value"},
}
SEVERAL_FEATURE = {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"}
FIELDS = (
    pa.field("image", pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])),
    pa.field("caption", pa.string()),
    pa.field("key", pa.string()),
    pa.field("sha256", pa.string()),
    pa.field("concept", pa.string()),
    pa.field("weight", pa.float32()),
    pa.field("metadata", pa.string()),
)


def curate(source: Source, categories: Sequence[Category], layout: RunLayout, config: CurateConfig, *,
           progress: Progress | None = None) -> Record:
    """Run the stage `curated`.

    Args:
        source: read again for the bytes of what is kept.
        categories: in the recipe's order; each must have finished scores and a finished filter.
        layout: of the run; `index`, `labels` and each category's scores and filter are finished.
        config: shard size, validation share, and whether captions are required.
        progress: told how many inputs are decided.

    Raises:
        FilterError: no category, or a filter that cannot be trusted.
        StageError, StorageError: as in `run_stage`.
    """
    if not categories:
        raise FilterError("curate: no category to filter; a recipe needs at least one")
    names = [category.name for category in categories]
    inputs = {"index": read_record(layout.index).digest, "source": source.fingerprint(), "labels": read_record(layout.labels).digest}
    inputs |= digest_findings(layout)
    inputs |= {stage: read_record(layout.stage(stage)).digest for name in names for stage in (scores_stage(name), filter_stage(name))}
    for name in names:
        if read_record(layout.filter(name)).inputs.get(scores_stage(name)) != inputs[scores_stage(name)]:
            raise FilterError(f"{layout.filter(name)}: built from other scores than {layout.scores(name)}; fit the filter again")

    def work(partial: Path) -> dict[str, Any]:
        for stage in (layout.index, *map(layout.scores, names)):
            check_outputs(stage, read_record(stage))
        filters = [load_filter(name, layout.filter(name)) for name in names]
        return write_curated(source, filters, layout, config, partial, progress)

    return run_stage(layout.curated, stage=CURATED, config=config.model_dump(mode="json"), inputs=inputs, work=work)


def write_curated(source: Source, filters: Sequence[Filter], layout: RunLayout, config: CurateConfig, directory: Path,
                  progress: Progress | None) -> dict[str, Any]:
    """Write data, ledger and curated.json; returns the summary."""
    for leftover in directory.rglob("*.parquet"):  # of a killed run: this stage is quick and starts again
        leftover.unlink()
    has_several = any(table["captions"].null_count < len(table) for _, table in read_index(layout.index, columns=["captions"]))
    writers = {split: SplitWriter(directory / "data", split, config.shard_size, data_schema(has_several=has_several)) for split in Split}
    counts: Counter[str] = Counter()
    shards = {shard.name: shard for shard in source.shards()}
    position, total = 0, read_record(layout.index).summary["num_inputs"]
    names = [judge.category for judge in filters]
    current, changed = judge_inputs(layout)
    labelled = find_labelled([*current, *changed], names)
    stale = {(judgement.key, str(Reason(Cause.LABEL, judgement.category))) for judgement in changed}
    schema = ledger_schema(names, has_several=has_several)
    for name, index in read_index(layout.index, columns=INDEX_COLUMNS):
        scores = {category: read_shard_scores(layout.scores(category), name, index) for category in names}
        ledger = decide(index, scores, filters, labelled, config.validation_share, captions_required=config.captions == "required")
        for number, item in read_kept(source, shards.get(name), index, ledger):
            row = ledger[number]
            writers[row["split"]].add({"image": {"bytes": item.image, "path": None}, "caption": row["caption"],
                                       "captions": all_captions(row["caption"], row["captions"]), "key": row["key"],
                                       "sha256": row["sha256"], "concept": index["concept"][number].as_py(), "weight": row["weight"],
                                       "metadata": item.metadata})
        note_changed(ledger, stale)
        write_table(directory / "ledger" / f"{name}.parquet", pa.Table.from_pylist(ledger, schema=schema))
        counts.update(str(row["reason"]) for row in ledger)
        position += len(index)
        if progress is not None:
            progress(position, total, "inputs decided")
    splits = {split.value: writer.finish() for split, writer in writers.items()}
    return write_summary(directory, position, counts, splits, filters)


def data_schema(*, has_several: bool) -> pa.Schema:
    """Columns of the curated set, as `datasets` loads them; `captions`, the list of each image, only where any has several."""
    features = FEATURES | ({"captions": SEVERAL_FEATURE} if has_several else {})
    fields = [*FIELDS, *([pa.field("captions", pa.list_(pa.string()))] if has_several else [])]
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def judge_inputs(layout: RunLayout) -> tuple[list[Judgement], list[Judgement]]:
    """What all labels say, those of audits included: whatever anybody saw in a kept image, it goes.

    Returns:
        The judgements of the bytes that the index has. Then the judgements of earlier bytes, where nobody has judged the present
        ones and the earlier ones were not called harmless: such an input is dropped until somebody has judged it.
    """
    labels = sort_labels([*read_labels(layout.labels), *read_audit_labels(layout.labels)], layout.index)
    current = consensus(labels.current)
    judged = {(judgement.key, judgement.category) for judgement in current}
    return current, [judgement for judgement in consensus(labels.changed)
                     if judgement.label != 0 and (judgement.key, judgement.category) not in judged]


def note_changed(ledger: Sequence[dict[str, Any]], stale: Collection[tuple[str, str]]) -> None:
    """Say in ledger rows that the label which drops them was given for other bytes."""
    for row in ledger:
        if (row["key"], row["reason"]) in stale:
            row["detail"] = f"input {row['key']} had other bytes when it was labelled; nobody has judged these yet"


def digest_findings(layout: RunLayout) -> dict[str, str]:
    """What audits found among the kept images, as an input of the stage; nothing while they found nothing, so that a clean audit
    makes nothing run again.
    """
    audited = {(label.key, label.category) for label in read_audit_labels(layout.labels)}
    judgements = [judgement for part in judge_inputs(layout) for judgement in part] if audited else []
    findings = sorted([judgement.key, judgement.category] for judgement in judgements
                      if judgement.label != 0 and (judgement.key, judgement.category) in audited)
    return {"audit_findings": sha256_json(findings)} if findings else {}


def write_summary(directory: Path, num_seen: int, counts: Counter[str], splits: Mapping[str, int], filters: Sequence[Filter]) -> dict[str, Any]:
    """Check that the counts add up and write curated.json."""
    num_kept = counts.pop(Cause.NOTHING, 0)
    dropped = dict(sorted(counts.items()))
    if num_seen != num_kept + sum(dropped.values()) or num_kept != sum(splits.values()):
        raise StageError(f"curated: {num_seen} inputs seen, but {num_kept} kept ({dict(splits)}) and {dropped} dropped do not add up; "
                         "run the stage again")
    if num_kept == 0:
        hint = "; to keep images without captions, set curate.captions to optional in the recipe" if Cause.CAPTION in dropped else ""
        raise StageError(f"curated: nothing is left of {num_seen} inputs ({dropped}); look at the ledger's reasons and the filters' "
                         f"thresholds{hint}")
    summary = {"seen": num_seen, "kept": num_kept, "dropped": dropped, "splits": dict(splits)}
    categories = {f.category: {"threshold": f.threshold, "classifier_sha256": f.sha256} for f in filters}
    write_json(directory / "curated.json", {"format": FORMAT, **summary, "categories": categories})
    return summary


def read_kept(source: Source, shard: Shard | None, index: pa.Table,
              ledger: Sequence[dict[str, Any]]) -> Iterator[tuple[int, SourceItem]]:
    """Row number and input of what a shard keeps; an input that is not as it was indexed is dropped from the ledger.

    A shard that the source no longer has is none; all that it held has changed.
    """
    unread = {row["key"]: number for number, row in enumerate(ledger) if row["decision"] == Decision.KEEP}
    for item in source.read(shard, keys=frozenset(unread)) if unread and shard is not None else ():
        number = unread.get(item.key)
        if number is not None and item.image is not None and sha256_bytes(item.image) == index["sha256"][number].as_py():
            del unread[item.key]
            yield number, item
    for key, number in unread.items():
        ledger[number].update(decision=Decision.DROP, reason=Cause.CHANGED, detail=f"input {key} is not what was indexed", split="", weight=0.0)


class SplitWriter:
    """Writes the rows of one split to parquet files of at most `shard_size` rows."""

    def __init__(self, directory: Path, split: str, shard_size: int, schema: pa.Schema) -> None:
        """Nothing is written before there are rows."""
        self.directory, self.split, self.shard_size, self.schema = directory, split, shard_size, schema
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
        write_table(self.directory / f"{self.split}-{self.num_files:05d}.parquet", pa.Table.from_pylist(self.rows, schema=self.schema))
        self.num_rows += len(self.rows)
        self.num_files += 1
        self.rows = []

"""The stage `labelled`: every label resolved once to its row of the index, with all that fitting and measuring need of that row."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ...errors import FilterError
from ...store.records import read_record, run_stage
from ...store.run_layout import LABELLED, RunLayout
from ...store.vocabulary import Cause, Role, Status
from ..index.parquet import read_table, write_table
from ..index.read import embedding_matrix, read_index
from ..sources.source import joined_captions
from .index_rows import SortedLabels, sort_by_digest, warn_unused
from .store import Judgement, consensus, read_labels

FORMAT = "glideslope.labelled/1"
ROWS_NAME = "rows.parquet"
COLUMNS = ("key", "sha256", "status", "reason", "caption", "captions", "embedding")
ROWS_SCHEMA = pa.schema([
    pa.field("shard", pa.string(), nullable=False), pa.field("row", pa.int32(), nullable=False), pa.field("key", pa.string(), nullable=False),
    pa.field("sha256", pa.string(), nullable=False), pa.field("status", pa.string(), nullable=False),
    pa.field("reason", pa.string(), nullable=False), pa.field("caption", pa.string(), nullable=False),
    pa.field("embedding", pa.list_(pa.float16()))])


@dataclass(frozen=True)
class LabelledSet:
    """A category's judgements with the embeddings of their inputs.

    Attributes:
        judgements: those on which people agree and whose input has an embedding, in the order of the index.
        embeddings: float16 (N, D), as the index holds them.
        num_ambiguous: inputs on which people disagree; they are left out of everything and dropped by curation.
    """

    judgements: Sequence[Judgement]
    embeddings: NDArray[Any]
    num_ambiguous: int

    @property
    def values(self) -> NDArray[np.int64]:
        """1 or 0 per judgement."""
        return np.array([judgement.label for judgement in self.judgements], dtype=np.int64)

    @property
    def roles(self) -> NDArray[np.object_]:
        """Role per judgement."""
        return np.array([judgement.role for judgement in self.judgements], dtype=object)

    @property
    def concepts(self) -> NDArray[np.object_]:
        """Concept per judgement."""
        return np.array([judgement.concept for judgement in self.judgements], dtype=object)


@dataclass(frozen=True)
class Labelled:
    """All labels but those of audits, and the rows of the index that they speak of.

    Attributes:
        labels: by whether they are of the bytes that the index has.
        rows: a table of `ROWS_SCHEMA` in the order of the index, a row for each labelled key that it knows.
    """

    labels: SortedLabels
    rows: pa.Table

    @cached_property
    def judgements(self) -> Sequence[Judgement]:
        """What people say of the bytes that the index has."""
        return consensus(self.labels.current)

    def judgements_of(self, category: str) -> dict[str, Judgement]:
        """Key -> judgement of a category, ambiguous ones included."""
        return {judgement.key: judgement for judgement in self.judgements if judgement.category == category}

    def embedded_set(self, category: str) -> LabelledSet:
        """The judgements of a category with the embeddings of their inputs.

        Raises:
            FilterError: embeddings of different widths.
        """
        by_key = self.judgements_of(category)
        agreed = {key: judgement for key, judgement in by_key.items() if not judgement.is_ambiguous}
        is_embedded = pc.and_(pc.equal(self.rows["status"], Status.OK), pc.is_valid(self.rows["embedding"]))
        chosen = self.rows.filter(pc.and_(is_embedded, pc.is_in(self.rows["key"], value_set=pa.array(list(agreed), type=pa.string()))))
        embeddings = embedding_matrix(chosen["embedding"], where="of labelled inputs")
        return LabelledSet([agreed[key] for key in chosen["key"].to_pylist()], embeddings,
                           len(by_key) - len(agreed))

    def by_shard(self) -> Iterator[tuple[str, pa.Table]]:
        """Name and labelled rows of each shard that has any, in the order of the index."""
        start = 0
        for count in self.rows["shard"].value_counts():  # in the order of the table, where the rows of a shard follow each other
            yield count["values"].as_py(), self.rows.slice(start, count["counts"].as_py())
            start += count["counts"].as_py()

    def find_shards(self, keys: Sequence[str]) -> dict[str, set[str]]:
        """Shard -> those of some labelled keys that it holds."""
        keys_of: dict[str, set[str]] = defaultdict(set)
        chosen = self.rows.filter(pc.is_in(self.rows["key"], value_set=pa.array(keys, type=pa.string())))
        for name, key in zip(chosen["shard"].to_pylist(), chosen["key"].to_pylist(), strict=True):
            keys_of[name].add(key)
        return keys_of


def resolve_labels(layout: RunLayout) -> Labelled:
    """Run the stage `labelled`, which reads the index once, and read what it wrote; nothing is done again while index and labels stay.

    Raises:
        StageError, StorageError: as in `run_stage`; `index` or `labels` is not finished.
    """
    inputs = {"index": read_record(layout.index).digest, "labels": read_record(layout.labels).digest}
    labels = read_labels(layout.labels)

    def work(partial: Path) -> dict[str, Any]:
        rows = find_rows(layout.index, {label.key for label in labels})
        write_table(partial / ROWS_NAME, rows)
        resolved = sort_by_digest(labels, digests_of(rows))
        if resolved.num_changed != read_record(layout.labels).summary["num_changed"]:  # else it was said when labels were imported
            warn_unused(resolved, layout.labels)
        return {"num_rows": len(rows)}

    run_stage(layout.labelled, stage=LABELLED, config={"format": FORMAT}, inputs=inputs, work=work)
    rows = read_table(layout.labelled / ROWS_NAME)
    return Labelled(sort_by_digest(labels, digests_of(rows)), rows)


def find_rows(index_dir: Path, keys: set[str]) -> pa.Table:
    """The rows of a finished index that have one of the keys, as a table of `ROWS_SCHEMA`; of a repeated key the first."""
    labelled = pa.array(sorted(keys), type=pa.string())
    tables = [ROWS_SCHEMA.empty_table()]
    for name, index in read_index(index_dir, columns=COLUMNS) if keys else ():
        chosen = np.flatnonzero(pc.and_(pc.is_in(index["key"], value_set=labelled), pc.not_equal(index["reason"], Cause.DUPLICATE_KEY)))
        rows = index.take(pa.array(chosen))
        captions = list(map(joined_captions, rows["caption"].to_pylist(), rows["captions"].to_pylist()))
        tables.append(pa.table({
            "shard": pa.repeat(name, len(rows)), "row": chosen, "key": rows["key"], "sha256": pc.fill_null(rows["sha256"], ""),
            "status": rows["status"], "reason": rows["reason"], "caption": captions, "embedding": rows["embedding"]}, schema=ROWS_SCHEMA))
    return pa.concat_tables(tables).combine_chunks()


def digests_of(rows: pa.Table) -> dict[str, str]:
    """Key -> digest of the bytes in the index."""
    return dict(zip(rows["key"].to_pylist(), rows["sha256"].to_pylist(), strict=True))


def check_labels(category: str, counts: Mapping[str, tuple[int, int]]) -> None:
    """Refuse what cannot give a filter: no positives or no negatives to learn from.

    Args:
        category: its name.
        counts: role -> number of positive and of negative labels.

    Raises:
        FilterError: says what to label.
    """
    num_positive, num_negative = counts.get(Role.TRAIN, (0, 0))
    if num_positive == 0:
        raise FilterError(f"{category}: none of the {num_negative} train labels is positive; label images of more concepts that "
                          f"count as {category} (the role follows from the concept's hash), then import them")
    if num_negative == 0:
        raise FilterError(f"{category}: none of the {num_positive} train labels is negative; label images that do not count as {category}")


def count_roles(values: NDArray[np.int64], roles: NDArray[np.object_]) -> dict[str, tuple[int, int]]:
    """Role -> number of positive and of negative labels."""
    return {str(role): (int((values[roles == role] == 1).sum()), int((values[roles == role] == 0).sum())) for role in set(roles)}

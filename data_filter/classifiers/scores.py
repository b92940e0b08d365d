"""The files of a finished stage `scores/<category>`: one a shard of the index, rows in its order."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ...errors import StageError
from ..index.parquet import read_table

SHARD_SCHEMA = pa.schema([
    pa.field("key", pa.string(), nullable=False),
    pa.field("score", pa.float32()),
    pa.field("probability", pa.float32()),
    pa.field("flags", pa.list_(pa.string()), nullable=False),
])


def read_shard_scores(scores_dir: Path, name: str, index: pa.Table) -> pa.Table:
    """The scores of one shard, in the order of its index rows.

    Args:
        scores_dir: the finished stage.
        name: of the shard.
        index: its rows, with their keys.

    Raises:
        StageError: the file is missing or damaged, or holds other inputs.
    """
    scores = read_table(scores_dir / f"{name}.parquet")
    refuse_other(scores["key"], index["key"], scores_dir, name)
    return scores


def read_row_scores(scores_dir: Path, name: str, rows: pa.Table) -> pa.Table:
    """The scores of some rows of one shard, in their order.

    Args:
        scores_dir: the finished stage.
        name: of the shard.
        rows: a table with the columns `row`, the place in the shard, and `key`.

    Raises:
        StageError: the file is missing or damaged, or holds other inputs.
    """
    scores = read_table(scores_dir / f"{name}.parquet")
    scores = scores.take(rows["row"].filter(pc.less(rows["row"], len(scores))))
    refuse_other(scores["key"], rows["key"], scores_dir, name)
    return scores


def refuse_other(scored: pa.ChunkedArray, expected: pa.ChunkedArray, scores_dir: Path, name: str) -> None:
    """Refuse scores of other inputs.

    Raises:
        StageError: the keys differ.
    """
    if scored.combine_chunks() != expected.combine_chunks():
        raise StageError(f"{scores_dir / name}.parquet: holds other inputs than the index; remove {scores_dir} and score again")

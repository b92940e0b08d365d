"""A category's labels joined with what the index knows of their inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ...errors import FilterError
from ...store.records import read_record
from ...store.vocabulary import Role, Status
from ..index.stage import read_index
from .stage import Judgement, consensus, read_labels, sort_labels, warn_unused


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


def read_judgements(category: str, index_dir: Path, labels_dir: Path) -> dict[str, Judgement]:
    """Key -> judgement of a category, ambiguous ones included; only labels of the bytes that the index has."""
    found = sort_labels(read_labels(labels_dir), index_dir)
    if found.num_changed != read_record(labels_dir).summary["num_changed"]:  # else it was said when labels were imported
        warn_unused(found, labels_dir)
    return {judgement.key: judgement for judgement in consensus(found.current) if judgement.category == category}


def join_labels(category: str, index_dir: Path, labels_dir: Path) -> LabelledSet:
    """The labels of a category with the embeddings of their inputs, the index read a shard at a time.

    Raises:
        FilterError: embeddings of different widths.
    """
    by_key = read_judgements(category, index_dir, labels_dir)
    num_ambiguous = sum(judgement.is_ambiguous for judgement in by_key.values())
    by_key = {key: judgement for key, judgement in by_key.items() if not judgement.is_ambiguous}
    wanted = pa.array(list(by_key), type=pa.string())
    judgements: list[Judgement] = []
    embeddings = []
    for name, table in read_index(index_dir, columns=["key", "status", "embedding"]):
        found = table.filter(pc.and_(pc.equal(table["status"], Status.OK), pc.is_in(table["key"], value_set=wanted)))
        found = found.filter(pc.is_valid(found["embedding"]))
        judgements += [by_key[key] for key in found["key"].to_pylist()]
        embeddings.append(embedding_matrix(found["embedding"], where=name))
    widths = {rows.shape[1] for rows in embeddings if len(rows)}
    if len(widths) > 1:
        raise FilterError(f"{index_dir}: embeddings of different widths ({sorted(widths)}); remove the index and build it again")
    rows = [rows for rows in embeddings if len(rows)]
    return LabelledSet(judgements, np.concatenate(rows) if rows else np.zeros((0, 0), np.float16), num_ambiguous)


def embedding_matrix(column: Any, *, where: str) -> NDArray[Any]:
    """A column of embeddings without nulls as a matrix, without going through Python's numbers: float16 (N, D).

    Args:
        column: pyarrow column of lists of numbers.
        where: the shard, for messages.

    Raises:
        FilterError: a null, or lists of different lengths.
    """
    if not len(column):
        return np.zeros((0, 0), np.float16)
    lists = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    lengths = set(pc.list_value_length(lists).to_pylist())
    if len(lengths) != 1 or None in lengths:
        raise FilterError(f"index {where}: embeddings of different widths; remove the index and build it again")
    return np.asarray(lists.flatten().to_numpy(zero_copy_only=False)).reshape(len(lists), lengths.pop())


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

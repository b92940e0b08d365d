"""A filter's figures for groups: recall, leak and exclusion ratio, with exact bounds.

A group is a value that people gave with their labels (skin tone, say), a set of caption words, or what a CLIP sees
(zero-shot; a guess, which the figures say). The exclusion ratio is how much more often what should stay is dropped
inside a group than outside it; that filters drop some groups more is the finding of Hong et al., arXiv 2405.08209.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...errors import StageError
from ...text.caption_words import has_words
from ..deciding.filter_figures import measure_kept, measure_recall
from ..index.parquet import read_table
from ..index.read import read_index
from .balance import GroupCounts, combine, is_judged, measure_word
from .ratios import compare_shares

MIN_POSITIVES = 59  # all of 59 caught: recall at least 95 % with 95 % confidence

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Slice:
    """Some rows of a table.

    Attributes:
        kind: `label`, `caption` or `attribute`: who says what belongs to it (people, the caption's words, a CLIP).
        group, value: for example `skin_tone` and `dark`; captions: the group's name and "".
        rows: bool (N,).
    """

    kind: str
    group: str
    value: str
    rows: Bools


class TextEncoder(Protocol):
    """What zero-shot attributes need of a CLIP with a text tower."""

    def encode_text(self, captions: Sequence[str]) -> NDArray[np.float32]:
        """Captions to float32 (N, D), rows of length 1."""

    def center(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Image embeddings float32 (N, D) as they are compared with text."""


def slice_by_groups(groups: Sequence[Mapping[str, str]]) -> list[Slice]:
    """The slices of group values that came with labels, one mapping per row; "" means that nobody said."""
    names = sorted({name for row in groups for name in row})
    slices = []
    for name in names:
        values = np.array([row.get(name, "") for row in groups], dtype=object)
        slices += [Slice("label", name, value, values == value) for value in sorted(set(values))]
    return slices


def slice_by_words(captions: Sequence[str | None], words: Mapping[str, Sequence[str]]) -> list[Slice]:
    """The slices of captions that have a word of a group; groups that no caption belongs to are left out."""
    slices = [Slice("caption", name, "", has_words(captions, words[name])) for name in words]
    return [part for part in slices if part.rows.any()]


def measure_slices(label: NDArray[np.int64], dropped: Bools, slices: Sequence[Slice]) -> list[dict[str, Any]]:
    """The figures of each slice on labels that were used for nothing else.

    Args:
        label: 1 (counts) or 0, int (N,); held-out labels only.
        dropped: what the filter says of the same rows, bool (N,).
        slices: of the same rows.

    Returns:
        One mapping per slice: kind, group, value; num_positive, num_caught, recall and its one-sided 95 % lower bound;
        num_negative, num_dropped_negative and drop_rate; exclusion_ratio (drop rate of the negatives inside to that
        outside) and its two-sided 95 % interval; leak: num_kept, num_positive_kept, rate and its upper bound; `is_thin`
        where there are too few positives to vouch for a recall of 95 % even if all were caught.
    """
    rows = []
    negative = label == 0
    for part in slices:
        inside = part.rows
        recall, kept = measure_recall(label, dropped, inside), measure_kept(label, dropped, inside)
        num_dropped, num_inside = int((inside & negative & dropped).sum()), int((inside & negative).sum())
        num_outside = int((~inside & negative).sum())
        ratio = compare_shares(num_dropped, num_inside, int((~inside & negative & dropped).sum()), num_outside)
        rows.append({"kind": part.kind, "group": part.group, "value": part.value, **recall, "num_dropped_negative": num_dropped,
                     "drop_rate": num_dropped / num_inside if num_inside else None, **ratio.to_json("exclusion_ratio"),
                     "leak": kept["leak"], "is_thin": recall["num_positive"] < MIN_POSITIVES})
    return rows


def assign_attributes(embeddings: NDArray[np.float32], prompts: Mapping[str, Mapping[str, str]], clip: TextEncoder) -> list[Slice]:
    """The slices of what a CLIP sees: in each group, an image has the value whose prompt it is closest to.

    Args:
        embeddings: of images, float32 (N, D).
        prompts: group -> value -> caption that describes it; at least two values each.
        clip: with a text tower.
    """
    pictures = clip.center(embeddings)
    slices = []
    for group, values in prompts.items():
        nearest = (pictures @ clip.encode_text(list(values.values())).T).argmax(axis=1) if len(pictures) else np.zeros(0, np.int64)
        slices += [Slice("attribute", group, value, nearest == number) for number, value in enumerate(values)]
    return slices


def count_attributes(index_dir: Path, ledger_dir: Path, prompts: Mapping[str, Mapping[str, str]], clip: TextEncoder) -> list[dict[str, Any]]:
    """What the filters drop by zero-shot attribute, over all judged inputs that have an embedding.

    Returns:
        One mapping per value: group, value, and the figures of `balance.measure_word`.

    Raises:
        StageError: index or ledger is missing or damaged, or they are not of one run.
    """
    everyone, counts = GroupCounts(), {(group, value): GroupCounts() for group, values in prompts.items() for value in values}
    for embeddings, reasons in judged_embeddings(index_dir, ledger_dir):
        everyone.add(reasons)
        for part in assign_attributes(embeddings, prompts, clip):
            counts[part.group, part.value].add(reasons.filter(pa.array(part.rows)))
    return [{"group": group, "value": value, **measure_word(judged.num_inputs, judged.num_kept, everyone)}
            for (group, value), judged in counts.items() if judged.num_inputs]


def judged_embeddings(index_dir: Path, ledger_dir: Path) -> Iterator[tuple[NDArray[np.float32], pa.Array]]:
    """Embeddings, float32 (N, D), and ledger reasons of the judged inputs of each shard."""
    for name, index in read_index(index_dir, columns=["key", "embedding"]):
        ledger = read_table(ledger_dir / f"{name}.parquet", columns=["key", "reason"])
        if not ledger["key"].equals(index["key"]):
            raise StageError(f"{ledger_dir / name}.parquet: holds other inputs than the index; run curate again")
        reasons, embedded = combine(ledger["reason"]), combine(index["embedding"])
        chosen = is_judged(reasons).to_numpy(zero_copy_only=False) & ~embedded.is_null().to_numpy(zero_copy_only=False)
        if chosen.any():
            vectors = embedded.filter(pa.array(chosen))
            yield vectors.flatten().to_numpy().astype(np.float32).reshape(len(vectors), -1), reasons.filter(pa.array(chosen))

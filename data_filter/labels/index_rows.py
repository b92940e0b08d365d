"""What the index holds of labelled inputs, and which labels are still of the bytes that it has."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ...store.records import read_record
from ...store.vocabulary import Cause
from ..index.read import read_index
from .store import Label

MAX_NAMED = 5

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Indexed:
    """What the index says of an input: its concept, and the digest of its bytes, "" where there are none."""

    concept: str
    sha256: str


@dataclass(frozen=True)
class SortedLabels:
    """Labels by what the index holds now.

    Attributes:
        current: of the very bytes that the index has under their key.
        changed: the index has other bytes under their key.
        vanished: the index does not know their key.
    """

    current: Sequence[Label]
    changed: Sequence[Label]
    vanished: Sequence[Label]

    @property
    def keys_changed(self) -> set[str]:
        """Inputs that have labels of a category for other bytes alone."""
        judged = {(label.key, label.category) for label in self.current}
        return {label.key for label in self.changed if (label.key, label.category) not in judged}

    @property
    def num_changed(self) -> int:
        """How many inputs have labels of a category for other bytes alone."""
        return len(self.keys_changed)

    @property
    def num_vanished(self) -> int:
        """How many labelled keys the index does not know."""
        return len({label.key for label in self.vanished})


def look_up(index_dir: Path, keys: Collection[str]) -> dict[str, Indexed]:
    """What a finished index says of those of the keys that it knows; it is read a shard at a time."""
    read_record(index_dir)
    labelled = pa.array(sorted(keys), type=pa.string())
    known: dict[str, Indexed] = {}
    for _, table in read_index(index_dir, columns=["key", "concept", "sha256", "reason"]) if keys else ():
        rows = table.filter(pc.and_(pc.is_in(table["key"], value_set=labelled), pc.not_equal(table["reason"], Cause.DUPLICATE_KEY)))
        for key, concept, sha256 in zip(*(rows[name].to_pylist() for name in ("key", "concept", "sha256")), strict=True):
            known[key] = Indexed(concept, sha256 or "")
    return known


def sort_labels(labels: Sequence[Label], index_dir: Path) -> SortedLabels:
    """Labels by whether the index still has the bytes that they were given for; the index is read once."""
    return sort_known(labels, look_up(index_dir, {label.key for label in labels}))


def sort_known(labels: Iterable[Label], known: Mapping[str, Indexed]) -> SortedLabels:
    """As `sort_labels`, with what the index says of their keys."""
    return sort_by_digest(labels, {key: indexed.sha256 for key, indexed in known.items()})


def sort_by_digest(labels: Iterable[Label], digests: Mapping[str, str]) -> SortedLabels:
    """As `sort_labels`, with the digest of the bytes that the index has for each key."""
    current: list[Label] = []
    changed: list[Label] = []
    vanished: list[Label] = []
    for label in labels:
        (vanished if label.key not in digests else current if label.sha256 == digests[label.key] else changed).append(label)
    return SortedLabels(current, changed, vanished)


def warn_unused(labels: SortedLabels, labels_dir: Path) -> None:
    """Say which labels are kept but not used."""
    for keys, text in ((labels.keys_changed, "labels of %d keys are of other bytes than the index has now and are kept but not used, label "
                                            "these inputs again"),
                       ({label.key for label in labels.vanished}, "labels of %d keys that the index no longer knows are kept but not used")):
        if keys:
            log.warning("%s: " + text + ": %s%s", labels_dir, len(keys), ", ".join(sorted(keys)[:MAX_NAMED]),
                        " …" if len(keys) > MAX_NAMED else "")

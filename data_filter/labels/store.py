"""The label store: append-only files of labels, read and checked, and what all labels of one input say together.

A label speaks about bytes, not about a name: it carries the digest of the image that was looked at. Whoever uses labels takes those
that are still of the image in the index, see `index_rows.sort_labels`.

Labels that an audit asked for lie in a file of their own. They were drawn from what the filter kept, so they say
nothing about its recall, and a filter that learned from them would spoil the audit: `read_labels` leaves them out.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import StageError
from ...store.digests import canonical_json, sha256_bytes
from ...store.records import Record, read_record
from ...store.stage_places import RECORD_NAME
from ...store.vocabulary import Role
from ...store.whole_files import read_json, write_bytes

LABELS_FORMAT = "glideslope.labels/3"  # changes whenever the lines of the store would be written or read otherwise
LABELS_NAME, AUDIT_LABELS_NAME, AUDIT_RECORD_NAME = "labels.jsonl", "audits.jsonl", "audits_record.json"
AUDIT_PREFIX = "audit:"  # of `how`, before the name of the audit that asked


@dataclass(frozen=True)
class Label:
    """One judgement of one image by one person.

    Attributes:
        key, concept: the input and what it shows, joined with the concepts that are the same.
        category: name of the category.
        label: 1 (counts) or 0 (does not).
        role: what the label is for.
        groups: group name -> value, for figures per group; a value may be "".
        who, when, how: who judged it, when (ISO 8601), and how it was found; `audit:<id>` for an audit's sample.
        sha256: digest of the image's bytes that the label was given for; "" where the input had none.
        own_concept: what the label file calls the concept; "" where it says nothing.
    """

    key: str
    concept: str
    category: str
    label: int
    role: Role
    groups: Mapping[str, str]
    who: str
    when: str
    how: str
    sha256: str = ""
    own_concept: str = ""

    def to_json(self) -> dict[str, Any]:
        """The label as plain data."""
        return {"key": self.key, "sha256": self.sha256, "concept": self.concept, "own_concept": self.own_concept, "category": self.category,
                "label": self.label, "role": self.role, "groups": dict(self.groups), "who": self.who, "when": self.when, "how": self.how}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Label":
        """Read a label; KeyError, TypeError or ValueError when it is malformed."""
        return cls(value["key"], value["concept"], value["category"], value["label"], Role(value["role"]), value["groups"],
                   value["who"], value["when"], value["how"], value["sha256"], value["own_concept"])


@dataclass(frozen=True)
class Judgement:
    """What all labels of one input for one category say together.

    Attributes:
        key, concept, category, role: as in `Label`.
        label: 1 or 0 when everybody agrees, None when people disagree.
        groups: the first value that anybody gave for each group.
        num_labels: how many people judged it.
    """

    key: str
    concept: str
    category: str
    role: Role
    label: int | None
    groups: Mapping[str, str]
    num_labels: int

    @property
    def is_ambiguous(self) -> bool:
        """Whether people disagree: such an input is left out of fitting and of every figure, and dropped."""
        return self.label is None


def consensus(labels: Iterable[Label]) -> list[Judgement]:
    """One judgement for each key and category, in the order of their first labels."""
    together: dict[tuple[str, str], list[Label]] = {}
    for label in labels:
        together.setdefault((label.key, label.category), []).append(label)
    judgements = []
    for (key, category), given in together.items():
        values = {label.label for label in given}
        groups: dict[str, str] = {}
        for name, value in (item for label in given for item in label.groups.items()):
            groups[name] = groups.get(name) or value
        concept = next((label.concept for label in reversed(given) if label.own_concept), given[0].concept)  # what was joined last
        judgements.append(Judgement(key, concept, category, given[0].role, given[0].label if len(values) == 1 else None, groups,
                                    len({label.who for label in given})))
    return judgements


def digest_labels(labels: Iterable[Label]) -> str:
    """Digest of labels, in order, without the time they were given."""
    lines = (canonical_json({name: value for name, value in label.to_json().items() if name != "when"}) for label in labels)
    return sha256_bytes("\n".join(lines).encode())


def summarise_labels(labels: Sequence[Label], current: Iterable[Label]) -> dict[str, Any]:
    """What a record says of a store; it does not depend on the day.

    Args:
        labels: all of them: their number and digest.
        current: those in use: judgements by category and role.
    """
    judgements = consensus(current)
    counts = Counter((judgement.category, judgement.role, judgement.label) for judgement in judgements)
    return {"num_labels": len(labels), "labels_sha256": digest_labels(labels),
            "counts": {category: {role: {"num_positive": counts[category, role, 1], "num_negative": counts[category, role, 0],
                                         "num_ambiguous": counts[category, role, None]} for role in Role}
                       for category in sorted({judgement.category for judgement in judgements})}}


def append_labels(path: Path, old_bytes: bytes, added: Sequence[Label]) -> None:
    """Write a store's file again with more lines at its end, whole or not at all."""
    if added or not path.exists():
        write_bytes(path, old_bytes + "".join(canonical_json(label.to_json()) + "\n" for label in added).encode())


def read_store(labels_dir: Path, name: str, record_name: str) -> tuple[list[Label], bytes]:
    """The labels of one file of a store and its bytes; empty when there is none.

    Raises:
        StageError: a line is damaged or of another version, or the labels that the record vouches for were changed.
    """
    path = labels_dir / name
    data = path.read_bytes() if path.exists() else b""
    record = None
    if (labels_dir / record_name).exists():
        record = Record.from_json(read_json(labels_dir / record_name), where=str(labels_dir / record_name))
        if (written := record.config.get("format")) != LABELS_FORMAT:
            raise StageError(f"{labels_dir}: labels of the format {written!r}, expected {LABELS_FORMAT!r}; another version of glideslope "
                             "wrote them: move the directory away and import the labels again")
    labels = []
    for number, line in enumerate(data.removesuffix(b"\n").split(b"\n") if data else [], start=1):
        try:
            labels.append(Label.from_json(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise StageError(f"{path}, line {number}: damaged label ({error!r}); restore the file from a copy") from error
    # a kill between file and record leaves more labels than the record knows
    if record is not None and digest_labels(labels[:record.summary["num_labels"]]) != record.summary["labels_sha256"]:
        raise StageError(f"{path}: labels were edited after they had been recorded; the store is append-only: restore the file")
    return labels, data


def read_labels(labels_dir: Path) -> list[Label]:
    """The labels of a finished store that are not of audits, checked against its record.

    Raises:
        StageError: there is no store, or it is not what its record says.
    """
    record = read_record(labels_dir)
    labels, _ = read_store(labels_dir, LABELS_NAME, RECORD_NAME)
    if digest_labels(labels) != record.summary["labels_sha256"]:
        raise StageError(f"{labels_dir}: the labels are not those of the record; import the labels again")
    return labels


def read_audit_labels(labels_dir: Path) -> list[Label]:
    """The labels that audits asked for, of every audit and category; none when no audit has any.

    Raises:
        StageError: they were edited.
    """
    return read_store(labels_dir, AUDIT_LABELS_NAME, AUDIT_RECORD_NAME)[0]

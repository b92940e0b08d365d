"""Labels: an append-only store in which every label has one role for ever.

The role (train, calibrate or audit) comes from the hash of the concept, so that the variants of one concept (skin tones
and genders of one emoji) never straddle roles: the figures speak about concepts that a classifier has never seen.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..config import LabelsConfig
from ..errors import LabelError, StageError
from ..manifest import Manifest, canonical_json, read_json, sha256_bytes, write_bytes, write_json
from ..records import RECORD_NAME, Record, describe_environment, read_record
from .index import read_index
from .sources import SourceLabel, hash_share

LABELS_NAME = "labels.jsonl"
ROLES = ("train", "calibrate", "audit")
GROUP_COLUMNS = ("skin_tone", "gender")
CSV_COLUMNS = ("key", "category", "label")


@dataclass(frozen=True)
class Label:
    """One judgement of one input.

    Attributes:
        key, concept: the input and what it shows.
        category: name of the category.
        label: 1 (counts) or 0 (does not).
        role: `train`, `calibrate` or `audit`.
        groups: group name -> value, for figures per group; a value may be "".
        who, when, how: who judged it, when (ISO 8601), and how it was found.
    """

    key: str
    concept: str
    category: str
    label: int
    role: str
    groups: Mapping[str, str]
    who: str
    when: str
    how: str

    def to_json(self) -> dict[str, Any]:
        """The label as plain data."""
        return {"key": self.key, "concept": self.concept, "category": self.category, "label": self.label, "role": self.role,
                "groups": dict(self.groups), "who": self.who, "when": self.when, "how": self.how}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Label":
        """Read a label; KeyError or TypeError when it is malformed."""
        return cls(value["key"], value["concept"], value["category"], value["label"], value["role"], value["groups"],
                   value["who"], value["when"], value["how"])


@dataclass(frozen=True)
class Verdict:
    """A label before it has a role: what a person or a file says.

    Attributes:
        key, category, label, groups, who, how: as in `Label`.
        where: where it stands, for messages, for example `labels.csv, line 7`.
    """

    key: str
    category: str
    label: int
    who: str
    how: str
    where: str
    groups: Mapping[str, str] = field(default_factory=dict)


def role_of(concept: str, config: LabelsConfig) -> str:
    """The role of a concept's labels; the same whatever the category, the input or the day."""
    share = hash_share(config.salt, concept)
    if share < config.train_share:
        return "train"
    return "calibrate" if share < config.train_share + config.calibrate_share else "audit"


def read_label_csv(path: Path) -> list[Verdict]:
    """Read labels from a CSV file with the columns key, category, label and, if wanted, who, how, skin_tone, gender.

    A row with an empty label is ambiguous and gives no verdict.

    Raises:
        LabelError: the file cannot be read, lacks a column, or holds a label that is not 0, 1 or empty.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise LabelError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LabelError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
    missing = [name for name in CSV_COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise LabelError(f"{path}: column {', '.join(missing)} is missing; the header must name {', '.join(CSV_COLUMNS)}")
    verdicts = []
    for row in reader:
        where = f"{path}, line {reader.line_num}"
        if row["label"] not in ("0", "1", ""):
            raise LabelError(f"{where}: label is {row['label']!r}, expected 1 (counts), 0 (does not) or empty (ambiguous)")
        if row["label"]:
            groups = {name: row[name] for name in GROUP_COLUMNS if name in row}
            verdicts.append(Verdict(row["key"], row["category"], int(row["label"]), row.get("who") or "", row.get("how") or path.name,
                                    where, groups))
    return verdicts


def verdicts_of_source(labels: Iterable[SourceLabel], *, who: str) -> list[Verdict]:
    """The labels that came with the data, as verdicts."""
    return [Verdict(label.key, label.category, label.label, who, "came with the data", f"labels of the source, {label.key}", label.groups)
            for label in labels]


def import_labels(verdicts: Sequence[Verdict], labels_dir: Path, index_dir: Path, config: LabelsConfig, *,
                  categories: Collection[str] | None = None, when: str | None = None) -> Record:
    """Append verdicts to the store; a verdict that is already there is left as it is.

    Args:
        verdicts: from `read_label_csv` or `verdicts_of_source`.
        labels_dir: the store.
        index_dir: the finished index that knows the keys and their concepts.
        config: shares and salt of the roles.
        categories: the categories that the recipe knows; None: any.
        when: ISO 8601 time of the labels; None: now.

    Raises:
        LabelError: an unknown key or category, a label that contradicts an earlier one, or a concept whose earlier
            labels have another role. Nothing is appended then.
        StageError: the store was edited.
        StorageError: the store cannot be written.
    """
    started = datetime.now(UTC)
    concepts = read_concepts(index_dir)
    kept, old_bytes = read_store(labels_dir)
    known = {(label.key, label.category): label.label for label in kept}
    roles = {label.concept: label.role for label in kept}
    stamp = when or started.isoformat(timespec="seconds")
    added = []
    for verdict in verdicts:
        check_verdict(verdict, concepts, categories)
        earlier = known.get((verdict.key, verdict.category))
        if earlier is not None:
            if earlier != verdict.label:
                raise LabelError(f"{verdict.where}: {verdict.key} is labelled {verdict.label} for {verdict.category}, "
                                 f"an earlier label says {earlier}; settle which one holds before importing")
            continue
        concept = concepts[verdict.key]
        role = role_of(concept, config)
        if roles.setdefault(concept, role) != role:
            raise LabelError(f"{verdict.where}: concept {concept} would change its role from {roles[concept]} to {role}; labels keep "
                             "their role: restore labels.salt, train_share and calibrate_share of the recipe, or start a new run")
        known[verdict.key, verdict.category] = verdict.label
        added.append(Label(verdict.key, concept, verdict.category, verdict.label, role, verdict.groups, verdict.who, stamp, verdict.how))
    everything = [*kept, *added]
    if added or not (labels_dir / LABELS_NAME).exists():
        lines = "".join(canonical_json(label.to_json()) + "\n" for label in added)
        write_bytes(labels_dir / LABELS_NAME, old_bytes + lines.encode())
    return write_labels_record(labels_dir, everything, config, started.timestamp())


def check_verdict(verdict: Verdict, concepts: Mapping[str, str], categories: Collection[str] | None) -> None:
    """Refuse a verdict on an unknown input or category."""
    if verdict.key not in concepts:
        raise LabelError(f"{verdict.where}: unknown key {verdict.key!r}; it is not in the index")
    if categories is not None and verdict.category not in categories:
        raise LabelError(f"{verdict.where}: unknown category {verdict.category!r}; the recipe knows {', '.join(sorted(categories))}")


def read_concepts(index_dir: Path) -> dict[str, str]:
    """Key -> concept of every input in a finished index."""
    read_record(index_dir)
    concepts: dict[str, str] = {}
    for _, table in read_index(index_dir, columns=["key", "concept"]):
        concepts |= dict(zip(table["key"].to_pylist(), table["concept"].to_pylist(), strict=True))
    return concepts


def digest_labels(labels: Iterable[Label]) -> str:
    """Digest of labels, in order, without the time they were given."""
    lines = (canonical_json({name: value for name, value in label.to_json().items() if name != "when"}) for label in labels)
    return sha256_bytes("\n".join(lines).encode())


def write_labels_record(labels_dir: Path, labels: Sequence[Label], config: LabelsConfig, started: float) -> Record:
    """Write the store's record; its digest does not depend on the day, so the file itself is not among its outputs."""
    counts = Counter((label.category, label.role, label.label) for label in labels)
    summary = {"num_labels": len(labels), "labels_sha256": digest_labels(labels),
               "counts": {category: {role: {"num_positive": counts[category, role, 1], "num_negative": counts[category, role, 0]}
                                     for role in ROLES} for category in sorted({label.category for label in labels})}}
    record = Record("labels", config.model_dump(mode="json"), {}, Manifest(()), summary, describe_environment(started))
    write_json(labels_dir / RECORD_NAME, record.to_json())
    return record


def read_store(labels_dir: Path) -> tuple[list[Label], bytes]:
    """The labels of a store and the file's bytes; empty when there is none.

    Raises:
        StageError: a line is damaged, or the labels that the record vouches for were changed.
    """
    path = labels_dir / LABELS_NAME
    if not path.exists():
        return [], b""
    data = path.read_bytes()
    labels = []
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), start=1):
        try:
            labels.append(Label.from_json(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise StageError(f"{path}, line {number}: damaged label ({error!r}); restore the file from a copy") from error
    if (labels_dir / RECORD_NAME).exists():  # a kill between file and record leaves more labels than the record knows
        summary = Record.from_json(read_json(labels_dir / RECORD_NAME), where=str(labels_dir / RECORD_NAME)).summary
        if digest_labels(labels[:summary["num_labels"]]) != summary["labels_sha256"]:
            raise StageError(f"{path}: labels were edited after they had been recorded; the store is append-only: restore the file")
    return labels, data


def read_labels(labels_dir: Path) -> list[Label]:
    """The labels of a finished store, checked against its record.

    Raises:
        StageError: there is no store, or it is not what its record says.
    """
    record = read_record(labels_dir)
    labels, _ = read_store(labels_dir)
    if digest_labels(labels) != record.summary["labels_sha256"]:
        raise StageError(f"{labels_dir}: the labels are not those of the record; import the labels again")
    return labels

"""Labels: an append-only store in which every label has one role for ever.

The role (train, calibrate or audit) comes from the hash of the concept, so that the variants of one concept (skin tones
and genders of one emoji) never straddle roles: the figures speak about concepts that a classifier has never seen. The
first label of a concept decides; later ones follow it, whatever the recipe's shares say by then.

Labels that an audit asked for lie in a file of their own. They were drawn from what the filter kept, so they say
nothing about its recall, and a filter that learned from them would spoil the audit: `read_labels` leaves them out.
"""

import json
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..config import LabelsConfig
from ..errors import LabelError, StageError
from ..manifest import Manifest, canonical_json, read_json, sha256_bytes, write_bytes, write_json
from ..records import RECORD_NAME, Record, describe_environment, read_record
from .index import read_index
from .label_files import Verdict, read_label_csv
from .sources import SourceLabel, hash_share

__all__ = ["ROLES", "Judgement", "Label", "Verdict", "consensus", "find_concepts", "import_audit_labels", "import_labels",
           "read_audit_labels", "read_label_csv", "read_labels", "role_of", "verdicts_of_source"]

LABELS_NAME, AUDIT_LABELS_NAME, AUDIT_RECORD_NAME = "labels.jsonl", "audits.jsonl", "audits_record.json"
ROLES = ("train", "calibrate", "audit")
FITTING_ROLES = ("train", "calibrate")
AUDIT_PREFIX = "audit:"
MAX_NAMED = 5

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Label:
    """One judgement of one input by one person.

    Attributes:
        key, concept: the input and what it shows.
        category: name of the category.
        label: 1 (counts) or 0 (does not).
        role: `train`, `calibrate` or `audit`.
        groups: group name -> value, for figures per group; a value may be "".
        who, when, how: who judged it, when (ISO 8601), and how it was found; `audit:<id>` for an audit's sample.
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
    role: str
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
        judgements.append(Judgement(key, given[0].concept, category, given[0].role, given[0].label if len(values) == 1 else None, groups,
                                    len({label.who for label in given})))
    return judgements


def role_of(concept: str, config: LabelsConfig) -> str:
    """The role of a concept's labels where none has been given yet; the same whatever the category, the input or the day."""
    share = hash_share(config.salt, concept)
    if share < config.train_share:
        return "train"
    return "calibrate" if share < config.train_share + config.calibrate_share else "audit"


def verdicts_of_source(labels: Iterable[SourceLabel], *, who: str) -> list[Verdict]:
    """The labels that came with the data, as verdicts."""
    return [Verdict(label.key, label.category, label.label, who, "came with the data", f"labels of the source, {label.key}", label.groups)
            for label in labels]


def import_labels(verdicts: Sequence[Verdict], labels_dir: Path, index_dir: Path, config: LabelsConfig, *,
                  categories: Collection[str] | None = None, when: str | None = None) -> Record:
    """Append verdicts to the store; one that is already there is left as it is.

    Several people may judge one input. Where they disagree the input is ambiguous, see `consensus`.

    Args:
        verdicts: from `read_label_csv` or `verdicts_of_source`.
        labels_dir: the store.
        index_dir: the finished index that knows the keys and their concepts.
        config: shares and salt of the roles.
        categories: the categories that the recipe knows; None: any.
        when: ISO 8601 time of the labels; None: now.

    Returns:
        The store's record; its summary counts labels of keys that the index no longer knows (`num_vanished`).

    Raises:
        LabelError: an unknown key or category, or a person who contradicts himself. Nothing is appended then.
        StageError: the store was edited.
        StorageError: the store cannot be written.
    """
    started = datetime.now(UTC)
    kept, old_bytes = read_store(labels_dir, LABELS_NAME, RECORD_NAME)
    audited, _ = read_store(labels_dir, AUDIT_LABELS_NAME, AUDIT_RECORD_NAME)
    given = [*kept, *audited]
    concepts = find_concepts(index_dir, {verdict.key for verdict in verdicts} | {label.key for label in given}, join_copies=True)
    roles = {(concepts.get(label.key, label.concept), label.category): label.role for label in reversed(given)}
    elsewhere = {concepts.get(label.key, label.concept): label.role for label in reversed(kept)}
    stamp = when or started.isoformat(timespec="seconds")
    added = []
    for verdict in new_verdicts(verdicts, given):
        check_verdict(verdict, concepts, categories)
        concept = concepts[verdict.key]
        role = roles.setdefault((concept, verdict.category), elsewhere.setdefault(concept, role_of(concept, config)))
        added.append(Label(verdict.key, concept, verdict.category, verdict.label, role, verdict.groups, verdict.who, stamp, verdict.how))
    append_labels(labels_dir / LABELS_NAME, old_bytes, added)
    everything = [*kept, *added]
    vanished = sorted({label.key for label in kept} - set(concepts))
    if vanished:
        log.warning("%s: labels of %d keys that the index no longer knows are kept but not used: %s%s", labels_dir, len(vanished),
                    ", ".join(vanished[:MAX_NAMED]), " …" if len(vanished) > MAX_NAMED else "")
    summary = summarise_labels(everything) | {"num_vanished": len(vanished)}
    record = Record("labels", config.model_dump(mode="json"), {}, Manifest(()), summary, describe_environment(started.timestamp()))
    write_json(labels_dir / RECORD_NAME, record.to_json())
    return record


def import_audit_labels(verdicts: Sequence[Verdict], labels_dir: Path, index_dir: Path, *, audit_id: str, when: str | None = None) -> Record:
    """Append what people said about an audit's sample; the labels get the role `audit` and `how` names the audit.

    Args:
        verdicts: the judgements; their own `how` is not used.
        labels_dir: the store.
        index_dir: the finished index that knows the keys and their concepts.
        audit_id: which audit asked.
        when: ISO 8601 time of the labels; None: now.

    Raises:
        LabelError: as in `import_labels`; or an input whose concept has train or calibrate labels in the category: the
            filter may have learned from it, so it can't testify about the filter. Nothing is appended then.
        StageError: the store was edited.
        StorageError: the store cannot be written.
    """
    started = datetime.now(UTC)
    fitted, _ = read_store(labels_dir, LABELS_NAME, RECORD_NAME)
    kept, old_bytes = read_store(labels_dir, AUDIT_LABELS_NAME, AUDIT_RECORD_NAME)
    concepts = find_concepts(index_dir, {verdict.key for verdict in verdicts} | {label.key for label in fitted})
    roles = {(concept, label.category): label.role for label in reversed(fitted)
             for concept in (label.concept, concepts.get(label.key, label.concept))}
    stamp = when or started.isoformat(timespec="seconds")
    added, refused = [], []
    for verdict in new_verdicts(verdicts, [*fitted, *kept]):
        check_verdict(verdict, concepts, None)
        concept = concepts[verdict.key]
        role = roles.get((concept, verdict.category), "audit")
        if role in FITTING_ROLES:
            shown = verdict.key if verdict.key == concept else f"{verdict.key} (concept {concept})"
            refused.append(f"{shown}, which has the role {role} ({verdict.where})")
        added.append(Label(verdict.key, concept, verdict.category, verdict.label, "audit", verdict.groups, verdict.who, stamp,
                           AUDIT_PREFIX + audit_id))
    if refused:
        more = f" and {len(refused) - MAX_NAMED} more" if len(refused) > MAX_NAMED else ""
        raise LabelError(f"audit {audit_id}: labels that fit or set a threshold can't enter an audit: {'; '.join(refused[:MAX_NAMED])}{more}; "
                         "they were labelled after the sample had been drawn: fit and curate again, then draw a new audit")
    append_labels(labels_dir / AUDIT_LABELS_NAME, old_bytes, added)
    record = Record("audit labels", {}, {}, Manifest(()), summarise_labels([*kept, *added]), describe_environment(started.timestamp()))
    write_json(labels_dir / AUDIT_RECORD_NAME, record.to_json())
    return record


def new_verdicts(verdicts: Sequence[Verdict], known: Iterable[Label]) -> list[Verdict]:
    """The verdicts that are not there yet.

    Raises:
        LabelError: somebody contradicts what he said before.
    """
    said = {(label.key, label.category, label.who): (label.label, "an earlier label") for label in known}
    new = []
    for verdict in verdicts:
        name = verdict.key, verdict.category, verdict.who
        label, where = said.get(name, (verdict.label, ""))
        if label != verdict.label:
            raise LabelError(f"{verdict.where}: {verdict.key} is labelled {verdict.label} for {verdict.category}, {where} of "
                             f"{verdict.who or 'the same unnamed person'} says {label}; settle which one holds before importing, or name "
                             "in the column `who` which different people judged")
        if name not in said:
            said[name] = verdict.label, verdict.where
            new.append(verdict)
    return new


def check_verdict(verdict: Verdict, concepts: Mapping[str, str], categories: Collection[str] | None) -> None:
    """Refuse a verdict on an unknown input or category."""
    if verdict.key not in concepts:
        raise LabelError(f"{verdict.where}: unknown key {verdict.key!r}; it is not in the index")
    if categories is not None and verdict.category not in categories:
        raise LabelError(f"{verdict.where}: unknown category {verdict.category!r}; the recipe knows {', '.join(sorted(categories))}")


def find_concepts(index_dir: Path, keys: Collection[str], *, join_copies: bool = False) -> dict[str, str]:
    """Key -> concept of those of the keys that a finished index knows; it is read a shard at a time.

    With `join_copies`, concepts that share an image byte for byte among these keys count as one, named by the first of them in
    order: a copy of an image that a classifier was fitted to can't testify about it.
    """
    read_record(index_dir)
    wanted = pa.array(sorted(keys), type=pa.string())
    concepts: dict[str, str] = {}
    copies: dict[str, list[str]] = {}
    if len(wanted):
        for _, table in read_index(index_dir, columns=["key", "concept", "sha256", "reason"]):
            found = table.filter(pc.and_(pc.is_in(table["key"], value_set=wanted), pc.not_equal(table["reason"], "duplicate key")))
            for key, concept, sha256 in zip(*(found[name].to_pylist() for name in ("key", "concept", "sha256")), strict=True):
                concepts[key] = concept
                if sha256:
                    copies.setdefault(sha256, []).append(concept)
    if not join_copies:
        return concepts
    joined = join_groups(copies.values())
    return {key: joined.get(concept, concept) for key, concept in concepts.items()}


def join_groups(groups: Iterable[Collection[str]]) -> dict[str, str]:
    """Names that are connected by the groups they share -> the first of them in order (a union-find forest)."""
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        while parents.setdefault(name, name) != name:
            parents[name] = parents[parents[name]]
            name = parents[name]
        return name

    for group in groups:
        roots = sorted({root(name) for name in group})
        parents |= dict.fromkeys(roots, roots[0]) if roots else {}
    return {name: root(name) for name in parents}


def digest_labels(labels: Iterable[Label]) -> str:
    """Digest of labels, in order, without the time they were given."""
    lines = (canonical_json({name: value for name, value in label.to_json().items() if name != "when"}) for label in labels)
    return sha256_bytes("\n".join(lines).encode())


def summarise_labels(labels: Sequence[Label]) -> dict[str, Any]:
    """What a record says of labels: how many, their digest, and judgements by category and role; it does not depend on the day."""
    judged = consensus(labels)
    counts = Counter((one.category, one.role, one.label) for one in judged)
    return {"num_labels": len(labels), "labels_sha256": digest_labels(labels),
            "counts": {category: {role: {"num_positive": counts[category, role, 1], "num_negative": counts[category, role, 0],
                                         "num_ambiguous": counts[category, role, None]} for role in ROLES}
                       for category in sorted({one.category for one in judged})}}


def append_labels(path: Path, old_bytes: bytes, added: Sequence[Label]) -> None:
    """Write a store's file again with more lines at its end, whole or not at all."""
    if added or not path.exists():
        write_bytes(path, old_bytes + "".join(canonical_json(label.to_json()) + "\n" for label in added).encode())


def read_store(labels_dir: Path, name: str, record_name: str) -> tuple[list[Label], bytes]:
    """The labels of one file of a store and its bytes; empty when there is none.

    Raises:
        StageError: a line is damaged, or the labels that the record vouches for were changed.
    """
    path = labels_dir / name
    data = path.read_bytes() if path.exists() else b""
    labels = []
    for number, line in enumerate(data.removesuffix(b"\n").split(b"\n") if data else [], start=1):
        try:
            labels.append(Label.from_json(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise StageError(f"{path}, line {number}: damaged label ({error!r}); restore the file from a copy") from error
    if (labels_dir / record_name).exists():  # a kill between file and record leaves more labels than the record knows
        summary = Record.from_json(read_json(labels_dir / record_name), where=str(labels_dir / record_name)).summary
        if digest_labels(labels[:summary["num_labels"]]) != summary["labels_sha256"]:
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

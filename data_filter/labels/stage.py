"""Labels: every label is of certain bytes, and has one role for ever.

The role (train, calibrate or test) comes from the hash of the concept, so that the variants of one concept (skin tones
and genders of one emoji) never straddle roles: the figures speak about concepts that a classifier has never seen. The
first label of a concept decides; later ones follow it, whatever the recipe's shares say by then.

What somebody said holds for the bytes he looked at. A label whose digest is not the one in the index is kept and counted, but fits
nothing, sets no threshold, measures nothing and enters no audit; a verdict on the new bytes stands beside it and holds from then on.
Two things of it stay, both on the careful side: its concept keeps its role, and what it called positive is dropped by curation until
somebody has judged the new bytes.
"""

import logging
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from posixpath import normpath

from ...errors import LabelError
from ...recipe.filters import LabelsConfig
from ...store.records import Record, describe_environment
from ...store.stage_manifest import Manifest
from ...store.stage_places import RECORD_NAME
from ...store.vocabulary import FITTING_ROLES, Role
from ...store.whole_files import write_json
from ..sources.source import SourceLabel
from .concepts import join_concepts, own_concepts, role_of
from .csv_files import Verdict
from .index_rows import MAX_NAMED, Indexed, look_up, sort_known, warn_unused
from .store import (
    AUDIT_LABELS_NAME,
    AUDIT_PREFIX,
    AUDIT_RECORD_NAME,
    LABELS_FORMAT,
    LABELS_NAME,
    Label,
    append_labels,
    read_store,
    summarise_labels,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        record: of the store.
        num_new: verdicts on what that person had not judged yet.
        num_changed: verdicts that replace one for other bytes, or add a concept.
        num_unchanged: verdicts that were there already.
    """

    record: Record
    num_new: int
    num_changed: int
    num_unchanged: int


def verdicts_of_source(labels: Iterable[SourceLabel], *, who: str) -> list[Verdict]:
    """The labels that came with the data, as verdicts."""
    return [Verdict(label.key, label.category, label.label, who, "came with the data", f"labels of the source, {label.key}", label.groups)
            for label in labels]


def import_labels(verdicts: Sequence[Verdict], labels_dir: Path, index_dir: Path, config: LabelsConfig, *,
                  categories: Collection[str] | None = None, when: str | None = None) -> Record:
    """As `add_labels`; returns the store's record alone."""
    return add_labels(verdicts, labels_dir, index_dir, config, categories=categories, when=when).record


def add_labels(verdicts: Sequence[Verdict], labels_dir: Path, index_dir: Path, config: LabelsConfig, *,
               categories: Collection[str] | None = None, when: str | None = None) -> Imported:
    """Append verdicts to the store; one that is already there is left as it is.

    Several people may judge one input. Where they disagree the input is ambiguous, see `consensus`.

    Args:
        verdicts: from `read_label_csv` or `verdicts_of_source`.
        labels_dir: the store.
        index_dir: the finished index that knows the keys, their concepts and their bytes.
        config: shares and salt of the roles.
        categories: the categories that the recipe knows; None: any.
        when: ISO 8601 time of the labels; None: now.

    Returns:
        What was done. The record's summary counts inputs whose labels are of other bytes (`num_changed`) and labelled keys that the
        index no longer knows (`num_vanished`).

    Raises:
        LabelError: an unknown key or category, a person who contradicts himself, or a concept that would join inputs whose roles
            differ already. Nothing is appended then.
        StageError: the store was edited.
        StorageError: the store cannot be written.
    """
    started = datetime.now(UTC)
    kept, old_bytes = read_store(labels_dir, LABELS_NAME, RECORD_NAME)
    audited, _ = read_store(labels_dir, AUDIT_LABELS_NAME, AUDIT_RECORD_NAME)
    given = [*kept, *audited]
    known = look_up(index_dir, {key for verdict in verdicts for key in spellings(verdict.key)} | {label.key for label in given})
    resolved = [resolve(verdict, known, categories) for verdict in verdicts]
    new, counts = compare_verdicts(resolved, given)
    used = {verdict.key for verdict in resolved} | {label.key for label in given}
    concepts = join_concepts({key: known[key] for key in used & known.keys()}, own_concepts(given, resolved), join_copies=True)
    check_roles(new, given, known, concepts, labels_dir)
    roles = {(concepts.get(label.key, label.concept), label.category): label.role for label in reversed(given)}
    elsewhere = {concepts.get(label.key, label.concept): label.role for label in reversed(kept)}
    names = {concepts.get(label.key, label.concept): label.concept for label in reversed(kept)}
    stamp = when or started.isoformat(timespec="seconds")
    added = []
    for verdict in new:
        concept = concepts[verdict.key]
        role = roles.setdefault((concept, verdict.category), elsewhere.setdefault(concept, role_of(concept, config)))
        added.append(label_of(verdict, names.get(concept, concept), role, verdict.how, stamp))
    append_labels(labels_dir / LABELS_NAME, old_bytes, added)
    if counts["replaced"] and not all(verdict.sha256 for verdict in verdicts):
        log.warning("%s: %d verdicts are for images that changed since the same person judged them; they count for the new images from now "
                    "on. A column sha256 in the label file would say which bytes were looked at", labels_dir, counts["replaced"])
    labels = sort_known([*kept, *added], known)
    warn_unused(labels, labels_dir)
    summary = summarise_labels([*kept, *added], labels.current) | {"num_changed": labels.num_changed, "num_vanished": labels.num_vanished}
    record = Record("labels", {"format": LABELS_FORMAT} | config.model_dump(mode="json"), {}, Manifest(()), summary,
                    describe_environment(started.timestamp()))
    write_json(labels_dir / RECORD_NAME, record.to_json())
    return Imported(record, counts["new"], counts["replaced"] + counts["concept"], counts["unchanged"])


def import_audit_labels(verdicts: Sequence[Verdict], labels_dir: Path, index_dir: Path, *, audit_id: str, when: str | None = None) -> Record:
    """Append what people said about an audit's sample; the labels get the role `test` and `how` names the audit.

    Args:
        verdicts: the judgements, with the digests of the bytes that were drawn; their own `how` is not used.
        labels_dir: the store.
        index_dir: the finished index that knows the keys and their concepts.
        audit_id: which audit asked.
        when: ISO 8601 time of the labels; None: now.

    Raises:
        LabelError: as in `add_labels`; or an input whose concept has train or calibrate labels in the category: the
            filter may have learned from it, so it can't testify about the filter. Nothing is appended then.
        StageError: the store was edited.
        StorageError: the store cannot be written.
    """
    started = datetime.now(UTC)
    fitted, _ = read_store(labels_dir, LABELS_NAME, RECORD_NAME)
    kept, old_bytes = read_store(labels_dir, AUDIT_LABELS_NAME, AUDIT_RECORD_NAME)
    known = look_up(index_dir, {verdict.key for verdict in verdicts} | {label.key for label in (*fitted, *kept)})
    concepts = join_concepts(known, own_concepts(fitted, ()))
    roles = {(concept, label.category): label.role for label in reversed(fitted)
             for concept in (label.concept, concepts.get(label.key, label.concept))}
    stamp = when or started.isoformat(timespec="seconds")
    added, refused = [], []
    for verdict in compare_verdicts([resolve(verdict, known, None) for verdict in verdicts], [*fitted, *kept])[0]:
        concept = concepts[verdict.key]
        role = roles.get((concept, verdict.category), Role.TEST)
        if role in FITTING_ROLES:
            name = verdict.key if verdict.key == concept else f"{verdict.key} (concept {concept})"
            refused.append(f"{name}, which has the role {role} ({verdict.where})")
        added.append(label_of(verdict, concept, Role.TEST, AUDIT_PREFIX + audit_id, stamp))
    if refused:
        more = f" and {len(refused) - MAX_NAMED} more" if len(refused) > MAX_NAMED else ""
        raise LabelError(f"audit {audit_id}: labels that fit or set a threshold can't enter an audit: {'; '.join(refused[:MAX_NAMED])}{more}; "
                         "they were labelled after the sample had been drawn: fit and curate again, then draw a new audit")
    append_labels(labels_dir / AUDIT_LABELS_NAME, old_bytes, added)
    summary = summarise_labels([*kept, *added], sort_known([*kept, *added], known).current)
    record = Record("audit labels", {"format": LABELS_FORMAT}, {}, Manifest(()), summary, describe_environment(started.timestamp()))
    write_json(labels_dir / AUDIT_RECORD_NAME, record.to_json())
    return record


def label_of(verdict: Verdict, concept: str, role: Role, how: str, when: str) -> Label:
    """The label that a verdict becomes."""
    return Label(verdict.key, concept, verdict.category, verdict.label, role, verdict.groups, verdict.who, when, how, verdict.sha256,
                 verdict.concept)


def compare_verdicts(verdicts: Sequence[Verdict], known: Iterable[Label]) -> tuple[list[Verdict], Counter[str]]:
    """The verdicts that are not there yet, and how many of which kind there are: new, replaced, concept, unchanged.

    Raises:
        LabelError: somebody contradicts what he said before of the same bytes.
    """
    labels = list(known)
    said = {(label.key, label.category, label.who, label.sha256): (label.label, "an earlier label") for label in labels}
    judged = {(label.key, label.category, label.who) for label in labels}
    named = {(label.key, label.category, label.own_concept) for label in labels}
    new, counts = [], Counter[str]()
    for verdict in verdicts:
        name = verdict.key, verdict.category, verdict.who, verdict.sha256
        label, where = said.get(name, (verdict.label, ""))
        if label != verdict.label:
            raise LabelError(f"{verdict.where}: {verdict.key} is labelled {verdict.label} for {verdict.category}, {where} of "
                             f"{verdict.who or 'the same unnamed person'} says {label}; settle which one holds before importing, or name "
                             "in the column `who` which different people judged")
        concept = verdict.key, verdict.category, verdict.concept
        kind = ("replaced" if name[:3] in judged else "new") if name not in said else (
            "concept" if verdict.concept and concept not in named else "unchanged")
        counts[kind] += 1
        if kind != "unchanged":
            said[name] = verdict.label, verdict.where
            named.add(concept)
            new.append(verdict)
    return new, counts


def spellings(key: str) -> list[str]:
    """A key, and what it may be meant to be: without surrounding blanks, without `./` and the like, with its accents written otherwise."""
    bare = key.strip()
    plain = normpath(bare) if bare else bare
    return list(dict.fromkeys((key, bare, plain, unicodedata.normalize("NFC", plain), unicodedata.normalize("NFD", plain))))


def resolve(verdict: Verdict, known: Mapping[str, Indexed], categories: Collection[str] | None) -> Verdict:
    """The verdict under the index's spelling of its key, with the digest of the bytes in the index where it names none.

    Raises:
        LabelError: an unknown input or category.
    """
    key = next((key for key in spellings(verdict.key) if key in known), None)
    if key is None:
        raise LabelError(f"{verdict.where}: unknown key {verdict.key!r}; it is not in the index")
    if categories is not None and verdict.category not in categories:
        raise LabelError(f"{verdict.where}: unknown category {verdict.category!r}; the recipe knows {', '.join(sorted(categories))}")
    return replace(verdict, key=key, sha256=verdict.sha256 or known[key].sha256)


def check_roles(new: Sequence[Verdict], given: Iterable[Label], known: Mapping[str, Indexed], concepts: Mapping[str, str],
                labels_dir: Path) -> None:
    """Refuse a verdict whose concept joins inputs that have had different roles since they were first labelled."""
    joining = {concepts[verdict.key]: verdict for verdict in reversed(new) if verdict.concept}
    held: dict[tuple[str, str], dict[Role, str]] = {}
    for label in sort_known(given, known).current if joining else ():
        if (concept := concepts[label.key]) in joining:
            roles = held.setdefault((concept, label.category), {})
            roles.setdefault(label.role, label.key)
            if len(roles) > 1:
                verdict = joining[concept]
                raise LabelError(f"{verdict.where}: concept {verdict.concept!r} joins {' and '.join(f'{k} ({r})' for r, k in roles.items())}, "
                                 "which had different roles from their first labels on, and a role is for ever; leave the concept out, or "
                                 f"move {labels_dir} away and import all labels with their concepts from the start")

import json

import pytest

from glideslope.data_filter.labels.concepts import role_of
from glideslope.data_filter.labels.store import LABELS_FORMAT, Label, consensus, read_audit_labels, read_labels
from glideslope.errors import StageError
from glideslope.recipe.recipe import LabelsConfig
from glideslope.store.records import Record
from glideslope.store.stage_manifest import Manifest
from glideslope.store.whole_files import write_json

from ..conftest import World
from .test_stage import audit, indexed, key_of, put, verdict

__all__ = ["indexed"]


def test_consensus_keeps_the_first_group_value_that_anybody_gave() -> None:
    first, second = ({"age": "", "tone": "3"}, {"age": "old", "tone": "4"})
    labels = [Label("k", "k", "red", 1, "test", groups, who, "", "") for groups, who in ((first, "a"), (second, "b"))]
    (only,) = consensus(labels)
    assert only.groups == {"age": "old", "tone": "3"}


def test_consensus_takes_the_concept_that_was_joined_last_and_else_the_first() -> None:
    labels = [Label("k", concept, "red", 1, "test", {}, who, "", "", "", own)
              for who, concept, own in (("a", "k", ""), ("b", "joined", "apple"), ("c", "other", ""))]
    assert [consensus(labels[:num])[0].concept for num in (1, 2, 3)] == ["k", "joined", "joined"]
    assert consensus([labels[0], labels[2]])[0].concept == "k"


def test_edited_audit_labels_are_refused(indexed: World) -> None:
    put(indexed)
    audit(indexed, verdict(key_of("test"), 1))
    path = indexed.root / "labels" / "audits.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"label":1', b'"label":0'))
    with pytest.raises(StageError, match="labels were edited"):
        read_audit_labels(indexed.root / "labels")


def test_an_edited_store_is_refused(indexed: World) -> None:
    put(indexed, verdict("000.png", 1), verdict("001.png", 0))
    path = indexed.root / "labels" / "labels.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"label":0', b'"label":1'))
    with pytest.raises(StageError, match="labels were edited"):
        read_labels(indexed.root / "labels")
    path.write_bytes(b"not json\n")
    with pytest.raises(StageError, match="line 1: damaged label"):
        put(indexed, verdict("002.png", 0))


def test_a_kill_between_labels_and_record_loses_nothing(indexed: World) -> None:
    put(indexed, verdict("000.png", 1))
    record = (indexed.root / "labels" / "record.json").read_bytes()
    expected = put(indexed, verdict("001.png", 0))
    (indexed.root / "labels" / "record.json").write_bytes(record)
    with pytest.raises(StageError, match="import the labels again"):
        read_labels(indexed.root / "labels")
    assert put(indexed, verdict("001.png", 0)).digest == expected.digest
    assert len(read_labels(indexed.root / "labels")) == 2


def test_labels_of_another_format_are_refused(indexed: World) -> None:
    put(indexed, verdict("000.png", 1))
    path = indexed.root / "labels" / "record.json"
    content = json.loads(path.read_bytes())
    assert content["config"].pop("format") == LABELS_FORMAT
    write_json(path, Record("labels", content["config"], {}, Manifest(()), content["summary"], {}).to_json())
    for use in (lambda: read_labels(indexed.root / "labels"), lambda: put(indexed, verdict("001.png", 1))):
        with pytest.raises(StageError, match=r"labels of the format None, expected 'glideslope.labels/3'.*import the labels again"):
            use()


def test_a_line_with_an_unknown_role_is_refused(indexed: World) -> None:
    put(indexed, verdict("000.png", 1))
    path = indexed.root / "labels" / "labels.jsonl"
    path.write_text(path.read_text().replace(f'"role":"{role_of("000.png", LabelsConfig())}"', '"role":"audit"'))
    with pytest.raises(StageError, match=r"labels.jsonl, line 1: damaged label .*'audit' is not a valid Role"):
        read_labels(indexed.root / "labels")


def test_a_label_reads_back_as_it_was_written() -> None:
    label = Label("k", "c", "red", 0, "test", {"age": "old"}, "ann", "2026-01-01", "by eye", "0" * 64, "apple")
    assert Label.from_json(json.loads(json.dumps(label.to_json()))) == label

import json
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from glideslope.data_filter.labels.concepts import find_fitted, role_of
from glideslope.data_filter.labels.csv_files import Verdict
from glideslope.data_filter.labels.index_rows import Indexed, SortedLabels, look_up, sort_labels
from glideslope.data_filter.labels.stage import Imported, add_labels, import_audit_labels, import_labels, verdicts_of_source
from glideslope.data_filter.labels.store import Label, consensus, read_audit_labels, read_labels
from glideslope.data_filter.sources.source import SourceLabel
from glideslope.errors import LabelError, StageError
from glideslope.recipe.filters import LabelsConfig
from glideslope.store.digests import sha256_file
from glideslope.store.records import Record
from glideslope.store.vocabulary import Role

from ..conftest import World, draw


def verdict(key: str, label: int, *, category: str = "red", who: str = "me") -> Verdict:
    return Verdict(key, category, label, who, "by eye", f"test, {key}")


def audit(world: World, *verdicts: Verdict, audit_id: str = "red_001") -> Record:
    return import_audit_labels(verdicts, world.root / "labels", world.root / "index", audit_id=audit_id)


def key_of(role: str, number: int = 0) -> str:
    """The key of a picture whose concept has this role."""
    return [f"{n:03d}.png" for n in range(60) if role_of(f"{n:03d}.png", LabelsConfig()) == role][number]


def put(world: World, *verdicts: Verdict, config: LabelsConfig | None = None, when: str | None = None) -> Record:
    return import_labels(verdicts, world.root / "labels", world.root / "index", config or LabelsConfig(), when=when)


@pytest.fixture
def indexed(world: World) -> World:
    world.index()
    return world








def test_copies_of_an_image_share_a_role_and_keep_the_one_that_was_given_first(world: World) -> None:
    keys = [f"{n:03d}.png" for n in range(0, 60, 3)]
    train, other = (next(key for key in keys if role_of(key, LabelsConfig()) == role) for role in ("train", "test"))
    (world.root / "images" / other).write_bytes((world.root / "images" / train).read_bytes())
    world.index()
    put(world, verdict(other, 1))
    put(world, verdict(train, 1))
    assert {label.key: label.role for label in read_labels(world.root / "labels")} == {other: "test", train: "test"}


def test_labels_are_appended_and_earlier_lines_stay_as_they_are(indexed: World) -> None:
    put(indexed, verdict("000.png", 1), when="2026-01-01T00:00:00+00:00")
    first = (indexed.root / "labels" / "labels.jsonl").read_bytes()
    put(indexed, verdict("000.png", 1), verdict("001.png", 0), when="2026-02-02T00:00:00+00:00")
    both = (indexed.root / "labels" / "labels.jsonl").read_bytes()
    assert both.startswith(first) and len(both.splitlines()) == 2
    assert json.loads(both.splitlines()[1]) == {
        "key": "001.png", "concept": "001.png", "category": "red", "label": 0, "role": role_of("001.png", LabelsConfig()),
        "groups": {}, "who": "me", "when": "2026-02-02T00:00:00+00:00", "how": "by eye", "own_concept": "",
        "sha256": sha256_file(indexed.root / "images" / "001.png")}
    assert [label.key for label in read_labels(indexed.root / "labels")] == ["000.png", "001.png"]


def test_the_digest_does_not_depend_on_the_day(indexed: World, tmp_path: Path) -> None:
    other = World(tmp_path / "other")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "index").symlink_to(indexed.root / "index")
    one = put(indexed, verdict("000.png", 1), when="2026-01-01T00:00:00+00:00")
    two = put(other, verdict("000.png", 1), when="2027-01-01T00:00:00+00:00")
    three = put(other, verdict("001.png", 1))
    assert one.digest == two.digest != three.digest


def test_importing_the_same_file_twice_changes_nothing(indexed: World) -> None:
    first = indexed.label()
    data = (indexed.root / "labels" / "labels.jsonl").read_bytes()
    assert indexed.label().digest == first.digest
    assert (indexed.root / "labels" / "labels.jsonl").read_bytes() == data


def test_unknown_keys_categories_and_contradictions_are_refused_and_nothing_is_appended(indexed: World) -> None:
    put(indexed, verdict("000.png", 1))
    before = (indexed.root / "labels" / "labels.jsonl").read_bytes()
    with pytest.raises(LabelError, match=r"unknown key 'none.png'; it is not in the index"):
        put(indexed, verdict("001.png", 0), verdict("none.png", 1))
    with pytest.raises(LabelError, match=r"000.png is labelled 0 for red, an earlier label of me says 1"):
        put(indexed, verdict("001.png", 0), verdict("000.png", 0))
    with pytest.raises(LabelError, match=r"002.png is labelled 0 for red, test, 002.png of me says 1"):
        put(indexed, verdict("002.png", 1), verdict("002.png", 0))
    with pytest.raises(LabelError, match="unknown category 'blue'; the recipe knows red"):
        import_labels([verdict("001.png", 0, category="blue")], indexed.root / "labels", indexed.root / "index", LabelsConfig(),
                      categories=["red"])
    assert (indexed.root / "labels" / "labels.jsonl").read_bytes() == before


def test_the_first_label_of_a_concept_decides_its_role_for_ever(indexed: World) -> None:
    put(indexed, verdict("000.png", 1))
    role = role_of("000.png", LabelsConfig())
    salt = next(s for s in map(str, range(100)) if role_of("000.png", LabelsConfig(salt=s)) != role)
    put(indexed, verdict("000.png", 1, category="blue"), verdict("000.png", 1, who="you"), config=LabelsConfig(salt=salt))
    assert {label.role for label in read_labels(indexed.root / "labels")} == {role}


def test_people_who_disagree_make_an_input_ambiguous(indexed: World) -> None:
    record = put(indexed, verdict("000.png", 1), verdict("000.png", 0, who="you"), verdict("001.png", 1), verdict("001.png", 1, who="you"),
                 verdict("000.png", 0, category="blue"))
    found = {(one.key, one.category): one for one in consensus(read_labels(indexed.root / "labels"))}
    assert found["000.png", "red"].is_ambiguous and found["000.png", "red"].label is None
    assert (found["001.png", "red"].label, found["001.png", "red"].num_labels) == (1, 2)
    assert found["000.png", "blue"].label == 0
    counts = record.summary["counts"]["red"][role_of("000.png", LabelsConfig())]
    assert counts["num_ambiguous"] == 1


def test_audit_labels_lie_apart_and_leave_the_other_labels_as_they_are(indexed: World) -> None:
    before = put(indexed, verdict(key_of("train"), 1))
    audit(indexed, verdict(key_of("train", 1), 0), verdict(key_of("test"), 1))
    assert [label.key for label in read_labels(indexed.root / "labels")] == [key_of("train")]
    drawn = read_audit_labels(indexed.root / "labels")
    assert [(label.key, label.role, label.how) for label in drawn] == [
        (key_of("train", 1), "test", "audit:red_001"), (key_of("test"), "test", "audit:red_001")]
    after = put(indexed, verdict(key_of("train"), 1))
    assert after.digest == before.digest, "an audit must not make the filters fit again"


def test_an_audit_label_makes_its_concept_an_audit_concept_of_that_category(indexed: World) -> None:
    put(indexed)
    key = key_of("train")
    audit(indexed, verdict(key, 0))
    put(indexed, verdict(key, 0, who="you"), verdict(key, 0, category="blue"))
    assert [(label.category, label.role) for label in read_labels(indexed.root / "labels")] == [("red", "test"), ("blue", "train")]


@pytest.mark.parametrize("role", ["train", "calibrate"])
def test_an_audit_refuses_what_the_filter_was_fitted_to_and_names_it(indexed: World, role: str) -> None:
    put(indexed, verdict(key_of(role), 0))
    with pytest.raises(LabelError, match=rf"can't enter an audit: {key_of(role)}, which has the role {role} "):
        audit(indexed, verdict(key_of("test"), 0), verdict(key_of(role), 0, who="you"))
    assert read_audit_labels(indexed.root / "labels") == []
    audit(indexed, verdict(key_of(role), 0, category="blue"))


def test_an_audit_refuses_contradictions_and_unknown_keys(indexed: World) -> None:
    put(indexed, verdict(key_of("test"), 0))
    audit(indexed, verdict(key_of("test", 1), 1))
    with pytest.raises(LabelError, match="an earlier label of me says 1"):
        audit(indexed, verdict(key_of("test", 1), 0))
    with pytest.raises(LabelError, match="an earlier label of me says 0"):
        audit(indexed, verdict(key_of("test"), 1))
    with pytest.raises(LabelError, match=r"unknown key 'none\.png'"):
        audit(indexed, verdict("none.png", 1))
    with pytest.raises(LabelError, match="an earlier label of me says 1"):
        put(indexed, verdict(key_of("test", 1), 0))
    audit(indexed, verdict(key_of("test", 1), 0, who="you"), verdict(key_of("test", 1), 1))
    assert len(read_audit_labels(indexed.root / "labels")) == 2


def test_labels_of_keys_that_vanished_are_kept_and_counted(indexed: World, caplog: pytest.LogCaptureFixture) -> None:
    first = put(indexed, verdict("000.png", 1), verdict("001.png", 0))
    assert first.summary["num_vanished"] == 0
    (indexed.root / "images" / "000.png").unlink()
    metadata = indexed.root / "images" / "metadata.csv"
    metadata.write_text("".join(line for line in metadata.read_text().splitlines(keepends=True) if not line.startswith("000.png")))
    indexed.index()
    second = put(indexed, verdict("001.png", 0))
    assert (second.summary["num_vanished"], second.summary["num_labels"]) == (1, 2)
    assert "labels of 1 keys that the index no longer knows are kept but not used: 000.png" in caplog.text
    with pytest.raises(LabelError, match=r"unknown key '000\.png'"):
        put(indexed, verdict("000.png", 1, category="blue"))


def test_inputs_are_looked_up_for_the_wanted_keys_alone(indexed: World) -> None:
    found = look_up(indexed.root / "index", {"000.png", "none.png"})
    assert found == {"000.png": Indexed("000.png", sha256_file(indexed.root / "images" / "000.png"))}
    assert look_up(indexed.root / "index", set()) == {}


def test_labels_of_a_source_name_who_stands_behind_them() -> None:
    (found,) = verdicts_of_source([SourceLabel("1F600", "person", 0, {"gender": ""})], who="openmoji_labels.csv")
    assert (found.key, found.label, found.who, found.groups) == ("1F600", 0, "openmoji_labels.csv", {"gender": ""})


def test_labels_need_a_finished_index(world: World) -> None:
    with pytest.raises(StageError, match="no finished stage here"):
        put(world, verdict("000.png", 1))


def add(world: World, *verdicts: Verdict, categories: list[str] | None = None) -> Imported:
    return add_labels(verdicts, world.root / "labels", world.root / "index", LabelsConfig(), categories=categories)


def repaint(world: World, *keys: str) -> None:
    """Other pictures under the same names, indexed again."""
    for number, key in enumerate(keys):
        draw(world.root / "images" / key, (number, 77, 199))
    world.index()


def sorted_labels(world: World) -> SortedLabels:
    return sort_labels(read_labels(world.root / "labels"), world.root / "index")


def test_a_label_speaks_of_the_bytes_it_was_given_for(indexed: World, caplog: pytest.LogCaptureFixture) -> None:
    digest = sha256_file(indexed.root / "images" / "000.png")
    first = put(indexed, verdict("000.png", 1), verdict("001.png", 0))
    assert {label.sha256 for label in read_labels(indexed.root / "labels") if label.key == "000.png"} == {digest}
    assert first.summary["num_changed"] == 0 and caplog.messages == []
    repaint(indexed, "000.png")
    found = sorted_labels(indexed)
    assert ([label.key for label in found.current], [label.key for label in found.changed], found.num_changed) == (["001.png"], ["000.png"], 1)
    second = put(indexed)
    assert (second.summary["num_changed"], second.summary["num_labels"]) == (1, 2)
    role = role_of("000.png", LabelsConfig())
    assert first.summary["counts"]["red"][role]["num_positive"] == 1 and second.summary["counts"]["red"][role]["num_positive"] == 0
    assert "labels of 1 keys are of other bytes than the index has now and are kept but not used" in caplog.text
    assert second.digest != first.digest


def test_a_verdict_on_the_new_bytes_replaces_the_old_one_and_each_holds_for_its_bytes(indexed: World) -> None:
    original = (indexed.root / "images" / "000.png").read_bytes()
    put(indexed, verdict("000.png", 1))
    repaint(indexed, "000.png")
    done = add(indexed, verdict("000.png", 0))
    assert (done.num_new, done.num_changed, done.num_unchanged, done.record.summary["num_changed"]) == (0, 1, 0, 0)
    assert [(label.label, label.role) for label in sorted_labels(indexed).current] == [(0, role_of("000.png", LabelsConfig()))]
    with pytest.raises(LabelError, match="an earlier label of me says 0"):
        put(indexed, verdict("000.png", 1))
    (indexed.root / "images" / "000.png").write_bytes(original)
    indexed.index()
    assert [label.label for label in sorted_labels(indexed).current] == [1]


def test_old_verdicts_imported_again_for_new_bytes_are_pointed_out_unless_they_name_their_bytes(
        indexed: World, caplog: pytest.LogCaptureFixture) -> None:
    before = verdict("000.png", 1)
    put(indexed, before)
    digest = sha256_file(indexed.root / "images" / "000.png")
    repaint(indexed, "000.png")
    named = add(indexed, replace(before, sha256=digest))
    assert (named.num_unchanged, named.num_changed, named.record.summary["num_changed"]) == (1, 0, 1)
    assert "count for the new images" not in caplog.text
    put(indexed, before)
    assert "1 verdicts are for images that changed since the same person judged them; they count for the new images" in caplog.text


def test_two_runs_in_one_directory_share_no_verdict(indexed: World) -> None:
    indexed.label()
    repaint(indexed, *(f"{n:03d}.png" for n in range(60)))
    assert sorted_labels(indexed).current == [] and indexed.label().summary["num_labels"] == 120


def test_an_import_counts_what_is_new_changed_and_unchanged(indexed: World) -> None:
    first = add(indexed, verdict("000.png", 1), verdict("001.png", 0), verdict("001.png", 0))
    second = add(indexed, verdict("000.png", 1), verdict("001.png", 0, who="you"))
    assert [(done.num_new, done.num_changed, done.num_unchanged) for done in (first, second)] == [(2, 0, 1), (1, 0, 1)]
    third = add(indexed, replace(verdict("000.png", 1), concept="apple"))
    assert (third.num_new, third.num_changed, third.num_unchanged) == (0, 1, 0)
    assert add(indexed, replace(verdict("000.png", 1), concept="apple")).num_unchanged == 1
    assert [one.num_labels for one in consensus(read_labels(indexed.root / "labels")) if one.key == "000.png"] == [1]


@pytest.mark.parametrize("key", ["./000.png", " 000.png ", "x/../000.png", ".//000.png"])
def test_harmless_spellings_of_a_key_mean_the_key(indexed: World, key: str) -> None:
    put(indexed, verdict(key, 1))
    assert [label.key for label in read_labels(indexed.root / "labels")] == ["000.png"]


@pytest.mark.parametrize(("written", "form"), [("caf\u00e9.png", "NFD"), ("cafe\u0301.png", "NFC")])
def test_a_key_is_known_however_its_accents_are_written(world: World, written: str, form: str) -> None:
    draw(world.root / "images" / written, (9, 9, 9))
    world.index()
    put(world, verdict(unicodedata.normalize(form, written), 1))
    assert [label.key for label in read_labels(world.root / "labels")] == [written]


@pytest.mark.parametrize("key", ["", " ", ".", "../000.png", "/000.png", "000.PNG"])
def test_other_keys_are_unknown(indexed: World, key: str) -> None:
    with pytest.raises(LabelError, match="unknown key"):
        put(indexed, verdict(key, 1))


def same(world: World, *keys: str, concept: str = "apple") -> list[Label]:
    """Label these keys with one concept of their own; returns all labels."""
    put(world, *(replace(verdict(key, 1), concept=concept) for key in keys))
    return read_labels(world.root / "labels")


def test_inputs_with_one_concept_of_their_own_share_a_role_and_its_name(indexed: World) -> None:
    keys = [key_of(role, number) for role in Role for number in range(3)]
    labels = same(indexed, *keys)
    assert len({(label.role, label.concept) for label in labels}) == 1 and {label.own_concept for label in labels} == {"apple"}
    later = same(indexed, "059.png")
    assert len({(label.role, label.concept) for label in later}) == 1
    assert {label.role for label in same(indexed, "058.png", concept=later[0].concept)} == {later[0].role}, "the index's name works as well"


def test_no_concept_leaves_every_input_on_its_own(indexed: World) -> None:
    labels = same(indexed, *(f"{n:03d}.png" for n in range(20)), concept="")
    assert [label.concept for label in labels] == [label.key for label in labels]


def test_a_concept_that_joins_inputs_of_different_roles_is_refused_with_both_named(indexed: World) -> None:
    train, other = key_of("train"), key_of("test")
    put(indexed, verdict(train, 1), verdict(other, 1))
    same(indexed, train)
    with pytest.raises(LabelError, match=rf"test, {other}: concept 'apple' joins .*{train} \(train\)") as refusal:
        same(indexed, other)
    assert f"{other} (test)" in str(refusal.value) and "a role is for ever" in str(refusal.value)
    assert len(read_labels(indexed.root / "labels")) == 3


def test_what_shares_a_concept_with_the_fitted_enters_no_audit(indexed: World) -> None:
    train, other = key_of("train"), key_of("test")
    put(indexed, replace(verdict(train, 0), concept="apple"), replace(verdict(other, 0, category="blue"), concept="apple"))
    labels = read_labels(indexed.root / "labels")
    assert find_fitted(labels, "red", indexed.root / "index") >= {train, other}
    assert find_fitted(labels, "green", indexed.root / "index") == set()
    with pytest.raises(LabelError, match="can't enter an audit"):
        audit(indexed, verdict(other, 0))



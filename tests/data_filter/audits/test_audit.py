"""Audits of a small run: 240 pictures, of which the first 60 are labelled."""

import csv
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from glideslope.data_filter.audits.audit import Audit, check_seed, list_audits, list_fresh
from glideslope.data_filter.audits.plan import bind_seed, digest_population, digest_seed, redraw
from glideslope.data_filter.audits.population import AuditRequest, choose_number, open_kept, plan_audit
from glideslope.data_filter.audits.report import AuditReport, run_audit
from glideslope.data_filter.index import embed as index
from glideslope.data_filter.index.parquet import read_tables
from glideslope.data_filter.labels.concepts import role_of
from glideslope.data_filter.labels.csv_files import Verdict
from glideslope.data_filter.labels.stage import import_labels
from glideslope.data_filter.labels.store import read_audit_labels, read_labels
from glideslope.errors import FilterError, LabelError, StageError
from glideslope.recipe.filters import LabelsConfig
from glideslope.store.digests import sha256_file, sha256_json
from glideslope.store.records import read_record
from glideslope.store.stage_manifest import Manifest
from glideslope.store.whole_files import read_json, write_json

from ..conftest import TinyClip, World, category, fill_folder

CATEGORY = category(target_recall=0.99)
SEED = "3 5 2 6 1"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A curated run; tests must not change it."""
    root = tmp_path_factory.mktemp("audited")
    with pytest.MonkeyPatch.context() as patch:
        index.load_clip_once.cache_clear()
        patch.setattr(index, "load_clip", lambda config, device: TinyClip())
        fill_folder(root / "images", 240)
        world = World(root)
        world.index()
        world.label()
        world.fit(CATEGORY)
        world.curate(CATEGORY)
    index.load_clip_once.cache_clear()
    yield root


@pytest.fixture
def world(finished: Path, tmp_path: Path) -> World:
    return copy_run(finished, tmp_path / "run")


def copy_run(finished: Path, root: Path) -> World:
    """A run to work in; its pictures are those of the finished one."""
    shutil.copytree(finished, root, ignore=shutil.ignore_patterns("images"))
    (root / "images").symlink_to(finished / "images")
    return World(root)


def audit(world: World, import_file: Path | None = None, who: str = "ann", **wishes: Any) -> AuditReport:
    """With a fixed seed, unless the wish is to draw from the system's."""
    wishes = wishes if not wishes or "draw" in wishes else {"seed": SEED, **wishes}
    return run_audit([CATEGORY], world.layout, world.source, AuditRequest(**wishes), import_file=import_file, who=who)


def only(world: World) -> Audit:
    (found,) = list_audits(world.layout, "red")
    return found


def is_red(key: str) -> int:
    return int(int(key[:3]) % 3 == 0)


def fill(path: Path, labels: dict[int, str], *, who: str = "") -> Path:
    """Fill in the label of some numbers."""
    rows = list(csv.DictReader(path.open()))
    for row in rows:
        row["label"], row["who"] = labels.get(int(row["number"]), row["label"]), who
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def review(world: World) -> Path:
    return only(world).directory / "review" / "sample.csv"


def fill_in(world: World, *, num: int = 10**6, positive: tuple[int, ...] = ()) -> Path:
    """The reviewer sees red in the pictures of these numbers alone."""
    return fill(review(world), {n: str(int(n in positive)) for n in range(1, min(num, len(only(world).keys)) + 1)})


def test_without_an_audit_the_plan_says_how_many_labels_show_which_claims(world: World) -> None:
    report = audit(world)
    (plan,) = report.plans
    assert (report.audits, report.written) == ([], [])
    kept = [row for table in read_tables(world.root / "curated/ledger") for row in table.to_pylist() if row["decision"] == "keep"]
    fitted = [row for row in kept if int(row["key"][:3]) < 60 and role_of(row["key"], LabelsConfig()) != "test"]
    assert (plan["num_kept"], plan["num_images"], plan["num_unknown"]) == (len(kept), len(kept) - len(fitted), 0)
    assert {row["claim"] for row in plan["rows"]} == {0.01, 0.001, 0.0001}
    text = report.describe()
    assert "can be audited" in text and "--claim" in text and "fitted the filter or set its threshold" in text
    assert not (world.root / "audits").exists()


def test_an_audit_is_drawn_labelled_and_states_what_the_labels_show(world: World) -> None:
    report = audit(world, claim=0.05)
    (found,) = report.audits
    assert found["status"] == "open" and found["num_more"] > 0
    assert {path.name for path in report.written} >= {"sample.csv"}
    after = audit(world, fill_in(world))
    (found,) = after.audits
    assert (found["status"], found["num_positive"], found["may_stop"]) == ("met", 0, True)
    assert found["rate_upper_bound"] <= 0.05
    assert "the claim is shown" in after.describe()
    assert {label.how for label in read_audit_labels(world.root / "labels")} == {"audit:red_001"}
    record = read_record(only(world).directory)
    assert record.stage == "audits/red/red_001" and record.summary["status"] == "met"
    assert {entry.path for entry in record.outputs.files} == {"commitment.json", "sample.json", "audit.json"}
    assert audit(world).audits == after.audits, "asking again says the same"


def test_a_third_party_redraws_the_sample_from_the_ledger_and_the_seed(world: World) -> None:
    audit(world, claim=0.1)
    one = only(world)
    commitment, sample = one.commitment, one.sample
    assert sample["seed"] == hashlib.sha256(SEED.encode()).hexdigest() and sample["seed_text"] == SEED
    assert commitment["seed_sha256"] == digest_seed(sample["seed"])
    ledger = [row for table in read_tables(world.root / "curated/ledger") for row in table.to_pylist()]
    from_ledger = [row for row in ledger if row["decision"] == "keep" and row["key"] not in sample["excluded"]]
    assert commitment["population"]["num_images"] == len(from_ledger)
    draw_key = hashlib.sha256(bytes.fromhex(sample["seed"]) + bytes.fromhex(commitment["population"]["sha256"])).digest()
    by_hand = sorted(from_ledger, key=lambda row: hashlib.sha256(draw_key + bytes.fromhex(row["sha256"]) + row["key"].encode()).digest())
    assert [row["key"] for row in by_hand[:len(one.keys)]] == one.keys
    kept = open_kept(CATEGORY, world.layout)
    assert digest_population(kept.candidates()) == commitment["population"]["sha256"]
    assert [image.key for image in redraw(kept.candidates(), one.plan, one.draw_key, len(one.keys))] == one.keys


def test_the_same_seed_draws_the_same_and_the_systems_seed_another(world: World, finished: Path, tmp_path: Path) -> None:
    other = copy_run(finished, tmp_path / "other")
    audit(world, seed="x", num=20)
    audit(other, seed="x", num=20)
    assert only(world).keys == only(other).keys
    audit(world, draw=True, again=True, num=20)
    first, second = list_audits(world.layout, "red")
    assert first.keys != second.keys and len(second.sample["seed"]) == 64


def test_labels_that_are_known_from_before_are_used_when_they_are_drawn(world: World) -> None:
    audit(world, num=120)
    one = only(world)
    known = [n for n, key in enumerate(one.keys, start=1) if int(key[:3]) < 60]
    assert known and all(role_of(one.keys[n - 1], LabelsConfig()) == "test" for n in known)
    listed = [int(row["number"]) for row in csv.DictReader(review(world).open())]
    assert listed == [n for n in range(1, 121) if n not in known], "nobody labels what is labelled"
    fill_in(world)
    (found,) = audit(world, review(world)).audits
    assert found["num_labelled"] == 120


def test_part_of_the_labels_in_drawn_order_says_what_is_shown_so_far(world: World) -> None:
    (start,) = audit(world, claim=0.05).audits
    (part,) = audit(world, fill_in(world, num=20)).audits
    assert part["status"] == "open" and part["num_labelled"] >= 20
    assert part["rate_upper_bound"] < 1 and part["num_more"] < start["num_more"]
    (rest,) = audit(world, fill_in(world)).audits
    assert rest["status"] == "met"


def test_a_gap_in_the_labels_is_named(world: World) -> None:
    audit(world, num=30)
    keys = only(world).keys
    gap = next(n for n, key in enumerate(keys, start=1) if int(key[:3]) >= 60)
    fill(review(world), {n: "0" for n in range(1, 31) if n != gap})
    report = audit(world, review(world))
    assert report.audits[0]["num_labelled"] == gap - 1
    assert f"Number {gap} has no label" in report.describe()


def test_positives_are_counted_and_the_way_on_is_named(world: World) -> None:
    audit(world, claim=0.05)
    labelled = [n for n, key in enumerate(only(world).keys, start=1) if int(key[:3]) >= 60]
    report = audit(world, fill_in(world, positive=(labelled[0],)))
    (found,) = report.audits
    assert (found["status"], found["num_positive"]) == ("not shown", 1)
    number = found["num_drawn"] + found["num_more"]
    assert f"extend the sample with --num-images {number}" in report.describe()
    before = only(world).keys
    longer = audit(world, num=number)
    assert only(world).keys[:len(before)] == before
    assert longer.audits[0]["status"] == "open" and longer.audits[0]["num_drawn"] == number
    (table,) = [path for path in longer.written if path.suffix == ".csv"]
    assert table.name == f"sample-from-{found['num_drawn'] + 1}.csv"
    fill(table, {n: "0" for n in range(1, number + 1)})
    assert audit(world, table).audits[0]["status"] == "met"


def test_two_people_who_disagree_make_an_image_count_as_positive(world: World) -> None:
    audit(world, num=40, claim=0.1)
    audit(world, fill_in(world), who="ann")
    number = next(n for n, key in enumerate(only(world).keys, start=1) if int(key[:3]) >= 60)
    for row in (keys := {number: "1", number + 1: "0"}):
        assert row in keys
    report = audit(world, fill(review(world), {n: keys.get(n, "0") for n in range(1, 41)}, who="bob"))
    (found,) = report.audits
    assert (found["num_positive"], found["num_ambiguous"], found["double_labels"]["num_split"]) == (1, 1, 1)
    assert found["double_labels"]["num_images"] > 20
    assert "because people disagree" in report.describe() and "Two people judged" in report.describe()


def test_a_filled_in_file_is_never_overwritten(world: World) -> None:
    audit(world, num=20)
    before = fill_in(world).read_bytes()
    audit(world, num=20)
    audit(world, num=25)
    assert review(world).read_bytes() == before


def test_sheets_show_the_drawn_pictures_and_may_be_blurred(world: World) -> None:
    sheet = next(path for path in audit(world, num=70, blur=True).written if path.suffix == ".png")
    assert sheet.name.startswith("sheet-0000")
    with Image.open(sheet) as picture:
        assert picture.width > 800
        assert len(picture.convert("RGB").getcolors(10**6) or ()) > 20


def test_a_changed_picture_is_not_shown_in_place_of_the_drawn_one(world: World) -> None:
    pictures = (world.root / "images").resolve()
    (world.root / "images").unlink()
    shutil.copytree(pictures, world.root / "images")
    for path in sorted((world.root / "images").glob("*.png")):
        Image.new("RGB", (16, 16), (1, 2, 3)).save(path)
    sheet = next(path for path in audit(world, num=30).written if path.suffix == ".png")
    with Image.open(sheet) as picture:
        assert (1, 2, 3) not in {colour for _, colour in picture.convert("RGB").getcolors(10**6) or ()}  # type: ignore[misc]


def test_captions_are_no_formulas_for_a_spreadsheet(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from glideslope.data_filter.audits.review import disarm

    assert disarm("=HYPERLINK(1)\n x") == "' =HYPERLINK(1) x"
    assert disarm("a\u202eb\x00c " + "d" * 500)[:7] == "a b c d" and len(disarm("d" * 500)) == 300


def test_an_audit_goes_on_with_the_same_images_and_is_never_silently_redrawn(world: World) -> None:
    audit(world, claim=0.05, num=20)
    first = only(world)
    audit(world, claim=0.05)
    assert only(world).keys == first.keys, "asking again draws nothing new"
    with pytest.raises(FilterError, match=r"red_001 was drawn from the same images with another claim; go on with it, or draw a second one"):
        audit(world, claim=0.1)
    with pytest.raises(FilterError, match="with another seed"):
        audit(world, seed="luck")
    with pytest.raises(FilterError, match="with another stopping"):
        audit(world, fixed=True, draw=True)
    audit(world, again=True, seed="6 6 1", claim=0.1, num=20)
    report = audit(world)
    assert [one["id"] for one in report.audits] == ["red_001", "red_002"], "the earlier one stays listed"
    second = list_audits(world.layout, "red")[1]
    assert second.commitment["earlier"] == [{
        "id": "red_001", "commitment_sha256": sha256_json(first.commitment), "ledger_sha256": first.commitment["ledger_sha256"]}]


def test_a_fixed_sample_needs_fewer_labels_but_all_of_them(world: World) -> None:
    (found,) = audit(world, claim=0.05, fixed=True).audits
    assert found["num_drawn"] < audit(world, claim=0.05, again=True, seed="6 6 1").audits[1]["num_drawn"]
    fill(list_audits(world.layout, "red")[0].directory / "review" / "sample.csv", {1: "0", 2: "0"})
    report = audit(world, list_audits(world.layout, "red")[0].directory / "review" / "sample.csv")
    assert report.audits[0]["rate_upper_bound"] is None
    assert "says nothing before all of it is labelled" in report.describe()


def test_a_fixed_sample_cannot_be_extended(world: World) -> None:
    audit(world, claim=0.05, fixed=True, num=20)
    with pytest.raises(FilterError, match="has a fixed sample of 20 images, which can't be extended"):
        audit(world, num=30)


def test_a_stratified_audit_is_drawn_and_stated(world: World) -> None:
    (found,) = audit(world, claim=0.1, num=60, design="stratified").audits
    assert found["plan"]["design"] == "stratified"
    (found,) = audit(world, fill_in(world)).audits
    assert found["num_labelled"] == 60 and found["estimate"] == 0


def test_importing_an_audit_makes_nothing_else_run_again(world: World) -> None:
    audit(world, claim=0.05)
    labels = read_record(world.root / "labels").digest
    audit(world, fill_in(world))
    assert read_record(world.root / "labels").digest == labels
    assert len(read_labels(world.root / "labels")) == 60


def test_curating_again_after_a_clean_audit_does_nothing_and_after_a_finding_drops_it(world: World) -> None:
    before = world.curate(CATEGORY)
    audit(world, num=25)
    audit(world, fill_in(world, num=20))
    assert world.curate(CATEGORY) == before
    number = next(int(row["number"]) for row in csv.DictReader(review(world).open()) if not row["label"])
    report = audit(world, fill(review(world), {number: "1"}))
    assert "`glideslope curate` drops it" in report.describe()
    after = world.curate(CATEGORY)
    dropped = {row["key"]: row["reason"] for table in read_tables(world.root / "curated/ledger") for row in table.to_pylist() if row["reason"]}
    assert dropped[only(world).keys[number - 1]] == "label:red"
    assert after.summary["kept"] == before.summary["kept"] - 1
    assert audit(world).audits[0]["status"] == "stale"


def test_an_audit_of_data_that_was_curated_again_is_stale_but_its_labels_are_kept(world: World) -> None:
    audit(world, claim=0.05)
    fill_in(world)
    world.fit(stricter := category(target_recall=0.99, caption_words=("green thing 100",)))
    world.curate(stricter)
    report = audit(world, review(world))
    assert report.audits[0]["status"] == "stale"
    assert "stale: the data was curated again" in report.describe()
    assert read_audit_labels(world.root / "labels")
    (old, new) = audit(world, claim=0.05, seed="dice thrown anew: 1 6").audits
    assert (old["status"], new["id"]) == ("stale", "red_002")
    assert new["num_labelled"] > 0 or new["num_drawn"] > 0
    drawn = set(list_audits(world.layout, "red")[1].keys)
    assert drawn & set(list_audits(world.layout, "red")[0].keys), "some images are drawn by both, and need no second look"


def find_and_drop(world: World, *, seed: str | None = None, num: int = 30) -> None:
    """An audit that finds a positive, and what comes of it."""
    audit(world, claim=0.2, num=num, draw=True, seed=seed)
    one = list_audits(world.layout, "red")[-1]
    table = one.directory / "review" / "sample.csv"
    numbers = [int(row["number"]) for row in csv.DictReader(table.open())]
    audit(world, fill(table, {n: str(int(n == numbers[0])) for n in numbers}))
    world.curate(CATEGORY)


def test_a_seed_is_good_for_one_audit_of_one_kept_set(world: World) -> None:
    find_and_drop(world, seed=SEED)
    first = only(world)
    for again in (SEED, "3-5-2-6-1", " 3, 5 2 6  1."):
        with pytest.raises(FilterError, match=r"seed: audit red_001 of this run was drawn with it .* choose a new one that nobody could"):
            audit(world, claim=0.2, seed=again)
    with pytest.raises(FilterError, match="drawn with it"):
        audit(world, again=True, seed=SEED)
    assert only(world).id == "red_001", "nothing was drawn"
    kept = open_kept(CATEGORY, world.layout)
    survivors = [key for key in first.keys if key in {candidate.key for candidate in kept.candidates()}]
    plan, population = plan_audit(kept, AuditRequest(claim=0.2))
    unbound = [image.key for image in redraw(kept.candidates(), plan, first.draw_key, len(survivors))]
    bound = [image.key for image in redraw(kept.candidates(), plan, bind_seed(first.sample["seed"], population["sha256"]), len(survivors))]
    assert unbound == survivors, "what the old draw key would draw: the negatives, with their labels"
    assert len(set(bound) & set(survivors)) < 0.6 * len(survivors)


def test_a_seed_that_the_system_gave_is_not_taken_again_as_digits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    audit(world, draw=True, num=20)
    seed = only(world).sample["seed"]
    monkeypatch.setattr("secrets.token_hex", lambda size: seed)
    with pytest.raises(FilterError, match="drawn with it"):
        audit(world, draw=True, again=True, num=20)


def test_another_category_of_the_run_takes_no_used_seed(world: World) -> None:
    audit(world, num=20)
    with pytest.raises(FilterError, match="audit red_001 of this run was drawn with it"):
        check_seed(world.layout, "0" * 64, SEED)
    check_seed(world.layout, "0" * 64, None)


def test_audits_until_one_passes_leave_a_trace_and_are_held_to_more(world: World) -> None:
    find_and_drop(world, num=20)
    find_and_drop(world, num=20)
    report = audit(world, claim=0.2, draw=True)
    third = list_audits(world.layout, "red")[2]
    assert [one.plan.confidence for one in list_audits(world.layout, "red")] == pytest.approx([0.95, 0.9875, 1 - 0.05 / 9])
    others = read_json(third.directory / "audit.json")["others"]
    assert [other["commitment"]["id"] for other in others] == ["red_001", "red_002"]
    assert [sum(other["judged"]) for other in others] == [1, 1]
    found = report.audits[2]
    assert found["number"] == 3 and [other["status"] for other in found["others"]] == ["not shown", "not shown"]
    assert "audit no. 3 of red in this run; 2 looked at other kept sets, 2 of which did not show the claim" in report.describe()
    assert [record.stage for record in list_fresh(world.layout, "red")] == ["audits/red/red_003"]
    refreshed = audit(world)
    assert refreshed.audits[2]["others"] == found["others"]


def test_an_audit_that_was_taken_away_is_missed(world: World) -> None:
    find_and_drop(world)
    find_and_drop(world)
    directories = [one.directory for one in list_audits(world.layout, "red")]
    shutil.copytree(directories[1], world.root / "second")
    shutil.rmtree(directories[1])
    for ask in (lambda: audit(world, claim=0.2, draw=True), lambda: list_fresh(world.layout, "red")):
        with pytest.raises(StageError, match=r"audit red_002: has labels in the store, but is missing; restore the folder"):
            ask()
    shutil.copytree(world.root / "second", directories[1])
    shutil.rmtree(directories[0])
    with pytest.raises(StageError, match=r"audit 'red_002': names the earlier audit 'red_001', which is missing or was changed"):
        audit(world, claim=0.2, draw=True)


def test_an_account_of_other_audits_that_is_out_of_date_is_not_packed(world: World) -> None:
    find_and_drop(world)
    audit(world, claim=0.2, draw=True)
    directory = list_audits(world.layout, "red")[0].directory
    told = read_json(directory / "audit.json")
    write_json(directory / "audit.json", {**told, "labels": told["labels"][:-1]})
    record = read_record(directory)
    files = tuple(replace(entry, size_bytes=path.stat().st_size, sha256=sha256_file(path))
                  for entry in record.outputs.files if (path := directory / entry.path))
    write_json(directory / "record.json", replace(record, outputs=Manifest(files)).to_json())
    with pytest.raises(StageError, match="does not tell of the audits of other kept sets as they are now"):
        list_fresh(world.layout, "red")


def test_an_audit_of_another_format_is_refused(world: World) -> None:
    audit(world, num=20)
    commitment = only(world).commitment
    write_json(only(world).directory / "commitment.json", {**commitment, "format": "glideslope.audit/1"})
    with pytest.raises(StageError, match=r"format is 'glideslope\.audit/1', expected 'glideslope\.audit/2': other versions draw otherwise"):
        audit(world)


def test_labels_added_since_curating_must_be_fitted_first(world: World) -> None:
    import_labels([Verdict("100.png", "red", 0, "me", "", "test")], world.root / "labels", world.root / "index", LabelsConfig())
    with pytest.raises(LabelError, match="labels were added since the data was curated; run `glideslope fit` and `glideslope curate`"):
        audit(world, claim=0.05)


def test_a_drawn_image_that_gets_a_train_label_is_refused(world: World) -> None:
    audit(world, claim=0.05)
    key = next(key for key in only(world).keys if role_of(key, LabelsConfig()) == "train")
    import_labels([Verdict(key, "red", 0, "me", "", "test")], world.root / "labels", world.root / "index", LabelsConfig())
    with pytest.raises(LabelError, match=rf"audit red_001: labels that fit .*: {key}, which has the role train"):
        audit(world, fill_in(world))


@pytest.mark.parametrize(("old", "new", "message"), [
    (",{key},", ",none.png,", r"line 2: key is 'none\.png', number {number} of audit red_001 is '{key}'"),
    ("red_001,{number},", "red_001,7777,", r"line 2: number is '7777', audit red_001 has the numbers 1 to 25"),
    ("red_001,{number},", "red_001,-1,", r"line 2: number is '-1'"),
    ("red_001,{number},", "red_009,{number},", r"column `audit` names 'red_001', 'red_009', expected one audit of this run \(red_001\)"),
    ("audit,number", "audit,nr", r"column number is missing"),
    (",0,", ",perhaps,", r"line 2: label is 'perhaps', expected 1"),
])
def test_an_edited_file_is_refused_by_line(world: World, old: str, new: str, message: str) -> None:
    audit(world, num=25)
    path = fill(review(world), {n: "0" for n in range(1, 26)})
    row = next(csv.DictReader(path.open()))
    named = {"key": row["key"], "number": row["number"]}
    text = path.read_text()
    assert old.format(**named) in text
    path.write_text(text.replace(old.format(**named), new.format(**named), 1))
    with pytest.raises(LabelError, match=message.format(**named)):
        audit(world, path)
    assert read_audit_labels(world.root / "labels") == []


def test_duplicate_rows_contradictions_and_empty_files_are_refused(world: World) -> None:
    audit(world, num=25)
    path = review(world)
    with pytest.raises(LabelError, match="no row has a label"):
        audit(world, path)
    fill(path, {n: "0" for n in range(1, 26)})
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[1]]) + "\n")
    with pytest.raises(LabelError, match=rf"line {len(lines) + 1}: .* stands twice for ann, first in .*line 2"):
        audit(world, path)
    path.write_text("\n".join(lines) + "\n")
    audit(world, path)
    number = int(lines[1].split(",")[1])
    with pytest.raises(LabelError, match="an earlier label of ann says 0"):
        audit(world, fill(path, {number: "1"}))


@pytest.mark.parametrize(("wishes", "message"), [
    ({"claim": 0.0}, "claim is 0.0, expected a share"), ({"claim": 2.0}, "claim is 2.0"), 
    ({"claim": 0.05, "confidence": 95}, "confidence is 95"),
    ({"num": 0}, "0 images are asked for, expected 1 to"), ({"num": 10**6}, "1000000 images are asked for"),
    ({"seed": " "}, "seed: expected a text"), ({"seed": "x" * 2000}, "seed: expected a text"),
    ({"draw": True, "category": "blue"}, "unknown category 'blue'; the recipe has red"),
])
def test_impossible_wishes_are_refused_and_nothing_is_drawn(world: World, wishes: dict[str, Any], message: str) -> None:
    with pytest.raises(FilterError, match=message):
        audit(world, **wishes)
    assert list_audits(world.layout, "red") == []


def test_impossible_designs_and_mixed_requests_are_refused(world: World) -> None:
    with pytest.raises(FilterError, match="design is 'odd', expected simple or stratified"):
        AuditRequest(design="odd")
    with pytest.raises(FilterError, match="a stratified sample has no fixed size"):
        AuditRequest(design="stratified", fixed=True)
    with pytest.raises(FilterError, match="takes labels back and draws nothing"):
        audit(world, Path("x.csv"), claim=0.1)
    with pytest.raises(FilterError, match="name the category to audit with --category; the recipe has red, blue"):
        run_audit([category(), category("blue")], world.layout, world.source, AuditRequest(claim=0.1))


def test_where_everything_kept_was_fitted_nothing_is_left_to_audit(world: World) -> None:
    kept = open_kept(CATEGORY, world.layout)
    fitted = replace(kept, fitted=frozenset(path.name for path in (world.root / "images").glob("*.png")))
    with pytest.raises(FilterError, match=r"there is nothing to draw from: all \d+ kept images show concepts whose labels fitted the filter"):
        plan_audit(fitted, AuditRequest())


@pytest.mark.parametrize(("request_of", "claim"), [
    ({}, 0.001), ({"demanded": {"red": 0.05}}, 0.05), ({"demanded": {"blue": 0.05}}, 0.001), ({"demanded": {"red": 0.05}, "claim": 0.2}, 0.2),
    ({"demanded": {"red": 1.0}}, 0.001)])
def test_an_audit_is_to_show_what_is_asked_for_or_else_what_is_demanded(request_of: dict[str, Any], claim: float) -> None:
    assert AuditRequest(**request_of).claim_of("red") == claim


def test_kept_images_without_a_label_of_their_own_that_cannot_be_drawn_count_as_positive(world: World) -> None:
    kept = open_kept(CATEGORY, world.layout)
    some = [candidate.key for candidate in kept.candidates()][:5]
    plan, population = plan_audit(replace(kept, fitted=kept.fitted | set(some)), AuditRequest(claim=0.1))
    assert plan.num_unknown == 5 and set(some) <= set(population["excluded"])
    with pytest.raises(FilterError, match=r"claim of at most 1\.0000% can't be shown: 5 of \d+ kept images can't be audited"):
        choose_number(replace(plan, claim=0.01), None)


def test_an_audit_before_curating_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError):
        run_audit([category()], World(tmp_path).layout, World(finished).source, AuditRequest())


def test_edited_evidence_is_refused(world: World) -> None:
    audit(world, claim=0.05, num=20)
    directory = only(world).directory
    commitment = read_json(directory / "commitment.json")
    write_json(directory / "commitment.json", commitment | {"seed_sha256": "0" * 64})
    with pytest.raises(StageError, match=r"commitment\.json: changed since the audit was drawn"):
        audit(world)
    write_json(directory / "commitment.json", commitment)
    sample = read_json(directory / "sample.json")
    sample["images"][0] = sample["images"][1]
    write_json(directory / "sample.json", sample)
    with pytest.raises(StageError, match=r"sample\.json: is not the sample that was drawn"):
        audit(world)


def test_a_kill_between_sample_and_record_of_an_extension_loses_nothing(world: World) -> None:
    audit(world, claim=0.05, num=20)
    directory = only(world).directory
    record, result = (directory / "record.json").read_bytes(), (directory / "audit.json").read_bytes()
    longer = audit(world, num=30).audits
    (directory / "record.json").write_bytes(record)
    (directory / "audit.json").write_bytes(result)
    assert audit(world).audits == longer


def test_a_kill_while_drawing_leaves_nothing_that_counts(world: World) -> None:
    partial = world.root / "audits" / "red" / "red_001.partial"
    partial.mkdir(parents=True)
    (partial / "commitment.json").write_text("{")
    (found,) = audit(world, claim=0.05).audits
    assert found["id"] == "red_001" and not partial.exists()


def test_the_report_is_plain_data(world: World) -> None:
    report = audit(world, claim=0.05)
    assert json.loads(json.dumps(report.to_json()))["audits"][0]["id"] == "red_001"

"""Audits in a release: packed, drawn again, measured again, and refused when anything does not fit."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from glideslope.data_filter.audits import plan as audit_plan
from glideslope.data_filter.audits.plan import (
    Candidate,
    Plan,
    bind_seed,
    digest_population,
    digest_seed,
    hash_text,
    measure_audit,
    plan_simple,
    plan_strata,
    redraw,
    required_labels,
)
from glideslope.data_filter.audits.population import digest_ledger
from glideslope.data_filter.audits.series import OtherAudit, spend_confidence
from glideslope.errors import ReleaseError, StageError, VerificationError
from glideslope.recipe.load import dump_recipe
from glideslope.recipe.policy import LeakDemand, load_policy
from glideslope.recipe.recipe import Recipe
from glideslope.release import pack, verify
from glideslope.release.claims.audit_checks import check_audits
from glideslope.release.evidence.contents import open_evidence
from glideslope.release.vetting.check import run_gates
from glideslope.release.vetting.gates.audits import AUDITS, find_weak_audits
from glideslope.release.vetting.gates.gate import Asked
from glideslope.store.digests import sha256_file, sha256_json
from glideslope.store.file_lists import FileEntry
from glideslope.store.records import Record, read_record
from glideslope.store.stage_manifest import Manifest
from glideslope.store.whole_files import write_json

GUIDE = Path(__file__).parents[3] / "docs" / "audit.md"
FITTED = ("train", "calibrate")


def write_audit(run_dir: Path, *, number: int = 1, claim: float = 0.05, confidence: float = 0.95, positives: tuple[int, ...] = (),
                num_labelled: int = 10**6, earlier: tuple[Path, ...] = (), elsewhere: tuple[OtherAudit, ...] = (),
                stratified: bool = False, seed_text: str | None = None) -> Path:
    """An audit of the category person, as the command would write it; its seed is its number or that of the text."""
    seed = f"{number:064x}" if seed_text is None else hash_text(seed_text)
    ledger = [row for path in sorted((run_dir / "curated/ledger").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    roles = {row["key"]: (row["role"], row["label"]) for row in pq.read_table(run_dir / "filters/person/scores.parquet").to_pylist()}
    kept = [Candidate(row["key"], row["sha256"], row["score_person"]) for row in ledger if row["decision"] == "keep"]
    excluded = [one.key for one in kept if roles[one.key][0] in FITTED]
    free = [one for one in kept if one.key not in excluded]
    num_unknown = sum(roles[key] not in [(role, 0) for role in FITTED] for key in excluded)
    plan = Plan(claim, confidence, "simple", "anytime", len(kept), num_unknown, plan_simple(claim, len(free)))
    if stratified:
        scores = np.array([one.score for one in free], dtype=np.float32)
        plan = Plan(claim, confidence, "stratified", "anytime", len(kept), num_unknown, plan_strata(claim, scores, [(float(scores.max()), 1)]))
    num = required_labels(plan) or len(free)
    root = digest_ledger(read_record(run_dir / "curated"))
    name = f"person_{number:03d}"
    commitment = {"format": "glideslope.audit/2", "id": name, "category": "person", "plan": plan.to_json(), "ledger_sha256": root,
                  "population": {"sha256": digest_population(free), "num_images": len(free)}, "seed_sha256": digest_seed(seed),
                  "earlier": [{"id": one["id"], "commitment_sha256": sha256_json(one), "ledger_sha256": one["ledger_sha256"]} for one in (
                      *(other.commitment for other in elsewhere),
                      *(json.loads((path / "commitment.json").read_text()) for path in earlier))]}
    draw_key = bind_seed(seed, commitment["population"]["sha256"])
    images = [{"key": image.key, "sha256": image.sha256} for image in redraw(free, plan, draw_key, num)]
    labels = [[int(place in positives)] if place < num_labelled else [] for place in range(num)]
    result = measure_audit(plan, labels)
    directory = run_dir / "audits/person" / name
    write_json(directory / "commitment.json", commitment)
    sample = {"format": "glideslope.audit/2", "seed": seed, "seed_text": seed_text, "excluded": excluded, "images": images}
    write_json(directory / "sample.json", sample)
    write_json(directory / "audit.json", {"format": "glideslope.audit/2", "labels": labels, "result": result,
                                          "others": [other.to_json() for other in elsewhere]})
    (directory / "review").mkdir()
    (directory / "review/sample.csv").write_text("audit,number,key,caption,label,who\n")
    files = tuple(FileEntry(path.name, path.stat().st_size, sha256_file(path)) for path in sorted(directory.glob("*.json")))
    summary = {name: result[name] for name in ("status", "num_labelled", "num_positive", "rate_upper_bound")}
    record = Record(f"audits/person/{name}", plan.to_json(), {"ledger": root}, Manifest(files),
                    summary | {"commitment_sha256": sha256_json(commitment)}, {"seconds": 0.1})
    write_json(directory / "record.json", record.to_json())
    return directory


def with_limit(recipe: Recipe, folder: Path, limit: float) -> Recipe:
    """The recipe with a policy that asks for an audit of person."""
    policy = load_policy(recipe.policy)
    person = policy.categories["person"].model_copy(update={"leak": LeakDemand(at_most=limit)})
    path = folder / "leak-policy.yaml"
    path.write_text(policy.model_copy(update={"categories": policy.categories | {"person": person}}).text)
    return recipe.model_copy(update={"policy": str(path)})


def check_gate(directory: Path) -> None:
    """Run the gate on audits as the release's own policy asks."""
    release = open_evidence(directory)
    run_gates(release, [AUDITS], Asked(release.policy), shown=directory)


def pack_again(run_dir: Path, recipe: Recipe) -> Path:
    (run_dir / "recipe.yaml").write_text(dump_recipe(recipe))
    pack(run_dir, recipe, run_dir / "release")
    return run_dir / "release"


@pytest.fixture(scope="module")
def audited(packed_run: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an audit and its release, in which the policy asks for one; tests must not change it."""
    run_dir = Path(shutil.copytree(packed_run, tmp_path_factory.mktemp("audited") / "run", ignore=shutil.ignore_patterns("release*")))
    write_audit(run_dir)
    pack_again(run_dir, with_limit(recipe, run_dir.parent, 0.05))
    return run_dir


@pytest.fixture
def damaged(audited: Path, tmp_path: Path, tamperer: Any) -> Any:
    return tamperer(Path(shutil.copytree(audited / "release", tmp_path / "release")))


def test_an_audit_is_packed_verified_and_told_on_the_card(audited: Path) -> None:
    report = verify(audited / "release")
    assert report.checked["stage records"] > 10
    assert (audited / "release/evidence/audits/person/person_001/sample.json").is_file()
    assert not list((audited / "release").rglob("*.csv")), "what the reviewer worked with stays at home"
    check_gate(audited / "release")
    claims = json.loads((audited / "release/evidence/claims.json").read_text())
    assert claims["audits.person.rate_upper_bound"] <= 0.05 and claims["audits.violence.list"] == []
    assert "What was kept was audited." in (audited / "release/README.md").read_text()


def test_a_stratified_audit_is_drawn_and_measured_again_too(run_dir: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_plan, "MIN_STRATUM", 5)  # the test release keeps few images
    directory = write_audit(run_dir, stratified=True)
    assert len(json.loads((directory / "commitment.json").read_text())["plan"]["strata"]) > 1
    release = pack_again(run_dir, with_limit(recipe, run_dir.parent, 0.05))
    verify(release)
    check_gate(release)


def test_a_release_without_an_audit_passes_where_the_policy_asks_for_none(packed_run: Path) -> None:
    release = open_evidence(packed_run / "release")
    assert check_audits(release) == find_weak_audits(release, Asked(release.policy)) == []
    assert "What was kept was audited" not in (packed_run / "release/README.md").read_text()


def test_a_missing_audit_is_refused_where_the_policy_limits_the_leak(run_dir: Path, recipe: Recipe) -> None:
    release = pack_again(run_dir, with_limit(recipe, run_dir.parent, 0.05))
    with pytest.raises(ReleaseError, match=r"gate audits: audit of person: the policy asks for a leak of at most 5\.0000%, but no audit"):
        check_gate(release)


@pytest.mark.parametrize(("wishes", "limit", "message"), [
    ({"positives": (3, 9, 20)}, 0.05, r"audit person_001: shows a leak of at most \d+\.\d+%; the policy asks for at most 5\.0000%"),
    ({}, 0.01, "shows a leak of at most"), ({"num_labelled": 5}, 0.05, "shows a leak of at most"),
    ({"confidence": 0.6}, 0.05, r"its confidence is 0\.6, a release asks for at least 0\.95")])
def test_an_audit_that_shows_too_little_is_refused(run_dir: Path, recipe: Recipe, wishes: dict[str, Any], limit: float, message: str) -> None:
    write_audit(run_dir, **wishes)
    release = pack_again(run_dir, with_limit(recipe, run_dir.parent, limit))
    verify(release)  # what it says is true, and not enough
    with pytest.raises(ReleaseError, match=message):
        check_gate(release)


def test_each_audit_of_the_same_images_has_to_show_the_limit(run_dir: Path, recipe: Recipe) -> None:
    first = write_audit(run_dir, positives=(0, 1, 2, 3))
    write_audit(run_dir, number=2, earlier=(first,))
    release = pack_again(run_dir, with_limit(recipe, run_dir.parent, 0.05))
    verify(release)
    with pytest.raises(ReleaseError, match="audit person_001: shows a leak"):
        check_gate(release)
    claims = json.loads((release / "evidence/claims.json").read_text())
    assert claims["audits.person.rate_upper_bound"] == max(row["rate_upper_bound"] for row in claims["audits.person.list"])
    shutil.rmtree(first)
    with pytest.raises(StageError, match=r"audit 'person_002': names the earlier audit 'person_001', which is missing or was changed"):
        pack_again(run_dir, with_limit(recipe, run_dir.parent, 0.05))
    shutil.rmtree(release / "evidence/audits/person/person_001")
    (release / "evidence/records/audits__person__person_001.json").unlink()
    with pytest.raises(ReleaseError, match=r"audit 'person_002': names the earlier audit 'person_001', which is missing or was changed"):
        check_gate(release)


def make_stale(directory: Path) -> OtherAudit:
    """Let an audit be one of another kept set."""
    commitment = json.loads((directory / "commitment.json").read_text()) | {"ledger_sha256": "0" * 64}
    write_json(directory / "commitment.json", commitment)
    record = json.loads((directory / "record.json").read_text())
    files = [FileEntry(path.name, path.stat().st_size, sha256_file(path))
             for path in sorted(directory.glob("*.json")) if path.name != "record.json"]
    stale = Record(record["stage"], record["config"], {"ledger": "0" * 64}, Manifest(tuple(files)),
                   record["summary"] | {"commitment_sha256": sha256_json(commitment)}, {})
    write_json(directory / "record.json", stale.to_json())
    return OtherAudit.of_labels(commitment, json.loads((directory / "audit.json").read_text())["labels"])


def test_an_audit_of_another_ledger_is_not_packed(run_dir: Path, recipe: Recipe) -> None:
    make_stale(write_audit(run_dir))
    release = pack_again(run_dir, with_limit(recipe, run_dir.parent, 0.05))
    assert not (release / "evidence/audits").exists()
    with pytest.raises(ReleaseError, match="no audit of what was kept is here"):
        check_gate(release)


@pytest.fixture(scope="module")
def audited_again(packed_run: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose second audit shows the claim after one of another kept set did not, and its release; tests must not change it."""
    run_dir = Path(shutil.copytree(packed_run, tmp_path_factory.mktemp("again") / "run", ignore=shutil.ignore_patterns("release*")))
    other = make_stale(write_audit(run_dir, positives=(0, 1, 2)))
    write_audit(run_dir, number=2, elsewhere=(other,), confidence=spend_confidence(0.95, 1))
    pack_again(run_dir, with_limit(recipe, run_dir.parent, 0.05))
    return run_dir


def test_an_audit_after_one_of_another_kept_set_tells_of_it_on_the_card(audited_again: Path) -> None:
    release = audited_again / "release"
    verify(release)
    check_gate(release)
    claims = json.loads((release / "evidence/claims.json").read_text())
    (row,), (other,) = claims["audits.person.list"], claims["audits.person.others"]
    assert (row["number"], row["num_elsewhere"], row["confidence"]) == (2, 1, 0.9875)
    assert (other["id"], other["status"], other["num_positive"]) == ("person_001", "not shown", 3)
    card = (release / "README.md").read_text()
    assert "**Audit no. 2; 1 other looked at other kept sets, 1 of which did not show the claim.**" in card
    assert "| person 001 | at most 5 % |" in card and "holds for its one audit, not for the best of several" in card


def test_an_audit_after_others_is_held_to_a_higher_confidence(run_dir: Path, recipe: Recipe) -> None:
    other = make_stale(write_audit(run_dir, positives=(0, 1, 2)))
    write_audit(run_dir, number=2, elsewhere=(other,), confidence=0.95)
    release = pack_again(run_dir, with_limit(recipe, run_dir.parent, 0.05))
    verify(release)
    with pytest.raises(ReleaseError, match=r"confidence is 0\.95, a release asks for at least 0\.9875 after 1 of other kept sets; audit again"):
        check_gate(release)


def test_one_seed_for_two_audits_is_refused(run_dir: Path, recipe: Recipe) -> None:
    other = make_stale(write_audit(run_dir, positives=(0, 1, 2), seed_text="dice: 4 1"))
    write_audit(run_dir, number=2, elsewhere=(other,), confidence=spend_confidence(0.95, 1), seed_text="dice: 4 1")
    release = pack_again(run_dir, with_limit(recipe, run_dir.parent, 0.05))
    assert check_audits(open_evidence(release)) == [
        "audits person_001, person_002: were drawn with one seed; each audit needs a seed of its own"]
    with pytest.raises(VerificationError, match="were drawn with one seed"):
        verify(release)


SECOND = "evidence/audits/person/person_002/audit.json"


def pretend_clean(value: dict[str, Any]) -> None:
    value["others"][0]["judged"] = [0] * value["others"][0]["num_drawn"]


@pytest.mark.parametrize(("change", "message"), [
    (lambda v: v["others"].clear(), "names the earlier audit 'person_001', which is missing or was changed"),
    (lambda v: v["others"][0]["commitment"]["plan"].update(claim=0.5), "names the earlier audit 'person_001', which is missing or was changed"),
    (lambda v: v["others"].append(v["others"][0]), "two have the same id"),
    (lambda v: v["others"][0].update(judged=[2]), "malformed account of other audits"), (lambda v: v.pop("others"), "malformed account"),
    (lambda v: v.update(format="glideslope.audit/1"), "format is 'glideslope.audit/1', expected 'glideslope.audit/2'")])
def test_an_account_of_other_audits_that_was_touched_is_named(audited_again: Path, tmp_path: Path, tamperer: Any,
                                                              change: Callable[[Any], None], message: str) -> None:
    damaged = tamperer(Path(shutil.copytree(audited_again / "release", tmp_path / "release")))
    damaged.json(SECOND, change)
    damaged.seal()
    assert any(message in problem for problem in check_checked(damaged.directory)), check_checked(damaged.directory)
    with pytest.raises(VerificationError):
        verify(damaged.directory)


def test_another_audit_that_is_made_look_clean_no_longer_fits_its_record_and_the_card(audited_again: Path, tmp_path: Path,
                                                                                      tamperer: Any) -> None:
    damaged = tamperer(Path(shutil.copytree(audited_again / "release", tmp_path / "release")))
    damaged.json(SECOND, pretend_clean)
    damaged.seal()
    with pytest.raises(VerificationError, match=r"audits\.person\.others"):
        verify(damaged.directory)


def test_the_guides_script_draws_the_sample_again(audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    monkeypatch.chdir(audited)
    exec(compile(script, str(GUIDE), "exec"), {})
    shutil.copytree(audited / "release/evidence", tmp_path / "release/evidence")
    path = tmp_path / "release" / SAMPLE
    sample = json.loads(path.read_text())
    swap_images(sample)
    write_json(path, sample)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError):
        exec(compile(script, str(GUIDE), "exec"), {})


def test_an_audit_that_was_edited_in_the_run_is_not_packed(run_dir: Path, recipe: Recipe) -> None:
    directory = write_audit(run_dir)
    (directory / "audit.json").write_text("{}")
    with pytest.raises(StageError, match=r"changed since it was recorded: audit\.json"):
        pack(run_dir, recipe, run_dir / "release")


SAMPLE, COMMITMENT, AUDIT = (f"evidence/audits/person/person_001/{name}.json" for name in ("sample", "commitment", "audit"))


def forget_positive(value: dict[str, Any]) -> None:
    value["labels"][4] = [1]


def swap_images(value: dict[str, Any]) -> None:
    value["images"][0], value["images"][1] = value["images"][1], value["images"][0]


def exclude_one(value: dict[str, Any]) -> None:
    value["excluded"].append(value["images"].pop()["key"])


@pytest.mark.parametrize(("path", "change", "message"), [
    (AUDIT, forget_positive, "num_positive is reported as 0, the labels give 1"),
    (AUDIT, lambda v: v["result"].update(rate_upper_bound=0.0001), "rate_upper_bound is reported as 0.0001"),
    (AUDIT, lambda v: v["labels"].pop(), "holds labels of"),
    (AUDIT, lambda v: v["labels"].__setitem__(0, [True]), "neither 0 nor 1"),
    (SAMPLE, swap_images, "its seed draws other images than the sample holds"),
    (SAMPLE, lambda v: v.update(seed="6" * 64), "digest of the seed: states"),
    (SAMPLE, lambda v: v.update(seed_text="dice that fell otherwise"), "seed: states"),
    (SAMPLE, exclude_one, "images without a label that can't be drawn: states 0, the evidence gives 1"),
    (SAMPLE, lambda v: v["excluded"].append("none"), "images that can't be drawn: states"),
    (COMMITMENT, lambda v: v.update(ledger_sha256="0" * 64), "was drawn from another ledger"),
    (COMMITMENT, lambda v: v.update(category="violence"), "states to be 'violence'"),
    (COMMITMENT, lambda v: v["plan"].update(num_kept=10**6), "kept images: states 1000000"),
    (COMMITMENT, lambda v: v["plan"].update(num_unknown=-5), "states -5"),
    (COMMITMENT, lambda v: v["plan"].update(strata=[]), "malformed plan"),
    (COMMITMENT, lambda v: v["plan"].update(confidence=0.5), "its commitment is not the recorded one"),
    (COMMITMENT, lambda v: v["population"].update(sha256="0" * 64), "digest of the population: states"),
])
def test_whatever_does_not_fit_ledger_seed_or_labels_is_named(damaged: Any, path: str, change: Callable[[Any], None], message: str) -> None:
    damaged.json(path, change)
    damaged.seal()
    assert any(message in problem for problem in check_checked(damaged.directory)), check_checked(damaged.directory)
    with pytest.raises(VerificationError):
        verify(damaged.directory)


def check_checked(directory: Path) -> list[str]:
    try:
        return check_audits(open_evidence(directory))
    except ReleaseError as error:
        return [str(error)]


def test_an_audit_whose_record_was_dropped_with_its_files_is_missed(damaged: Any) -> None:
    shutil.rmtree(damaged.directory / "evidence/audits")
    (damaged.directory / "evidence/records/audits__person__person_001.json").unlink()
    damaged.seal()
    with pytest.raises(ReleaseError, match="no audit of what was kept is here"):
        check_gate(damaged.directory)
    with pytest.raises(VerificationError, match=r"audits\.person"):
        verify(damaged.directory)

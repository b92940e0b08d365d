import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from glideslope.errors import ReleaseError
from glideslope.recipe.policy import Policy, load_policy
from glideslope.release import pack
from glideslope.release.evidence.contents import open_evidence
from glideslope.release.vetting.check import check, effective_policy, run_gates, run_policy
from glideslope.release.vetting.gates.audits import AUDITS
from glideslope.release.vetting.gates.captions import CAPTIONS_COUNT
from glideslope.release.vetting.gates.card import CARD_COMPLETE
from glideslope.release.vetting.gates.files import ALLOWED_FILES, GENERATED_FILES, INTACT, SIZE
from glideslope.release.vetting.gates.filters import FILTER_EVIDENCE
from glideslope.release.vetting.gates.gate import Asked, Gate
from glideslope.release.vetting.gates.golden import GOLDEN_SAMPLES
from glideslope.release.vetting.gates.labels import LABELS_NOT_REUSED
from glideslope.release.vetting.gates.licence import LICENCE
from glideslope.release.vetting.gates.provenance import PROVENANCE
from glideslope.release.vetting.gates.reload import RELOAD
from glideslope.release.vetting.gates.secrets import SECRETS
from glideslope.release.vetting.table import CHECKS, GATES
from glideslope.release.weights.architecture import check_finite

GUIDE = Path(__file__).parents[3] / "docs" / "policy.md"
QUICK = [gate for gate in GATES if gate.name not in ("reload", "golden samples", "signers")]
LENIENT = {"recall": {"at_least": 0.0, "bound": 0.0}, "kept_share": {"at_least": 0.0}}


def asked_of(directory: Path, **changes: Any) -> Asked:
    """What the packed policy asks for, with changes."""
    return Asked(Policy.model_validate(open_evidence(directory).policy.model_dump(mode="json") | changes))


def refusal_of(gate: Gate, directory: Path, asked: Asked | None = None) -> str:
    with pytest.raises(ReleaseError) as caught:
        run_gates(open_evidence(directory), [gate], asked or asked_of(directory), shown=directory)
    start = f"release {directory}: 1 of 1 gates refuse: "
    assert str(caught.value).startswith(f"{start}gate {gate.name}: ")
    return str(caught.value).removeprefix(start)


def passes(gate: Gate, directory: Path, **changes: Any) -> bool:
    return run_gates(open_evidence(directory), [gate], asked_of(directory, **changes), shown=directory) == [gate.name]


def test_a_sound_release_passes_every_gate_and_they_are_named(packed_run: Path) -> None:
    passed = check(packed_run / "release")
    assert passed == [gate.name for gate in GATES if gate.name != "signers"], "nobody is named who must sign"


def test_each_gate_has_a_name_of_its_own_and_its_line_in_the_guide() -> None:
    assert len({gate.name for gate in GATES}) == len(GATES)
    lines = GUIDE.read_text().splitlines()
    for gate in GATES:
        keys = f"`{gate.key}`" if gate.key else ""
        assert f"| `{gate.name}` | {gate.refuses} | {keys} |".replace("|  |", "| |") in lines
    assert set(CHECKS) == {name for gate in GATES for name in gate.checks}
    assert sum(len(gate.checks) for gate in GATES) == len(CHECKS), "no name of a check stands twice"


def test_a_gate_without_checks_makes_a_demand_and_only_a_demand_can_be_left_out() -> None:
    assert all(gate.checks or gate.demand for gate in GATES)
    assert [gate.name for gate in GATES if gate.is_skippable] == [
        "filter evidence", "audits", "labels not reused", "companions", "captions count", "golden samples", "licence", "size",
        "secrets", "reload"]


def test_what_is_left_out_is_the_demand_and_never_the_checks(tamper: Any) -> None:
    reason = "the machine that checks has no labels at hand"
    change = {"unsafe_skip": {"filter evidence": reason, "audits": reason}, "categories": {"gore": LENIENT}}
    asked = asked_of(tamper.directory, **change)
    assert run_gates(open_evidence(tamper.directory), [FILTER_EVIDENCE, INTACT], asked, shown=tamper.directory) == ["intact"]
    tamper.json("evidence/filters/violence/filter.json", lambda report: report["test"].update(recall=1.0, num_caught=6))
    assert "test.recall is reported as 1.0" in refusal_of(FILTER_EVIDENCE, tamper.directory, asked)


def test_no_gates_at_all_is_a_refusal(packed_run: Path) -> None:
    with pytest.raises(ReleaseError, match="no gate to pass"):
        run_gates(open_evidence(packed_run / "release"), [], asked_of(packed_run / "release"), shown=packed_run)


def test_all_failures_are_reported_at_once(tamper: Any) -> None:
    tamper.text("README.md", "21 of 24", "22 of 24")
    (tamper.directory / "figures/ledger.png").unlink()
    with pytest.raises(ReleaseError) as caught:
        run_gates(open_evidence(tamper.directory), QUICK, asked_of(tamper.directory), shown=tamper.directory)
    message = str(caught.value)
    assert all(f"gate {name}: " in message for name in ("intact", "allowed files", "card complete"))
    assert f"3 of {len(QUICK)} gates refuse" in message


def test_a_changed_byte_is_refused(tamper: Any) -> None:
    tamper.text("LICENSE", "Apache", "apache")
    assert "LICENSE" in refusal_of(INTACT, tamper.directory)


@pytest.mark.parametrize(("path", "content"), [
    ("pipeline.py", b"import os\n"), ("base/model.pt", b"\x80\x04."), ("evidence/notes.txt", b"hello"), ("figures/CON.png", b""),
    ("figures/evaluation samples.png", b""), ("figures/Ledger.png", b""), ("evidence/evaluation/evaluation.json", b"\x80\x02}q\x00."),
    ("evidence/evaluation/evaluation.json", b'{"a": 1, "a": 2}'), ("evidence/evaluation/evaluation.json", b'{"a": NaN}'),
    ("evidence/evaluation/pairs.jsonl", b'{"a": 1}\n[1]\n'), ("evidence/curated.json", b"[" * 100_000),
    ("figures/ledger.png", b"\x89PNG\r\n\x1a\n and a tail"), ("figures/ledger.png", b"PK\x03\x04"), ("README.md", b"#!/bin/sh\n"),
    ("README.md", b"\xff\xfe"), ("evidence/filters/person/scores.parquet", b"\x7fELF" + b"\0" * 20)])
def test_files_that_do_not_belong_are_refused(tamper: Any, path: str, content: bytes) -> None:
    (tamper.directory / path).write_bytes(content)
    tamper.seal()
    assert path in refusal_of(ALLOWED_FILES, tamper.directory)


def test_a_file_that_is_too_large_is_refused(tamper: Any) -> None:
    with (tamper.directory / "LICENSE").open("ab") as file:
        file.write(b" " * 1_000_001)
    assert "LICENSE: 1011" in refusal_of(ALLOWED_FILES, tamper.directory)


def test_a_filter_without_evidence_is_refused(tamper: Any) -> None:
    (tamper.directory / "evidence/filters/violence/filter.json").unlink()
    assert "evidence/filters/violence/filter.json: file is missing" in refusal_of(FILTER_EVIDENCE, tamper.directory)


@pytest.mark.parametrize(("name", "demand", "told"), [
    ("violence", {"recall": {"at_least": 0.9, "bound": 0.0}}, "recall on test labels is 0.6667, the policy asks for at least 0.9000"),
    ("violence", {"recall": {"at_least": 0.0, "bound": 0.5}}, "recall lower bound on test labels is "),
    ("person", {"kept_share": {"at_least": 0.9999}}, "kept share on test labels is ")])
def test_a_filter_that_shows_less_than_is_asked_for_is_refused(packed_run: Path, name: str, demand: Any, told: str) -> None:
    other = {"person": "violence", "violence": "person"}[name]
    asked = asked_of(packed_run / "release", categories={name: LENIENT | demand, other: LENIENT})
    assert f"filter {name}: {told}" in refusal_of(FILTER_EVIDENCE, packed_run / "release", asked)
    assert passes(FILTER_EVIDENCE, packed_run / "release", categories={name: LENIENT, other: LENIENT})


def test_a_category_that_the_policy_demands_nothing_of_is_refused(packed_run: Path) -> None:
    found = refusal_of(FILTER_EVIDENCE, packed_run / "release", asked_of(packed_run / "release", categories={"person": LENIENT}))
    assert "filter violence: the policy demands nothing of this category; name it under `categories` in the policy" in found


def test_a_report_that_claims_more_than_its_scores_is_refused(tamper: Any) -> None:
    tamper.json("evidence/filters/violence/filter.json", lambda report: report["test"].update(recall=1.0, num_caught=6))
    assert "test.recall is reported as 1.0" in refusal_of(FILTER_EVIDENCE, tamper.directory)


def test_a_lower_threshold_that_was_never_used_is_refused(tamper: Any) -> None:
    tamper.json("evidence/filters/violence/filter.json", lambda report: report.update(threshold=-9.0))
    refusal_of(FILTER_EVIDENCE, tamper.directory)
    assert "filter.json that stage filters/violence recorded" in refusal_of(PROVENANCE, tamper.directory)


def test_a_broken_chain_is_refused(tamper: Any) -> None:
    tamper.record("training/base", lambda record: record["inputs"].update(curated="0" * 64))
    found = refusal_of(PROVENANCE, tamper.directory)
    assert "stage training/base used curated 000000000000…" in found
    assert "stage evaluation used training/base" in found


def test_a_stage_that_does_not_say_what_it_used_is_refused(tamper: Any) -> None:
    tamper.record("curated", lambda record: record["inputs"].pop("filters/violence"))
    assert "stage curated does not say which filters/violence it used" in refusal_of(PROVENANCE, tamper.directory)


def test_training_on_anything_but_the_curated_set_is_refused(tamper: Any) -> None:
    tamper.record("training/base", lambda record: record["summary"].update(consumed_sha256="f" * 64))
    assert "training/base: trained on other images than the ledger keeps" in refusal_of(PROVENANCE, tamper.directory)


def test_a_card_that_says_something_else_is_refused(tamper: Any) -> None:
    tamper.text("README.md", "all randomness follows", "no randomness follows")
    assert "README.md: line" in refusal_of(CARD_COMPLETE, tamper.directory)


def test_a_card_without_a_claim_is_refused(tamper: Any) -> None:
    tamper.json("evidence/claims.json", lambda claims: claims.pop("filters.violence.test.recall_lower_bound"))
    found = refusal_of(CARD_COMPLETE, tamper.directory)
    assert "claim filters.violence.test.recall_lower_bound: missing" in found
    assert "card: claim 'filters.violence.test.recall_lower_bound' is missing" in found


def test_captions_that_do_not_count_are_refused(tamper: Any) -> None:
    path = tamper.directory / "evidence/evaluation/pairs.jsonl"
    path.write_text(path.read_text().replace('"own_score":0.3', '"own_score":0.1', 12))
    assert "for 11 of 24 pictures the own caption is in the better half" in refusal_of(CAPTIONS_COUNT, tamper.directory)


def test_a_draw_is_no_win(tamper: Any) -> None:
    path = tamper.directory / "evidence/evaluation/pairs.jsonl"
    path.write_text(path.read_text().replace('"own_score":0.3', '"own_score":0.2'))
    assert "for 0 of 24" in refusal_of(CAPTIONS_COUNT, tamper.directory)


def test_a_release_that_does_not_load_is_refused(tamper: Any) -> None:
    tamper.json("base/config.json", lambda config: config.update(model_channels=64))
    tamper.seal()
    assert "does not load or draw in a fresh process" in refusal_of(RELOAD, tamper.directory)


def test_weights_that_are_not_finite_are_refused(tamper: Any) -> None:
    from safetensors.torch import load_file, save_file

    path = tamper.directory / "noised_clip/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[0]
    tensors[name].view(-1)[0] = math.inf
    save_file(tensors, path, metadata={"format": "pt"})
    assert check_finite(open_evidence(tamper.directory)) == [f"noised_clip: tensor {name} holds values that are not finite; train again"]


def test_a_release_that_takes_too_long_is_refused(packed_run: Path) -> None:
    asked = Asked(open_evidence(packed_run / "release").policy, reload_timeout_s=0.01)
    assert "more than 0 s" in refusal_of(RELOAD, packed_run / "release", asked)


def test_a_category_that_the_policy_names_needs_evidence_whatever_the_recipe_says(packed_run: Path) -> None:
    asked = asked_of(packed_run / "release", categories={"person": LENIENT, "violence": LENIENT, "gore": LENIENT})
    found = refusal_of(FILTER_EVIDENCE, packed_run / "release", asked)
    assert "filter gore: the policy names this category, but the release has no evidence that it was filtered" in found
    assert "person" not in found.removeprefix("gate filter evidence: ").split("gore")[0]


def test_audits_that_the_policy_asks_for_are_missed(packed_run: Path) -> None:
    leaks = {"person": LENIENT | {"leak": {"at_most": 1.0}}, "violence": LENIENT | {"leak": {"at_most": 0.01}}}
    found = refusal_of(AUDITS, packed_run / "release", asked_of(packed_run / "release", categories=leaks))
    assert "audit of person: the policy asks for a leak of at most 100.0000%, but no audit of what was kept is here; run `glideslope" in found
    assert "--category person`" in found
    assert "audit of violence: the policy asks for a leak of at most 1.0000%" in found
    assert "--category violence --claim 0.01`" in found
    assert passes(AUDITS, packed_run / "release")


def edit_scores(tamper: Any, change: Any) -> str:
    tamper.table("evidence/filters/person/scores.parquet", change)
    return refusal_of(LABELS_NOT_REUSED, tamper.directory)


def test_labels_in_two_roles_are_refused(tamper: Any) -> None:
    def train_on_audit(rows: list[dict[str, Any]]) -> None:
        next(row for row in rows if row["role"] == "test")["in_training"] = True

    def share_concept(rows: list[dict[str, Any]]) -> None:
        first, second = (next(row for row in rows if row["role"] == role) for role in ("train", "test"))
        second["concept"] = first["concept"]

    assert passes(LABELS_NOT_REUSED, tamper.directory)
    assert "has the role test, but the classifier was trained on it; fit again" in edit_scores(tamper, train_on_audit)
    assert "has the roles test, train; a label has one role only" in edit_scores(tamper, share_concept)
    assert "and " in edit_scores(tamper, lambda rows: [row.update(concept="same") or row.update(in_training=True) for row in rows])


def test_a_release_above_the_size_limit_is_refused(tamper: Any) -> None:
    with (tamper.directory / "LICENSE").open("ab") as file:
        file.write(b" " * 1_000_001)
    asked = asked_of(tamper.directory, size={"at_most_mb": 1})
    assert "MB, the policy allows 1 MB" in refusal_of(SIZE, tamper.directory, asked)
    assert passes(SIZE, tamper.directory, size={"at_most_mb": 100})


def test_a_licence_that_is_not_accepted_is_refused(packed_run: Path) -> None:
    found = refusal_of(LICENCE, packed_run / "release", asked_of(packed_run / "release", licenses=["MIT", "CC0-1.0"]))
    assert "licence: the recipe names 'apache-2.0', the policy accepts MIT, CC0-1.0; choose one of them in release.license" in found
    assert passes(LICENCE, packed_run / "release", licenses=["Apache-2.0"])


def test_an_edited_licence_text_is_refused(tamper: Any) -> None:
    tamper.text("LICENSE", "Apache License", "Apache Licence")
    assert "LICENSE: line" in refusal_of(GENERATED_FILES, tamper.directory)


def test_a_secret_is_refused(tamper: Any) -> None:
    tamper.text("README.md", "all randomness follows", "token hf_" + "aB3dE5gH7jK9mN1pQ3sT5vW7xY9zA1bC3d")
    tamper.seal()
    assert "README.md: holds" in refusal_of(SECRETS, tamper.directory)


def test_a_pipeline_description_of_other_components_is_refused(tamper: Any) -> None:
    tamper.text("model_index.json", "TextConditionedUNet", "SomethingElse")
    tamper.seal()
    assert "model_index.json" in refusal_of(GENERATED_FILES, tamper.directory)


def test_golden_samples_are_drawn_again(tamper: Any) -> None:
    from safetensors.torch import load_file, save_file

    path = tamper.directory / "base/diffusion_pytorch_model.safetensors"
    save_file({name: tensor * 1.5 for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    tamper.seal()
    found = refusal_of(GOLDEN_SAMPLES, tamper.directory)
    assert "these are not the weights or not the code that was released" in found


def test_a_release_without_its_policy_is_refused_at_once(tamper: Any) -> None:
    (tamper.directory / "evidence/policy.yaml").unlink()
    with pytest.raises(ReleaseError, match=r"evidence/policy\.yaml"):
        run_policy(tamper.directory)
    with pytest.raises(ReleaseError, match=r"evidence/policy\.yaml"):
        check(tamper.directory)


def test_a_given_policy_is_applied_on_top_and_an_unreadable_one_refuses(packed_run: Path, tmp_path: Path) -> None:
    strict = load_policy(None).model_dump(mode="json") | {"size": {"at_most_mb": 1}, "categories": {"gore": LENIENT}}
    (tmp_path / "strict.yaml").write_text(yaml.safe_dump(strict))
    applied = effective_policy(open_evidence(packed_run / "release"), tmp_path / "strict.yaml")
    assert "filter gore: the policy names this category" in refusal_of(FILTER_EVIDENCE, packed_run / "release", Asked(applied))
    (tmp_path / "empty.yaml").write_text("categories: {}")
    for name, message in (("empty.yaml", "categories"), ("missing.yaml", "No such file")):
        with pytest.raises(ReleaseError, match=message):
            check(packed_run / "release", tmp_path / name)


REASON = "the reference machine was sold last year"


@pytest.mark.parametrize(("name", "told"), [
    ("reloading", "unsafe_skip names 'reloading'; expected one of filter evidence, audits"),
    ("card complete", r"unsafe_skip names 'card complete'.*\(this gate always runs\)"),
    ("provenance chain", r"unsafe_skip names 'provenance chain'.*\(this gate always runs\)")])
def test_a_bypass_of_what_is_no_gate_or_always_runs_is_refused(tamper: Any, recipe: Any, run_dir: Path, policy_with: Any, name: str,
                                                               told: str) -> None:
    path = policy_with(unsafe_skip={name: REASON})
    with pytest.raises(ReleaseError, match=told):
        effective_policy(open_evidence(tamper.directory), path)
    with pytest.raises(ReleaseError, match=told):
        pack(run_dir, recipe.model_copy(update={"policy": str(path)}), run_dir / "release")
    (tamper.directory / "evidence/policy.yaml").write_text(load_policy(path).text)
    assert re.search(told, CHECKS["policy"](open_evidence(tamper.directory))[0])
    with pytest.raises(ReleaseError, match=told):
        run_policy(tamper.directory)


def test_the_packed_policy_is_read_back_and_a_missing_or_edited_one_is_refused(tamper: Any, recipe: Any) -> None:
    release = open_evidence(tamper.directory)
    assert release.policy == load_policy(recipe.policy)
    assert CHECKS["policy"](release) == []
    path = tamper.directory / "evidence/policy.yaml"
    for content, message in ((path.read_bytes() + b"# more\n", "is not in the form that pack writes"), (b"", "an empty policy"),
                             (b"{}", "categories: required key is missing")):
        path.write_bytes(content)
        with pytest.raises(ReleaseError, match=message):
            _ = open_evidence(tamper.directory).policy
    path.unlink()
    with pytest.raises(ReleaseError, match=r"evidence/policy\.yaml: file is missing"):
        effective_policy(open_evidence(tamper.directory), None)


def test_a_given_policy_can_ask_for_more_but_lift_nothing(packed_run: Path, policy_with: Any) -> None:
    release = open_evidence(packed_run / "release")
    applied = effective_policy(release, policy_with(size={"at_most_mb": 7}, companions="allow", captions={"bound": 0.0}))
    assert applied.size.at_most_mb == 7
    assert applied.companions == "refuse"
    assert applied.captions.bound == 0.5
    with pytest.raises(ReleaseError, match="leaves out reload, which the policy in the release does not; a bypass counts only when"):
        effective_policy(release, policy_with(unsafe_skip={"reload": REASON}))

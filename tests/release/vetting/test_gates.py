import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from glideslope.errors import ReleaseError
from glideslope.release.evidence.contents import Release
from glideslope.release.vetting.check import (
    AllowedFiles,
    AuditsShow,
    CaptionsCount,
    CardComplete,
    FilterEvidence,
    Gate,
    GoldenSamples,
    Intact,
    LabelsNotReused,
    Licence,
    ProvenanceChain,
    Reload,
    Secrets,
    Size,
    Verified,
    check,
    gates_of,
    run_gates,
    run_policy,
)
from glideslope.release.vetting.policy import CategoryPolicy, effective_policy, load_policy
from glideslope.release.weights.architecture import check_finite

QUICK = [gate for gate in gates_of(load_policy(None)) if gate.name not in ("reload", "golden samples")]


def refusal_of(gate: Gate, directory: Path) -> str:
    with pytest.raises(ReleaseError) as caught:
        gate.check(Release(directory))
    assert str(caught.value).startswith(f"gate {gate.name}: ")
    return str(caught.value)


def test_a_sound_release_passes_every_gate_and_they_are_named(packed_run: Path) -> None:
    passed = check(packed_run / "release")
    assert passed == ["intact", "allowed files", "filter evidence", "audits", "labels not reused", "provenance chain", "verified", "size",
                      "licence", "card complete", "secrets", "companions", "captions count", "reload", "golden samples"]


def test_no_gates_at_all_is_a_refusal(packed_run: Path) -> None:
    with pytest.raises(ReleaseError, match="no gate to pass"):
        run_gates(packed_run / "release", [])


def test_all_failures_are_reported_at_once(tamper: Any) -> None:
    tamper.text("README.md", "21 of 24", "22 of 24")
    (tamper.directory / "figures/ledger.png").unlink()
    with pytest.raises(ReleaseError) as caught:
        run_gates(tamper.directory, QUICK)
    message = str(caught.value)
    assert all(f"gate {name}: " in message for name in ("intact", "allowed files", "card complete"))
    assert "3 of 13 gates refuse" in message


def test_a_changed_byte_is_refused(tamper: Any) -> None:
    tamper.text("LICENSE", "Apache", "apache")
    assert "LICENSE" in refusal_of(Intact(), tamper.directory)


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
    assert path in refusal_of(AllowedFiles(), tamper.directory)


def test_a_file_that_is_too_large_is_refused(tamper: Any) -> None:
    with (tamper.directory / "LICENSE").open("ab") as file:
        file.write(b" " * 1_000_001)
    assert "LICENSE: 1011" in refusal_of(AllowedFiles(), tamper.directory)


def test_a_filter_without_evidence_is_refused(tamper: Any) -> None:
    (tamper.directory / "evidence/filters/violence/filter.json").unlink()
    assert "evidence/filters/violence/filter.json: file is missing" in refusal_of(FilterEvidence(), tamper.directory)


@pytest.mark.parametrize(("limit", "value"), [("min_recall", 0.9), ("min_recall_lower_bound", 0.5), ("min_kept_share", 0.9999)])
def test_a_filter_outside_its_limits_is_refused(tamper: Any, limit: str, value: float) -> None:
    text = (tamper.directory / "evidence/recipe.yaml").read_text()
    before, after = text.split("- name: violence") if limit != "min_kept_share" else text.split("- name: person")
    line = next(line for line in after.splitlines() if limit + ":" in line)
    name = "- name: violence" if limit != "min_kept_share" else "- name: person"
    (tamper.directory / "evidence/recipe.yaml").write_text(before + name + after.replace(line, line.split(":")[0] + f": {value}", 1))
    found = refusal_of(FilterEvidence(), tamper.directory)
    assert f"the recipe asks for at least {value:.4f}" in found
    assert limit.removeprefix("min_").replace("_", " ") in found


def test_a_report_that_claims_more_than_its_scores_is_refused(tamper: Any) -> None:
    tamper.json("evidence/filters/violence/filter.json", lambda report: report["audit"].update(recall=1.0, num_caught=6))
    assert "audit.recall is reported as 1.0" in refusal_of(FilterEvidence(), tamper.directory)


def test_a_lower_threshold_that_was_never_used_is_refused(tamper: Any) -> None:
    tamper.json("evidence/filters/violence/filter.json", lambda report: report.update(threshold=-9.0))
    refusal_of(FilterEvidence(), tamper.directory)
    assert "filter.json that stage filters/violence recorded" in refusal_of(ProvenanceChain(), tamper.directory)


def test_a_broken_chain_is_refused(tamper: Any) -> None:
    tamper.record("training/base", lambda record: record["inputs"].update(curated="0" * 64))
    found = refusal_of(ProvenanceChain(), tamper.directory)
    assert "stage training/base used curated 000000000000…" in found
    assert "stage evaluation used training/base" in found


def test_a_stage_that_does_not_say_what_it_used_is_refused(tamper: Any) -> None:
    tamper.record("curated", lambda record: record["inputs"].pop("filters/violence"))
    assert "stage curated does not say which filters/violence it used" in refusal_of(ProvenanceChain(), tamper.directory)


def test_training_on_anything_but_the_curated_set_is_refused(tamper: Any) -> None:
    tamper.record("training/base", lambda record: record["summary"].update(consumed_sha256="f" * 64))
    assert "training/base: trained on other images than the ledger keeps" in refusal_of(ProvenanceChain(), tamper.directory)


def test_a_card_that_says_something_else_is_refused(tamper: Any) -> None:
    tamper.text("README.md", "all randomness follows", "no randomness follows")
    assert "README.md: line" in refusal_of(CardComplete(), tamper.directory)


def test_a_card_without_a_claim_is_refused(tamper: Any) -> None:
    tamper.json("evidence/claims.json", lambda claims: claims.pop("filters.violence.audit.recall_lower_bound"))
    found = refusal_of(CardComplete(), tamper.directory)
    assert "claim filters.violence.audit.recall_lower_bound: missing" in found
    assert "card: claim 'filters.violence.audit.recall_lower_bound' is missing" in found


def test_captions_that_do_not_count_are_refused(tamper: Any) -> None:
    path = tamper.directory / "evidence/evaluation/pairs.jsonl"
    path.write_text(path.read_text().replace('"own_score":0.3', '"own_score":0.1', 12))
    assert "for 11 of 24 pictures the own caption is in the better half" in refusal_of(CaptionsCount(), tamper.directory)


def test_a_draw_is_no_win(tamper: Any) -> None:
    path = tamper.directory / "evidence/evaluation/pairs.jsonl"
    path.write_text(path.read_text().replace('"own_score":0.3', '"own_score":0.2'))
    assert "for 0 of 24" in refusal_of(CaptionsCount(), tamper.directory)


def test_a_release_that_does_not_load_is_refused(tamper: Any) -> None:
    tamper.json("base/config.json", lambda config: config.update(model_channels=64))
    tamper.seal()
    assert "does not load or draw in a fresh process" in refusal_of(Reload(), tamper.directory)


def test_weights_that_are_not_finite_are_refused(tamper: Any) -> None:
    from safetensors.torch import load_file, save_file

    path = tamper.directory / "noised_clip/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[0]
    tensors[name].view(-1)[0] = math.inf
    save_file(tensors, path, metadata={"format": "pt"})
    assert check_finite(Release(tamper.directory)) == [f"noised_clip: tensor {name} holds values that are not finite; train again"]


def test_a_release_that_takes_too_long_is_refused(packed_run: Path) -> None:
    assert "more than 0 s" in refusal_of(Reload(timeout_s=0.01), packed_run / "release")


def test_a_category_that_the_policy_names_needs_evidence_whatever_the_recipe_says(packed_run: Path) -> None:
    gate = FilterEvidence({"person": CategoryPolicy(), "gore": CategoryPolicy()})
    found = refusal_of(gate, packed_run / "release")
    assert "filter gore: the policy names this category, but the release has no evidence that it was filtered" in found
    assert "person" not in found.removeprefix("gate filter evidence: ").split("gore")[0]


@pytest.mark.parametrize(("name", "limits"), [("violence", {"min_recall": 0.9999}), ("violence", {"min_recall_lower_bound": 0.999}),
                                              ("person", {"min_kept_share": 0.9999})])
def test_the_policys_limits_count_beside_the_recipes(packed_run: Path, name: str, limits: dict[str, float]) -> None:
    assert "the policy asks for at least" in refusal_of(FilterEvidence({name: CategoryPolicy(**limits)}), packed_run / "release")
    FilterEvidence({"violence": CategoryPolicy(min_recall=0.1)}).check(Release(packed_run / "release"))


def test_a_loose_policy_does_not_loosen_the_recipe(tamper: Any) -> None:
    tamper.text("evidence/recipe.yaml", "min_recall: 0.5\n", "min_recall: 0.9999\n")
    assert "the recipe asks for at least 0.9999" in refusal_of(FilterEvidence({"violence": CategoryPolicy(min_recall=0.1)}), tamper.directory)


def test_audits_that_the_policy_asks_for_are_missed(packed_run: Path) -> None:
    found = refusal_of(AuditsShow(is_required=True), packed_run / "release")
    assert "audit of person: the policy asks for an audit, but no audit of what was kept is here; run `glideslope audit RECIPE" in found
    found = refusal_of(AuditsShow({"violence": CategoryPolicy(max_leak_rate=0.01)}), packed_run / "release")
    assert "audit of violence: the policy asks for a leak of at most 1.0000%" in found
    assert "--category violence --claim 0.01`" in found
    assert "person" not in found


def edit_scores(tamper: Any, change: Any) -> str:
    tamper.table("evidence/filters/person/scores.parquet", change)
    return refusal_of(LabelsNotReused(), tamper.directory)


def test_labels_in_two_roles_are_refused(tamper: Any) -> None:
    def train_on_audit(rows: list[dict[str, Any]]) -> None:
        next(row for row in rows if row["role"] == "audit")["in_training"] = True

    def share_concept(rows: list[dict[str, Any]]) -> None:
        first, second = (next(row for row in rows if row["role"] == role) for role in ("train", "audit"))
        second["concept"] = first["concept"]

    LabelsNotReused().check(Release(tamper.directory))
    assert "has the role audit, but the classifier was trained on it; fit again" in edit_scores(tamper, train_on_audit)
    assert "has the roles audit, train; a label has one role only" in edit_scores(tamper, share_concept)
    assert "and " in edit_scores(tamper, lambda rows: [row.update(concept="same") or row.update(in_training=True) for row in rows])


def test_a_release_above_the_size_limit_is_refused(packed_run: Path) -> None:
    assert "MB, the policy allows 0 MB" in refusal_of(Size(0), packed_run / "release")
    Size(100).check(Release(packed_run / "release"))


def test_a_licence_that_is_not_accepted_and_an_edited_text_are_refused(tamper: Any) -> None:
    found = refusal_of(Licence(("MIT", "CC0-1.0")), tamper.directory)
    assert "licence: the recipe names 'apache-2.0', the policy accepts MIT, CC0-1.0; choose one of them in release.license" in found
    Licence(("Apache-2.0",)).check(Release(tamper.directory))
    tamper.text("LICENSE", "Apache License", "Apache Licence")
    assert "LICENSE: line" in refusal_of(Licence(("Apache-2.0",)), tamper.directory)


def test_a_secret_is_refused(tamper: Any) -> None:
    tamper.text("README.md", "all randomness follows", "token hf_" + "aB3dE5gH7jK9mN1pQ3sT5vW7xY9zA1bC3d")
    tamper.seal()
    assert "README.md: holds" in refusal_of(Secrets(), tamper.directory)


def test_what_verify_looks_at_beyond_the_other_gates_is_looked_at(tamper: Any) -> None:
    tamper.text("model_index.json", "TextConditionedUNet", "SomethingElse")
    tamper.seal()
    assert "model_index.json" in refusal_of(Verified(), tamper.directory)


def test_golden_samples_are_drawn_again(tamper: Any) -> None:
    from safetensors.torch import load_file, save_file

    path = tamper.directory / "base/diffusion_pytorch_model.safetensors"
    save_file({name: tensor * 1.5 for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    tamper.seal()
    found = refusal_of(GoldenSamples(load_policy(None).golden), tamper.directory)
    assert "these are not the weights or not the code that was released" in found


def test_a_release_without_its_policy_is_refused_at_once(tamper: Any) -> None:
    (tamper.directory / "evidence/policy.yaml").unlink()
    with pytest.raises(ReleaseError, match=r"evidence/policy\.yaml"):
        run_policy(tamper.directory)
    with pytest.raises(ReleaseError, match=r"evidence/policy\.yaml"):
        check(tamper.directory)


def test_a_given_policy_is_applied_on_top_and_an_unreadable_one_refuses(packed_run: Path, tmp_path: Path) -> None:
    strict = load_policy(None).model_dump(mode="json") | {"max_size_mb": 1, "categories": {"gore": {}}, "unsafe_skip": {}}
    (tmp_path / "strict.yaml").write_text(yaml.safe_dump(strict))
    gates = gates_of(effective_policy(Release(packed_run / "release"), tmp_path / "strict.yaml"))
    found = refusal_of(next(gate for gate in gates if gate.name == "filter evidence"), packed_run / "release")
    assert "filter gore: the policy names this category" in found
    (tmp_path / "empty.yaml").write_text("categories: {}")
    for name, message in (("empty.yaml", "categories"), ("missing.yaml", "No such file")):
        with pytest.raises(ReleaseError, match=message):
            check(packed_run / "release", tmp_path / name)

import math
from pathlib import Path
from typing import Any

import pytest
from glideslope.release.architecture import check_finite
from glideslope.release.contents import Release
from glideslope.release.gates import (
    AllowedFiles,
    CaptionsCount,
    CardComplete,
    FilterEvidence,
    Gate,
    Intact,
    ProvenanceChain,
    Reload,
    check,
    gates_of,
    run_gates,
)
from glideslope.release.policy import load_policy

from glideslope.errors import ReleaseError

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
    assert "11 of 24 pictures fit their own caption" in refusal_of(CaptionsCount(), tamper.directory)


def test_a_draw_is_no_win(tamper: Any) -> None:
    path = tamper.directory / "evidence/evaluation/pairs.jsonl"
    path.write_text(path.read_text().replace('"own_score":0.3', '"own_score":0.1'))
    assert "0 of 24" in refusal_of(CaptionsCount(), tamper.directory)


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

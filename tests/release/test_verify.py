import json
import pickle
import shutil
import struct
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from glideslope.errors import CheckpointError, ReleaseError, VerificationError
from glideslope.release import verify
from glideslope.release.claims.evaluation import deal_pairs
from glideslope.release.evidence.contents import open_evidence
from glideslope.release.vetting.gates.card import check_card

WEIGHTS = "base/diffusion_pytorch_model.safetensors"


def problems_of(directory: Path) -> str:
    with pytest.raises(VerificationError) as caught:
        verify(directory)
    return "\n".join(caught.value.problems)


def test_a_release_verifies_and_the_report_counts_what_was_checked(packed_run: Path) -> None:
    report = verify(packed_run / "release")
    manifest = json.loads((packed_run / "release/manifest.json").read_text())
    assert report.manifest_root == manifest["root"]
    assert report.checked["files"] == len(manifest["files"])
    assert report.checked["ledger rows"] == 401
    assert json.loads(json.dumps(report.to_json()))["checked"] == report.checked


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such directory"):
        verify(tmp_path / "nowhere")


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    assert problems_of(tmp_path) == "manifest.json is missing, and verification is required"


@pytest.fixture(scope="module")
def shared_copy(packed_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy for tests that undo what they do."""
    return Path(shutil.copytree(packed_run / "release", tmp_path_factory.mktemp("shared") / "release"))


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_byte_changed_anywhere_is_named(shared_copy: Path, data: st.DataObject) -> None:
    paths = sorted(path for path in shared_copy.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(paths))
    original = path.read_bytes()
    place = data.draw(st.integers(0, len(original) - 1))
    changed = bytearray(original)
    changed[place] ^= data.draw(st.integers(1, 255))
    try:
        path.write_bytes(changed)
        assert path.relative_to(shared_copy).as_posix() in problems_of(shared_copy)
    finally:
        path.write_bytes(original)


def test_one_byte_changed_in_every_single_file_breaks_its_digest(shared_copy: Path) -> None:
    from glideslope.release.evidence.contents import open_evidence
    from glideslope.release.vetting.gates.files import check_manifest

    for path in sorted(path for path in shared_copy.rglob("*") if path.is_file() and path.name != "manifest.json"):
        original = path.read_bytes()
        path.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
        found = check_manifest(open_evidence(shared_copy))
        path.write_bytes(original)
        assert len(found) == 1
        assert found[0].startswith(path.relative_to(shared_copy).as_posix())


def test_an_added_file_is_named(tamper: Any) -> None:
    (tamper.directory / "figures/extra.png").write_bytes((tamper.directory / "figures/ledger.png").read_bytes())
    assert "figures/extra.png: file is not in the manifest" in problems_of(tamper.directory)
    tamper.seal()
    assert "figures/extra.png: no stage of this release writes such a file" in problems_of(tamper.directory)


@pytest.mark.parametrize("path", [WEIGHTS, "README.md", "LICENSE", "manifest.json", "model_index.json", "evidence/claims.json",
                                  "evidence/recipe.yaml", "evidence/filters/violence/scores.parquet", "evidence/records/curated.json",
                                  "figures/ledger.png"])
@pytest.mark.parametrize("sealed", [False, True])
def test_a_missing_file_is_named(tamper: Any, path: str, sealed: bool) -> None:
    (tamper.directory / path).unlink()
    if sealed and path != "manifest.json":
        tamper.seal()
    found = problems_of(tamper.directory)
    assert path in found or path.replace("/", ": holds no ") in found


def test_a_renamed_file_is_named_twice(tamper: Any) -> None:
    (tamper.directory / "tokenizer/tokenizer.json").rename(tamper.directory / "tokenizer/vocab.json")
    found = problems_of(tamper.directory)
    assert "tokenizer/tokenizer.json: file is missing" in found
    assert "tokenizer/vocab.json" in found


def test_a_renamed_tensor_is_named(tamper: Any) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(tamper.directory / WEIGHTS)
    tensors["input_blocks.0.0.renamed"] = tensors.pop("input_blocks.0.0.weight")
    save_file(tensors, tamper.directory / WEIGHTS, metadata={"format": "pt"})
    tamper.seal()
    found = problems_of(tamper.directory)
    assert "tensor input_blocks.0.0.weight is missing" in found
    assert "tensor input_blocks.0.0.renamed is not part of the architecture" in found


def test_a_tensor_of_another_shape_and_values_that_are_not_finite_are_named(tamper: Any) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(tamper.directory / WEIGHTS)
    tensors["input_blocks.0.0.bias"] = tensors["input_blocks.0.0.bias"][:-1].clone()
    tensors["input_blocks.0.0.weight"][0] = float("nan")
    save_file(tensors, tamper.directory / WEIGHTS, metadata={"format": "pt"})
    tamper.seal()
    found = problems_of(tamper.directory)
    assert "tensor input_blocks.0.0.bias has shape" in found
    assert "tensor input_blocks.0.0.weight holds values that are not finite" in found


@pytest.mark.parametrize("path", ["base/model.pt", "base/pytorch_model.bin", "evidence/evaluation/evaluation.json",
                                  "tokenizer/tokenizer.json", WEIGHTS])
@pytest.mark.parametrize("kind", ["pickle", "old pickle", "zip"])
def test_a_pickle_is_found_by_its_content_under_any_name(tamper: Any, path: str, kind: str) -> None:
    import io
    import zipfile

    payload = pickle.dumps({"weights": [1, 2]}, protocol=0 if kind == "old pickle" else 4)
    if kind == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("archive/data.pkl", payload)
        payload = buffer.getvalue()
    (tamper.directory / path).write_bytes(payload)
    tamper.seal()
    assert path in problems_of(tamper.directory)


def test_a_linked_folder_and_a_pipe_are_refused(tamper: Any, tmp_path: Path) -> None:
    import os

    (tmp_path / "outside").mkdir()
    (tamper.directory / "base/more").symlink_to(tmp_path / "outside", target_is_directory=True)
    os.mkfifo(tamper.directory / "evidence/pipe")
    found = problems_of(tamper.directory)
    assert "base/more: not a plain file" in found
    assert "evidence/pipe: not a plain file" in found


def test_an_edited_number_on_the_card_is_named_by_its_line(tamper: Any) -> None:
    tamper.text("README.md", "21 of 24", "24 of 24")
    tamper.seal()
    found = problems_of(tamper.directory)
    assert "README.md: line" in found
    assert "24 of 24" in found
    assert "21 of 24" in found


def test_an_edited_claim_is_named_with_what_the_evidence_gives(tamper: Any) -> None:
    from glideslope.model_cards.card import render_card

    tamper.json("evidence/claims.json", lambda claims: claims.update({"evaluation.num_wins": 24}))
    (tamper.directory / "README.md").write_text(render_card(json.loads((tamper.directory / "evidence/claims.json").read_text())))
    tamper.seal()
    assert "claim evaluation.num_wins: states 24, the evidence gives 21" in problems_of(tamper.directory)


@pytest.mark.parametrize("change", [lambda c: c.pop("ledger.num_seen"), lambda c: c.update({"invented": 1})])
def test_a_missing_and_an_invented_claim_are_named(tamper: Any, change: Any) -> None:
    tamper.json("evidence/claims.json", change)
    tamper.seal()
    found = problems_of(tamper.directory)
    assert "claim ledger.num_seen: missing" in found or "claim invented: states 1, no evidence gives it" in found


def test_an_edited_score_is_noticed_in_figures_and_chain(tamper: Any) -> None:
    def catch_all(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["label"] == 1:
                row["score"] = 9.0

    tamper.table("evidence/filters/violence/scores.parquet", catch_all)
    tamper.seal()
    found = problems_of(tamper.directory)
    assert "claim filters.violence.test.num_caught" in found
    assert "filter violence: test.num_caught is reported as" in found
    assert "evidence/filters/violence/scores.parquet: is not the scores.parquet that stage filters/violence recorded" in found


def test_an_edited_score_in_the_ledger_is_noticed_though_the_manifest_fits(tamper: Any) -> None:
    def edit(rows: list[dict[str, Any]]) -> None:
        next(row for row in rows if row["decision"] == "keep")["score_person"] = 50.0

    tamper.table("evidence/ledger/shard-00000.parquet", edit)
    tamper.seal()
    found = problems_of(tamper.directory)
    assert "is kept, against filter:person" in found
    assert "evidence/ledger/shard-00000.parquet: is not the ledger/shard-00000.parquet that stage curated recorded" in found


def test_a_removed_ledger_row_breaks_the_counts(tamper: Any) -> None:
    tamper.table("evidence/ledger/shard-00001.parquet", lambda rows: rows.pop())
    tamper.seal()
    found = problems_of(tamper.directory)
    assert "ledger: seen counts 400, curated.json states 401" in found
    assert "claim ledger.num_seen: states 401, the evidence gives 400" in found


def test_a_row_that_fails_open_is_noticed(tamper: Any) -> None:
    def keep_unscored(rows: list[dict[str, Any]]) -> None:
        rows[-1].update(decision="keep", reason="", split="train", sha256="0" * 64)

    tamper.table("evidence/ledger/shard-00001.parquet", keep_unscored)
    tamper.seal()
    assert "broken is kept, against missing score, missing score" in problems_of(tamper.directory)


def test_an_edited_record_does_not_fit_its_digest(tamper: Any) -> None:
    tamper.json("evidence/records/training__base.json", lambda record: record["summary"].update(num_train_examples=9999))
    tamper.seal()
    assert "evidence/records/training__base.json: the record's digest is" in problems_of(tamper.directory)


def test_an_edited_record_with_a_new_digest_breaks_the_chain(tamper: Any) -> None:
    tamper.record("curated", lambda record: record["summary"].update(kept=9999))
    tamper.seal()
    found = problems_of(tamper.directory)
    assert "stage training/base used curated" in found
    assert "stage evaluation used curated" in found


@pytest.mark.parametrize(("key", "value"), [("final_loss", 0.01), ("num_images_seen", 1), ("num_train_examples", 1), ("num_parameters", 1)])
def test_a_recorded_figure_that_the_evidence_does_not_give_is_named(tamper: Any, key: str, value: float) -> None:
    tamper.record("training/base", lambda record: record["summary"].update({key: value}))
    tamper.seal()
    assert f"training/base: {key} is recorded as {value}" in problems_of(tamper.directory)


def test_a_noised_clip_trained_with_another_tokenizer_is_noticed(tamper: Any) -> None:
    tamper.record("training/noised_clip", lambda record: record["inputs"].update(tokenizer="0" * 64))
    tamper.seal()
    assert "training/noised_clip: was trained with another tokenizer" in problems_of(tamper.directory)


def test_training_on_other_images_is_noticed(tamper: Any) -> None:
    tamper.record("training/noised_clip", lambda record: record["summary"].update(consumed_sha256="0" * 64))
    tamper.seal()
    assert "training/noised_clip: trained on other images than the ledger keeps for training" in problems_of(tamper.directory)


def test_a_filter_for_another_category_than_the_recipe_describes_is_noticed(tamper: Any) -> None:
    tamper.text("evidence/recipe.yaml", "a weapon, a wound or an attack", "anything that looks dangerous")
    tamper.seal()
    assert "filters/violence: was run with counts 'a weapon" in problems_of(tamper.directory)


def test_other_terms_in_the_licence_or_the_pipeline_description_are_noticed(tamper: Any) -> None:
    tamper.text("LICENSE", "Apache License", "Another License")
    tamper.json("model_index.json", lambda value: value.update(base=["evil_module", "Model"]))
    tamper.seal()
    found = problems_of(tamper.directory)
    assert "LICENSE: line" in found
    assert "model_index.json: names other components" in found


def test_an_evaluation_that_reports_more_than_its_pairs_is_noticed(tamper: Any) -> None:
    tamper.json("evidence/evaluation/evaluation.json", lambda report: report.update(num_wins=24))
    tamper.seal()
    assert "evaluation: num_wins is reported as 24, its rows give 21" in problems_of(tamper.directory)


def swap_with_another(pair: dict[str, Any]) -> None:
    pair["prompt"], pair["others"][0] = pair["others"][0], pair["prompt"]


PAIR_CHANGES: list[tuple[Any, str]] = [
    (swap_with_another, "evaluation: prompt of pair 3 is"),
    (lambda pair: pair.update(seed=99), "evaluation: seed of pair 3 is 99, the recipe's seed deals 3"),
    (lambda pair: pair["others"].__setitem__(0, pair["others"][1]), "evaluation: others of pair 3 is"),
    (lambda pair: pair["others"].__setitem__(0, "a caption of nobody"), "evaluation: others of pair 3 is"),
    (lambda pair: pair["others"].reverse(), "evaluation: others of pair 3 is"),
    (lambda pair: [pair[key].__delitem__(slice(2)) for key in ("others", "other_scores", "other_means")], "evaluation: others of pair 3 is")]


def test_the_publisher_cannot_leave_out_a_pair_or_deal_other_hands(tamper: Any) -> None:
    path = tamper.directory / "evidence/evaluation/pairs.jsonl"
    pairs = [json.loads(line) for line in path.read_text().splitlines()]
    release = open_evidence(tamper.directory)
    rows = [row for row in pq.read_table(tamper.directory / "evidence/ledger").to_pylist() if row["split"]]
    other = deal_pairs(rows, release.recipe.evaluate, release.recipe.seed + 1)
    dealt = [pair | {key: hand[key] for key in ("prompt", "key", "split", "others")} for pair, hand in zip(pairs, other, strict=True)]
    for changed, problem in ((pairs[:-1], "evaluation: has 23 pairs, the recipe's seed deals 24"), (dealt, "evaluation: prompt of pair 0 is")):
        path.write_text("".join(json.dumps(pair) + "\n" for pair in changed))
        tamper.seal()
        assert problem in problems_of(tamper.directory)


@pytest.mark.parametrize(("change", "problem"), PAIR_CHANGES)
def test_the_publisher_cannot_choose_what_a_picture_is_compared_with(tamper: Any, change: Any, problem: str) -> None:
    path = tamper.directory / "evidence/evaluation/pairs.jsonl"
    pairs = [json.loads(line) for line in path.read_text().splitlines()]
    change(pairs[3])
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    tamper.seal()
    assert problem in problems_of(tamper.directory)


def test_a_prompt_that_was_trained_on_cannot_pass_as_held_back(tamper: Any) -> None:
    path = tamper.directory / "evidence/evaluation/pairs.jsonl"
    pairs = [json.loads(line) for line in path.read_text().splitlines()]
    ledger = pq.read_table(tamper.directory / "evidence/ledger/shard-00000.parquet").to_pylist()
    pairs[0]["key"] = next(row["key"] for row in ledger if row["split"] == "train")
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    tamper.seal()
    found = problems_of(tamper.directory)
    assert f"evaluation: {pairs[0]['key']} is stated to be of split validation, the ledger says train" in found
    assert "claim evaluation.num_held_back: states 24, the evidence gives 23" in found


def test_a_manifest_of_another_form_is_noticed(tamper: Any) -> None:
    path = tamper.directory / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert "manifest.json: is not in the form that pack writes" in problems_of(tamper.directory)


def test_evidence_of_an_odd_type_is_a_problem_and_not_a_crash(tamper: Any) -> None:
    tamper.json("evidence/filters/person/filter.json", lambda report: report.update(threshold="none"))
    tamper.json("evidence/curated.json", lambda report: report.update(dropped=[], seen=None))
    tamper.seal()
    assert "filters/person" in problems_of(tamper.directory)


def test_a_recipe_with_an_unknown_key_is_a_problem_among_others(tamper: Any) -> None:
    tamper.text("evidence/recipe.yaml", "seed: 0", "seed: 0\nallow_everything: true")
    tamper.text("README.md", "21 of 24", "22 of 24")
    tamper.seal()
    found = problems_of(tamper.directory)
    assert "evidence/recipe.yaml: allow_everything: unknown key" in found
    assert "README.md: line" in found


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_evidence_overwritten_under_a_new_manifest_is_refused_and_never_a_crash(shared_copy: Path, tamperer: Any,
                                                                                data: st.DataObject) -> None:
    paths = sorted(path for path in (shared_copy / "evidence").rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(paths))
    manifest = (shared_copy / "manifest.json").read_bytes()
    original = path.read_bytes()
    changed = original[:data.draw(st.integers(0, len(original) - 1))] + data.draw(st.binary(max_size=8))
    assume(changed != original)
    try:
        path.write_bytes(changed)
        tamperer(shared_copy).seal()
        assert problems_of(shared_copy)
    finally:
        path.write_bytes(original)
        (shared_copy / "manifest.json").write_bytes(manifest)


def test_a_header_that_claims_too_much_is_refused_without_reading_on(tamper: Any) -> None:
    (tamper.directory / WEIGHTS).write_bytes(struct.pack("<Q", 2**62) + b"{}")
    tamper.seal()
    assert "not a readable safetensors file" in problems_of(tamper.directory)


@pytest.mark.parametrize("is_number_edited", [False, True])
def test_a_card_of_other_templates_is_refused_and_told_from_other_numbers(tamper: Any, is_number_edited: bool) -> None:
    tamper.json("evidence/packing.json", lambda facts: facts.update(glideslope="0.0.9", card_templates="0" * 64))
    tamper.json("evidence/claims.json", lambda claims: claims.update({"packing.glideslope": "0.0.9"}))
    card = tamper.directory / "README.md"
    card.write_text(card.read_text().replace("What was removed?", "What is gone?"))
    if is_number_edited:
        tamper.json("evidence/claims.json", lambda claims: claims.update({"ledger.num_seen": 5}))
    problems = check_card(open_evidence(tamper.directory))
    told = "differ" if is_number_edited else "agree"
    assert "packed with other card templates (glideslope 0.0.9, you run 0.1.0)" in problems[0]
    assert f"the numbers {told}; verify with glideslope 0.0.9 for the wording" in problems[0]
    assert len(problems) > 1


@pytest.mark.parametrize("change", [lambda facts: facts.pop("glideslope"), lambda facts: facts.update(format="x"),
                                    lambda facts: facts.update(more="x"),
                                    lambda facts: facts.update(glideslope=1), lambda facts: facts.update(card_templates="x"),
                                    lambda facts: facts.update(glideslope="0.1 --index-url https://x.example"),
                                    lambda facts: facts.update(glideslope="0.1\n## Audited")])
def test_malformed_facts_of_packing_are_refused(tamper: Any, change: Any) -> None:
    tamper.json("evidence/packing.json", change)
    with pytest.raises(ReleaseError, match=r"evidence/packing\.json: is malformed"):
        check_card(open_evidence(tamper.directory))

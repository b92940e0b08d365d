import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from glideslope.errors import ReleaseError
from glideslope.recipe.components import BaseTraining, NoisedClipTraining, UpsamplerTraining, scheduler_config
from glideslope.release.evidence.companions import NO_EVIDENCE, check_companions, companion_claims, find_unproven_companions, gather_companions
from glideslope.release.evidence.contents import open_evidence
from glideslope.release.weights import read_weights
from glideslope.release.weights.writing import Form, write_weights
from glideslope.store.digests import sha256_bytes, sha256_file
from glideslope.store.whole_files import write_bytes, write_json

from ..components import seal, write_components

WEIGHTS = "diffusion_pytorch_model.safetensors"
NAMES = ("upsampler", "base_inpaint", "upsampler_inpaint")
TRAINED = {"base": BaseTraining(num_images=1, learning_rate=1e-3), "noised_clip": NoisedClipTraining(num_images=1, learning_rate=1e-3)}
UPSAMPLER = UpsamplerTraining(num_images=1, learning_rate=1e-3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_components(tmp_path_factory.mktemp("components"), clip_tokenizer=b"tokens")


@pytest.fixture
def source(whole: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "source"))


def test_the_record_has_the_digest_of_every_source_file_and_those_of_the_import(source: Path, tmp_path: Path) -> None:
    record = gather_companions(source, tmp_path / "run/companions", trained=TRAINED, clip_tokenizer_sha256=None)
    assert record.summary["parts"] == [*NAMES, "upsampler_scheduler"]
    expected = {path for name in NAMES for path in (f"{name}/config.json", f"{name}/{WEIGHTS}")}
    assert {entry.path for entry in record.outputs.files} == expected | {"upsampler_scheduler/scheduler_config.json"}
    assert record.inputs == {path: sha256_file(source / path) for path in
                             {*expected, "upsampler_scheduler/scheduler_config.json", "tokenizer/tokenizer.json", "evidence/import.json"}}
    assert record.summary["weights"] == {name: sha256_file(source / name / WEIGHTS) for name in NAMES}
    assert record.summary["sources"] == [{"file": "upsample.pt", "component": "upsampler", "size_bytes": 12, "sha256": "1" * 64}]
    assert all((tmp_path / "run/companions" / path).read_bytes() == (source / path).read_bytes() for path in expected)


def test_gathering_again_is_skipped_and_another_file_is_gathered_anew(source: Path, tmp_path: Path) -> None:
    first = gather_companions(source, tmp_path / "companions", trained=TRAINED, clip_tokenizer_sha256=None)
    assert gather_companions(source, tmp_path / "companions", trained=TRAINED, clip_tokenizer_sha256=None).to_json() == first.to_json()
    shutil.copyfile(source / "base" / WEIGHTS, tmp_path / "other")
    (tmp_path / "other").replace(source / "base_inpaint" / WEIGHTS)
    seal(source)
    second = gather_companions(source, tmp_path / "companions", trained=TRAINED, clip_tokenizer_sha256=None)
    assert second.summary["weights"]["base_inpaint"] == sha256_file(source / "base" / WEIGHTS)
    assert second.digest != first.digest


def test_shards_and_another_order_of_tensors_are_recorded_as_the_one_canonical_file(source: Path, tmp_path: Path) -> None:
    path, stated = source / "upsampler" / WEIGHTS, sha256_file(source / "upsampler" / WEIGHTS)
    for file in write_weights(read_weights(source / "upsampler"), tmp_path / "cut", Form(None, 10**6)):
        file.rename(source / "upsampler" / file.name)
    path.unlink()
    tensors = load_file(source / "base_inpaint" / WEIGHTS)
    save_file(tensors, source / "base_inpaint" / WEIGHTS)
    other = sha256_file(source / "base_inpaint" / WEIGHTS)
    seal(source)
    record = gather_companions(source, tmp_path / "companions", trained=TRAINED, clip_tokenizer_sha256=None)
    assert len([entry for entry in record.outputs.files if entry.path.startswith("upsampler/")]) == 6
    assert record.summary["weights"]["upsampler"] == stated
    assert record.summary["weights"]["base_inpaint"] != other
    save_file(dict(sorted(tensors.items())), tmp_path / "canonical", metadata={"format": "pt"})
    assert record.summary["weights"]["base_inpaint"] == sha256_file(tmp_path / "canonical")


def test_without_links_the_files_are_copied(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    gather_companions(source, tmp_path / "companions", trained=TRAINED, clip_tokenizer_sha256=None)
    assert (tmp_path / "companions/upsampler" / WEIGHTS).stat().st_nlink == 1


def test_a_clip_tokenizer_is_brought_in_only_for_the_noised_clip_that_reads_it(source: Path, tmp_path: Path) -> None:
    own = gather_companions(source, tmp_path / "one", trained=TRAINED, clip_tokenizer_sha256=sha256_bytes(b"tokens"))
    assert own.summary["parts"] == [*NAMES, "clip_tokenizer", "upsampler_scheduler"]
    assert own.summary["left_out"] == {}
    other = gather_companions(source, tmp_path / "two", trained=TRAINED, clip_tokenizer_sha256="0" * 64)
    assert other.summary["left_out"] == {"clip_tokenizer": "the noised CLIP of this run was trained with another tokenizer"}


def cut_weights(source: Path) -> None:
    path = source / "upsampler" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-4])


@pytest.mark.parametrize(("damage", "told"), [
    (shutil.rmtree, "release.companions: .*model_index.json.*import-openai"),
    (lambda s: (s / "model_index.json").write_text("{}"), "release.companions: .*_format"),
    (lambda s: (s / "upsampler" / WEIGHTS).unlink(), "upsampler: holds no diffusion_pytorch_model.safetensors"),
    (lambda s: (s / "upsampler/config.json").unlink(), "holds no upsampler/config.json"),
    (cut_weights, "upsampler.*not a readable safetensors file"),
    (lambda s: (s / "upsampler/config.json").write_text("{}"), "is not the file that manifest.json beside it lists"),
    (lambda s: (s / "manifest.json").write_text("{}"), "release.companions: .*manifest.json"),
    (lambda s: write_json(s / "evidence/import.json", {"sources": [1]}), "import.json is malformed")])
def test_a_damaged_directory_is_refused(source: Path, tmp_path: Path, damage: Callable[[Path], Any], told: str) -> None:
    damage(source)
    with pytest.raises(ReleaseError, match=told):
        gather_companions(source, tmp_path / "companions", trained=TRAINED, clip_tokenizer_sha256=None)
    assert not (tmp_path / "companions").exists()


def test_a_directory_with_nothing_to_bring_in_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="holds none of upsampler, base_inpaint, upsampler_inpaint"):
        gather_companions(write_components(tmp_path / "source", ()), tmp_path / "companions", trained=TRAINED, clip_tokenizer_sha256=None)


def test_what_every_run_trains_is_not_brought_in(source: Path, tmp_path: Path) -> None:
    assert "base" in json.loads((source / "model_index.json").read_text())
    assert "base" not in gather_companions(source, tmp_path / "companions", trained=TRAINED, clip_tokenizer_sha256=None).summary["parts"]


def test_an_upsampler_that_the_run_trains_and_another_that_is_brought_in_are_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="holds upsampler, which this recipe trains itself; remove the key upsampler"):
        gather_companions(source, tmp_path / "companions", trained=TRAINED | {"upsampler": UPSAMPLER}, clip_tokenizer_sha256=None)


def test_beside_a_trained_upsampler_another_for_inpainting_shares_its_schedule(tmp_path: Path) -> None:
    source = write_components(tmp_path / "source", ("upsampler_inpaint",))
    record = gather_companions(source, tmp_path / "companions", trained=TRAINED | {"upsampler": UPSAMPLER}, clip_tokenizer_sha256=None)
    assert record.summary["parts"] == ["upsampler_inpaint"]


@pytest.mark.parametrize(("scheduler", "told"), [
    ("scheduler", "base_inpaint of .* predicts epsilon on the schedule squaredcos_cap_v2, but base, whose scheduler it would share, predicts "
                  "sample on squaredcos_cap_v2; set base.prediction_type to epsilon, or leave"),
    ("upsampler_scheduler", "upsampler_inpaint of .* predicts epsilon on the schedule linear, but upsampler, whose")])
def test_networks_that_predict_something_else_than_their_schedule_says_here_are_refused(tmp_path: Path, scheduler: str, told: str) -> None:
    source = write_components(tmp_path / "source", ("base_inpaint", "upsampler_inpaint"))
    write_json(source / scheduler / "scheduler_config.json", scheduler_config(scheduler))
    with pytest.raises(ReleaseError, match=told):
        gather_companions(source, tmp_path / "companions", trained=TRAINED | {"upsampler": UPSAMPLER}, clip_tokenizer_sha256=None)
    (source / scheduler / "scheduler_config.json").write_text("{}")
    with pytest.raises(ReleaseError, match=r"scheduler_config.json: got .*import the directory again"):
        gather_companions(source, tmp_path / "companions", trained=TRAINED | {"upsampler": UPSAMPLER}, clip_tokenizer_sha256=None)


def test_the_claims_say_plainly_that_nothing_is_known_of_their_data(full_release: Path) -> None:
    claims = companion_claims(open_evidence(full_release))
    assert claims["companions"] == ["upsampler", "base_inpaint", "upsampler_inpaint"]
    told = claims["companions.upsampler"]
    assert told["evidence"] == NO_EVIDENCE
    assert told["has_same_tokenizer"] is False
    assert told["sources"][0]["sha256"] == "1" * 64
    assert len(told["digest"]) == 64
    assert told["num_parameters"] > 900_000
    stated = json.loads((full_release / "evidence/claims.json").read_text())
    assert {name: value for name, value in stated.items() if name.startswith("companions")} == claims


def test_a_check_finds_every_network_without_evidence(full_release: Path, packed_run: Path) -> None:
    assert [line.split(":")[0] for line in find_unproven_companions(open_evidence(full_release))] == list(NAMES)
    assert all("release.companions" in line for line in find_unproven_companions(open_evidence(full_release)))
    assert find_unproven_companions(open_evidence(packed_run / "release")) == []


@pytest.mark.parametrize(("change", "told"), [
    (lambda r: r["inputs"].update({"upsampler/config.json": "0" * 64}), "upsampler/config.json has the digest"),
    (lambda r: r["summary"]["weights"].pop("upsampler"), "states weights of")])
def test_a_record_that_does_not_fit_itself_is_named(full_tamper: Any, change: Callable[[Any], Any], told: str) -> None:
    full_tamper.record("companions", change)
    assert told in "\n".join(check_companions(open_evidence(full_tamper.directory)))


def test_a_record_of_companions_that_the_recipe_does_not_name_is_named(full_tamper: Any) -> None:
    full_tamper.text("evidence/recipe.yaml", "companions: components", "companions: null")
    assert "does not name a directory of companions" in check_companions(open_evidence(full_tamper.directory))[0]


def test_parts_that_nobody_knows_are_refused(full_tamper: Any) -> None:
    full_tamper.record("companions", lambda r: r["summary"]["parts"].append("../outside"))
    with pytest.raises(ReleaseError, match="parts are"):
        _ = open_evidence(full_tamper.directory).networks


def test_other_bytes_under_a_fitting_manifest_are_named(full_tamper: Any) -> None:
    from ..test_verify import problems_of

    write_bytes(full_tamper.directory / "upsampler_scheduler/scheduler_config.json",
                (full_tamper.directory / "scheduler/scheduler_config.json").read_bytes())
    full_tamper.seal()
    assert "upsampler_scheduler/scheduler_config.json: is not the" in problems_of(full_tamper.directory)

"""A release with every network, sharded and with variants: what lies in it, how it loads, and what is noticed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from glideslope import GlidePipeline
from glideslope.errors import ReleaseError
from glideslope.recipe.recipe import Recipe
from glideslope.release import pack, verify
from glideslope.release.evidence.contents import open_evidence
from glideslope.release.vetting.gates.gate import run_check
from glideslope.release.vetting.table import CHECKS
from glideslope.release.weights.architecture import weight_paths
from glideslope.release.weights.writing import Form, write_weights
from glideslope.store.records import Record, read_record, run_stage
from glideslope.store.whole_files import write_json

from .test_verify import problems_of

NETWORKS = ("base", "noised_clip", "upsampler", "base_inpaint", "upsampler_inpaint")
STEM = "diffusion_pytorch_model"
WEIGHT_CHECKS = ("manifest", "files", "tensors", "weight files", "finite weights", "variants", "copied files", "origin of the weights",
                 "companions")


def find(directory: Path, *names: str) -> list[str]:
    """What some of the checks of `verify` find; all of them take long on so many files."""
    release = open_evidence(directory)
    return list(dict.fromkeys(problem for name in names for problem in run_check(name, CHECKS[name], release)))


def test_a_release_of_every_network_verifies(full_release: Path) -> None:
    report = verify(full_release)
    manifest = json.loads((full_release / "manifest.json").read_text())
    listed = {(entry["component"], entry["variant"]) for entry in manifest["tensors"]}
    assert listed == {(name, variant) for name in NETWORKS for variant in (None, "fp16", "bf16")}
    assert report.checked["tensors"] == len(manifest["tensors"])


def test_its_files_are_named_as_diffusers_names_them(full_release: Path) -> None:
    names = {path.name for path in (full_release / "upsampler").iterdir()}
    assert {f"{STEM}-00001-of-00004.safetensors", f"{STEM}.safetensors.index.json", f"{STEM}.fp16-00002-of-00002.safetensors",
            f"{STEM}.safetensors.index.fp16.json", f"{STEM}.bf16-00001-of-00002.safetensors", "config.json"} <= names
    assert {path.name for path in (full_release / "noised_clip").iterdir()} == {
        "config.json", f"{STEM}.safetensors", f"{STEM}.fp16.safetensors", f"{STEM}.bf16.safetensors"}
    index = json.loads((full_release / "model_index.json").read_text())
    assert [name for name in index if not name.startswith("_")] == sorted((*NETWORKS, "tokenizer", "scheduler", "upsampler_scheduler"))


def test_nothing_of_the_packers_paths_is_in_it(full_release: Path, full_recipe: Recipe) -> None:
    assert "companions: components\n" in (full_release / "evidence/recipe.yaml").read_text()
    assert full_recipe.release.companions is not None
    held = [path for path in full_release.rglob("*") if path.is_file() and full_recipe.release.companions.encode() in path.read_bytes()]
    assert held == []


@pytest.mark.parametrize("variant", [None, "fp16", "bf16"])
def test_every_variant_loads_with_the_values_of_the_run(full_run: Path, full_release: Path, variant: str | None) -> None:
    pipe = GlidePipeline.from_pretrained(full_release, variant=variant, device="cpu", verify="required")
    trained = load_file(full_run / "training/base/ema.safetensors")
    dtype = {None: torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[variant]
    for name, tensor in pipe.networks.base.state_dict().items():
        assert torch.equal(tensor, trained[name].to(dtype))
    assert set(pipe.networks.companions) == {"upsampler", "base_inpaint", "upsampler_inpaint"}


def test_packing_again_elsewhere_gives_the_same_bytes(full_run: Path, full_release: Path, full_recipe: Recipe, tmp_path: Path) -> None:
    other = Path(shutil.copytree(full_run.parent, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("release*", "companions", "golden")))
    recipe = full_recipe.model_copy(update={"release": full_recipe.release.model_copy(update={"companions": str(other / "components")})})
    record = pack(other / "run", recipe, tmp_path / "again")
    assert (tmp_path / "again/manifest.json").read_bytes() == (full_release / "manifest.json").read_bytes()
    assert record.summary["manifest_root"] == json.loads((full_release / "manifest.json").read_text())["root"]


def test_weights_that_fp16_cannot_hold_stop_the_packing(run_dir: Path, recipe: Recipe) -> None:
    enlarge(run_dir / "training/base", "ema.safetensors", 1e5)
    asked = recipe.model_copy(update={"release": recipe.release.model_copy(update={"variants": ("fp16",), "golden_prompts": 0})})
    with pytest.raises(ReleaseError, match=r"base: tensor .* holds values beyond 65504"):
        pack(run_dir, asked, run_dir / "release")
    assert not (run_dir / "release").exists()


def enlarge(directory: Path, name: str, value: float) -> Record:
    """Make one value of a finished stage's weights large, as training gone wrong might."""
    record, tensors = read_record(directory), load_file(directory / name)
    next(iter(tensors.values())).view(-1)[0] = value
    kept = {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != "record.json"}

    def work(partial: Path) -> dict[str, Any]:
        for path, data in kept.items():
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            (partial / path).write_bytes(data)
        save_file(dict(sorted(tensors.items())), partial / name, metadata={"format": "pt"})
        return dict(record.summary)

    return run_stage(directory, stage=record.stage, config=dict(record.config) | {"again": 1}, inputs=record.inputs, work=work)


def change_bit(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("variant", ["fp16", "bf16"])
def test_a_changed_bit_in_a_variant_is_named_though_the_manifest_fits(full_tamper: Any, variant: str) -> None:
    change_bit(full_tamper.directory / f"upsampler/{STEM}.{variant}-00002-of-00002.safetensors", -1)
    full_tamper.seal()
    found = find(full_tamper.directory, *WEIGHT_CHECKS)
    assert found == [f"upsampler {variant}: tensor transformer_proj.weight is not the cast of the full one (first at value 8191); "
                     "pack the release again"]


def test_a_changed_bit_in_a_shard_is_named_though_the_manifest_fits(full_tamper: Any) -> None:
    change_bit(full_tamper.directory / f"base/{STEM}-00003-of-00004.safetensors", -1)
    full_tamper.seal()
    found = "\n".join(find(full_tamper.directory, *WEIGHT_CHECKS))
    assert "base: the weights have the digest" in found
    assert "base fp16: tensor" in found


def test_weights_of_a_companion_that_were_exchanged_are_named(full_tamper: Any) -> None:
    for path in (full_tamper.directory / "base_inpaint").iterdir():
        path.write_bytes((full_tamper.directory / "upsampler" / path.name).read_bytes())
    full_tamper.seal()
    found = "\n".join(find(full_tamper.directory, *WEIGHT_CHECKS))
    assert "base_inpaint: super_res is True and inpaint is False, expected False and True" in found
    assert "base_inpaint: the weights have the digest" in found
    assert "base_inpaint/config.json: is not the base_inpaint/config.json that stage companions recorded" in found


def recut(directory: Path) -> None:
    weights = open_evidence(directory).weights("base")
    write_weights(weights, directory / "new", Form(None, 10**9))
    for file in (*weights.files, directory / f"base/{STEM}.safetensors.index.json"):
        file.unlink()
    (directory / f"new/{STEM}.safetensors").rename(directory / f"base/{STEM}.safetensors")
    (directory / "new").rmdir()


def drop_variant(directory: Path) -> None:
    for path in directory.glob(f"*/{STEM}.bf16*"):
        path.unlink()


@pytest.mark.parametrize(("change", "told"), [
    (recut, f"base: lies in {STEM}.safetensors, the recipe cuts it into {STEM}-00001-of-00004.safetensors"),
    (drop_variant, f"base: shard {STEM}.bf16-00001-of-00002.safetensors is missing"),
    (lambda d: (d / f"base/{STEM}-00002-of-00004.safetensors").unlink(), f"base: shard {STEM}-00002-of-00004.safetensors is missing"),
    (lambda d: (d / f"base/{STEM}.safetensors.index.json").unlink(), f"but no {STEM}.safetensors.index.json"),
    (lambda d: shutil.copyfile(d / f"noised_clip/{STEM}.safetensors", d / f"base/{STEM}.safetensors"), "one of them is too many"),
    (lambda d: shutil.rmtree(d / "upsampler_inpaint"), "upsampler_inpaint: no such directory"),
    (lambda d: shutil.copytree(d / "upsampler", d / "sampler"), "sampler/config.json: no such file belongs in a release")])
def test_files_that_are_cut_otherwise_missing_or_too_many_are_named(full_tamper: Any, change: Callable[[Path], Any], told: str) -> None:
    change(full_tamper.directory)
    full_tamper.seal()
    assert told in "\n".join(find(full_tamper.directory, *WEIGHT_CHECKS))


def test_an_index_in_another_form_is_named(full_tamper: Any) -> None:
    path = full_tamper.directory / f"base/{STEM}.safetensors.index.json"
    index = json.loads(path.read_text())
    first, last = f"{STEM}-00001-of-00004.safetensors", f"{STEM}-00004-of-00004.safetensors"
    index["weight_map"] = {name: {first: last, last: first}.get(file, file) for name, file in index["weight_map"].items()}
    write_json(path, index)
    full_tamper.seal()
    assert f"base/{first}: holds the tensor" in find(full_tamper.directory, "files")[0]
    index["weight_map"] = {name: "../outside.safetensors" for name in index["weight_map"]}
    write_json(path, index)
    full_tamper.seal()
    assert "which is no shard of these weights" in problems_of(full_tamper.directory)


def test_a_variant_that_the_recipe_does_not_name_is_a_stranger(tamper: Any) -> None:
    weights = open_evidence(tamper.directory).weights("base")
    write_weights(weights, tamper.directory / "base", Form("fp16", 10**9))
    tamper.seal()
    assert f"base/{STEM}.fp16.safetensors: no stage of this release writes such a file" in problems_of(tamper.directory)


def test_the_paths_of_weights_follow_from_tensors_and_recipe(full_release: Path) -> None:
    release = open_evidence(full_release)
    there = {path.relative_to(full_release).as_posix() for path in full_release.rglob(f"{STEM}*")}
    assert weight_paths(release) == there


@pytest.mark.parametrize("name", ["tokenizer", "clip_tokenizer"])
def test_a_hostile_tokenizer_is_found_by_verify_whichever_network_reads_it(full_tamper: Any, name: str) -> None:
    directory = full_tamper.directory
    (directory / name).mkdir(exist_ok=True)
    value = json.loads((directory / "tokenizer/tokenizer.json").read_text())
    write_json(directory / name / "tokenizer.json", value)
    assert find(directory, "tensors") == []
    write_json(directory / name / "tokenizer.json", value | {"normalizer": {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}})
    problem, = find(directory, "tensors")
    assert f"{name}/tokenizer.json: not a tokenizer.json of a kind that is known: normalizer" in problem

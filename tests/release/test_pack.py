import json
from importlib import import_module
from pathlib import Path

import pytest

from glideslope.errors import GlideslopeError, StageError
from glideslope.recipe.components import model_index
from glideslope.recipe.recipe import Recipe
from glideslope.release import pack
from glideslope.release.evidence.texts import license_text
from glideslope.store.records import read_record
from glideslope.store.stage_manifest import Manifest
from glideslope.store.whole_files import write_bytes


def test_packing_twice_gives_the_same_bytes(run_dir: Path, recipe: Recipe, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "elsewhere" / "second"
    second.parent.mkdir()
    pack(run_dir, recipe, first)
    pack(run_dir, recipe, second)
    assert Manifest.of_directory(first, exclude=()) == Manifest.of_directory(second, exclude=())


def test_a_release_holds_only_what_is_published_and_its_record_lies_beside_it(run_dir: Path, recipe: Recipe) -> None:
    record = pack(run_dir, recipe, run_dir / "release")
    manifest = json.loads((run_dir / "release/manifest.json").read_text())
    listed = {entry["path"] for entry in manifest["files"]} | {"manifest.json"}
    assert listed == {path.relative_to(run_dir / "release").as_posix() for path in (run_dir / "release").rglob("*") if path.is_file()}
    assert not {path for path in listed if "intent" in path or path.endswith(("record.json", ".pt", ".bin"))}
    assert json.loads((run_dir / "release.record.json").read_text())["digest"] == record.digest
    assert record.summary["manifest_root"] == manifest["root"]


def test_packing_again_is_skipped_and_a_changed_release_is_noticed(run_dir: Path, recipe: Recipe) -> None:
    first = pack(run_dir, recipe, run_dir / "release")
    assert pack(run_dir, recipe, run_dir / "release").to_json() == first.to_json()
    write_bytes(run_dir / "release/README.md", b"something else")
    with pytest.raises(StageError, match=r"README\.md"):
        pack(run_dir, recipe, run_dir / "release")


def test_another_version_of_glideslope_packs_anew(run_dir: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pack(run_dir, recipe, run_dir / "release")
    monkeypatch.setattr(import_module("glideslope.release.pack"), "__version__", "999.0")
    again = pack(run_dir, recipe, run_dir / "release")
    assert again.config["glideslope"] == "999.0" != first.config["glideslope"]
    assert again.digest != first.digest


def test_a_killed_pack_leaves_nothing_behind_in_the_next_one(run_dir: Path, recipe: Recipe) -> None:
    expected = pack(run_dir, recipe, run_dir / "other").summary["manifest_root"]
    write_bytes(run_dir / "release.partial/left.over", b"from a killed run")
    assert pack(run_dir, recipe, run_dir / "release").summary["manifest_root"] == expected


def test_weights_are_the_averaged_ones(run_dir: Path, packed_run: Path) -> None:
    released = packed_run / "release/base/diffusion_pytorch_model.safetensors"
    assert released.read_bytes() == (run_dir / "training/base/ema.safetensors").read_bytes()


@pytest.mark.parametrize("stage", ["index", "labels", "filters/violence", "curated", "training/noised_clip", "evaluation"])
def test_packing_without_a_stage_names_it(run_dir: Path, recipe: Recipe, stage: str) -> None:
    (run_dir / stage / "record.json").unlink()
    with pytest.raises(StageError, match=stage):
        pack(run_dir, recipe, run_dir / "release")
    assert not (run_dir / "release").exists()


def test_packing_a_stage_that_was_changed_is_refused(run_dir: Path, recipe: Recipe) -> None:
    write_bytes(run_dir / "curated/curated.json", b"{}")
    with pytest.raises(StageError, match=r"curated\.json"):
        pack(run_dir, recipe, run_dir / "release")


@pytest.mark.parametrize(("metadata", "told"), [({"format": "np"}, "not canonical"), ({"who": "me", "format": "pt"}, "metadata is")])
def test_weights_that_are_not_canonical_are_refused(run_dir: Path, recipe: Recipe, metadata: dict[str, str], told: str) -> None:
    from safetensors.torch import load_file, save_file

    from glideslope.store.records import Record, run_stage

    path = run_dir / "training/noised_clip/model.safetensors"
    tensors = load_file(path)
    record = read_record(run_dir / "training/noised_clip")
    kept = {file.name: file.read_bytes() for file in (run_dir / "training/noised_clip").iterdir() if file.name != "record.json"}

    def work(directory: Path) -> dict[str, object]:
        for name, data in kept.items():
            write_bytes(directory / name, data)
        save_file(tensors, directory / path.name, metadata=metadata)
        return dict(record.summary)

    again: Record = run_stage(run_dir / "training/noised_clip", stage=record.stage, config={**record.config, "again": 1},
                              inputs=record.inputs, work=work)
    assert again.digest != record.digest
    with pytest.raises(GlideslopeError, match=told):
        pack(run_dir, recipe, run_dir / "release")


def test_the_pipeline_description_lists_components_of_glideslope(packed_run: Path) -> None:
    assert json.loads((packed_run / "release/model_index.json").read_text()) == model_index(["base", "noised_clip", "tokenizer", "scheduler"])


def test_the_licence_has_its_text_and_the_credit_of_the_data(recipe: Recipe) -> None:
    text = license_text(recipe)
    assert "Apache License" in text
    assert recipe.release.data_attribution in text
    other = recipe.model_copy(update={"release": recipe.release.model_copy(update={"license": "mit-0"})})
    assert "https://spdx.org/licenses/mit-0.html" in license_text(other)

"""How far a run has come is read from its records alone."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from glideslope.data_filter.sources.kinds import read_source
from glideslope.recipe.load import parse_recipe
from glideslope.recipe.recipe import Recipe
from glideslope.recipe.stage_settings import expected_settings
from glideslope.run import Run, Silent, list_stages
from glideslope.run_status import StageStatus, State
from glideslope.store.records import Record, run_stage
from glideslope.store.stage_places import record_beside
from glideslope.store.whole_files import write_bytes, write_json

READ_BY = {"clip": ["index"], "classifiers": ["index", "labels"], "scores": ["index", "classifiers/person"],
           "filters": ["index", "labels", "classifiers/person", "scores/person"], "curated": ["index", "labels", "filters/person"],
           "training": ["curated"], "evaluation": ["curated", "training/base"], "release": ["filters/person", "curated", "evaluation"]}
FOUND: dict[str, dict[str, Any]] = {
    "index": {"num_ok": 4000, "num_inputs": 4460}, "labels": {"counts": {"person": {"train": {"num_positive": 900, "num_negative": 100}}}},
    "classifiers": {"kind": "rbf_svm", "num_train_labels": 900}, "scores": {"num_scored": 4000},
    "filters": {"recall": 0.997, "recall_lower_bound": 0.986}, "curated": {"kept": 1509, "seen": 4460},
    "training": {"num_images_seen": 12_000, "final_loss": 0.1234}, "evaluation": {"num_wins": 43, "num_pairs": 64},
    "release": {"num_files": 62, "size_bytes": 4_400_000}}


@pytest.fixture
def recipe(plain_recipe: dict[str, Any]) -> Recipe:
    return parse_recipe(plain_recipe, read_source, where="recipe")


@pytest.fixture
def run_dir(tmp_path: Path, recipe: Recipe) -> Path:
    """A run whose stages are all done, as far as records tell."""
    records: dict[str, Record] = {}
    expected = expected_settings(recipe)
    for _, stage in list_stages(recipe):
        kind = stage.split("/")[0]
        inputs = {name: records[name].digest for name in READ_BY.get(kind, [])}
        if stage == "training/noised_clip":
            inputs["tokenizer"] = "a" * 64
        config = {"recipe": {"release": recipe.release.model_dump(mode="json")}} if stage == "release" else expected.get(stage, {})
        records[stage] = run_stage(tmp_path / stage, stage=stage, config=config, inputs=inputs,
                                   work=lambda partial, kind=kind: write_bytes(partial / "file", b"x") or FOUND.get(kind, {}),
                                   record_path=record_beside(tmp_path / stage) if stage == "release" else None)
    return tmp_path


def status(run_dir: Path, recipe: Recipe) -> dict[str, StageStatus]:
    return {one.stage: one for one in Run(recipe, run_dir, Silent()).status()}


def changed(plain: dict[str, Any], part: str, key: str, value: object) -> Recipe:
    (plain["categories"][0] if part == "category" else plain.setdefault(part, {}))[key] = value
    return parse_recipe(plain, read_source, where="recipe")


def test_of_a_run_that_never_began_every_stage_is_missing_and_nothing_is_written(tmp_path: Path, recipe: Recipe) -> None:
    stages = Run(recipe, tmp_path / "none", Silent()).status()
    assert [one.stage for one in stages] == ["index", "clip", "labels", "classifiers/person", "scores/person", "filters/person", "curated",
                                             "training/base", "training/noised_clip", "evaluation", "release"]
    assert {one.state for one in stages} == {State.MISSING}
    assert not (tmp_path / "none").exists()


def test_finished_stages_say_when_how_long_and_what_they_found(run_dir: Path, recipe: Recipe) -> None:
    found = status(run_dir, recipe)
    assert {one.state for one in found.values()} == {State.DONE}
    assert all(one.finished is not None and one.seconds is not None and one.why == "" for one in found.values())
    assert {stage: one.figures for stage, one in found.items() if one.figures} == {
        "index": "4,000 of 4,460 images embedded", "labels": "1,000 of person", "classifiers/person": "rbf_svm, 900 labels",
        "scores/person": "4,000 scored", "filters/person": "recall 99.7 %, at least 98.6 %", "curated": "1,509 of 4,460 kept",
        "training/base": "12,000 images seen, loss 0.123", "training/noised_clip": "12,000 images seen, loss 0.123",
        "evaluation": "43 of 64 captions count", "release": "62 files, 4.4 MB"}
    assert found["index"].to_json() == {"stage": "index", "command": "index", "state": "done", "why": "", "seconds": found["index"].seconds,
                                        "finished": found["index"].finished.isoformat(), "figures": "4,000 of 4,460 images embedded"}


@pytest.mark.parametrize(("part", "key", "value", "stale"), [
    ("category", "max_train_labels", 7, ["classifiers/person", "scores/person", "filters/person", "curated", "training/base",
                                         "training/noised_clip", "evaluation", "release"]),
    ("category", "target_recall", 0.9, ["filters/person", "curated", "training/base", "training/noised_clip", "evaluation", "release"]),
    ("base", "num_images", 99, ["training/base", "training/noised_clip", "evaluation", "release"]),
    ("noised_clip", "num_images", 99, ["training/noised_clip"]),
    ("evaluate", "num_pairs", 9, ["evaluation", "release"]), ("release", "title", "Another", ["release"]),
    ("base", "checkpoint_images", 7, []), ("release", "companions", "elsewhere", [])])
def test_an_edited_recipe_makes_stale_what_depends_on_it_and_nothing_else(
        run_dir: Path, plain_recipe: dict[str, Any], part: str, key: str, value: object, stale: list[str]) -> None:
    found = status(run_dir, changed(plain_recipe, part, key, value))
    assert [stage for stage, one in found.items() if one.state is not State.DONE] == stale
    if stale:
        assert f"{key} " in found[stale[0]].why and "the recipe says" in found[stale[0]].why
        assert found[stale[0]].state is State.STALE and found[stale[0]].figures == status(run_dir, parse_recipe(
            plain_recipe, read_source, where="recipe"))[stale[0]].figures


def test_a_stage_that_read_another_record_is_stale_and_says_which(run_dir: Path, recipe: Recipe) -> None:
    run_stage(run_dir / "labels", stage="labels", config=expected_settings(recipe)["labels"], inputs={}, work=lambda partial: FOUND["labels"] |
              {"num_labels": 3})
    assert status(run_dir, recipe)["labels"].state is State.DONE, "skipped: same settings and inputs"
    shutil.rmtree(run_dir / "labels")
    run_stage(run_dir / "labels", stage="labels", config=expected_settings(recipe)["labels"], inputs={}, work=lambda partial: {"num_labels": 3})
    found = status(run_dir, recipe)
    assert found["index"].state is found["labels"].state is State.DONE
    assert found["classifiers/person"].why == "labels changed since"
    assert found["scores/person"].why == "reads classifiers/person, which is stale"


def test_a_stopped_stage_says_where_it_goes_on(run_dir: Path, recipe: Recipe) -> None:
    shutil.rmtree(run_dir / "training/base")
    shutil.rmtree(run_dir / "evaluation")
    for step in (400, 12_800):
        (run_dir / f"training/base.partial/checkpoints/step-{step:08d}").mkdir(parents=True)
    write_bytes(run_dir / "evaluation.partial/0.png", b"x")
    found = status(run_dir, recipe)
    assert (found["training/base"].state, found["training/base"].why) == (State.STOPPED, "goes on from step 12,800")
    assert (found["evaluation"].state, found["evaluation"].why) == (State.STOPPED, "goes on where it was stopped")
    write_json(run_dir / "evaluation.partial/intent.json", {})
    (run_dir / "evaluation.partial/0.png").unlink()
    assert status(run_dir, recipe)["evaluation"].state is State.MISSING, "nothing was done yet"


def test_a_record_that_was_edited_is_damaged_and_does_not_hide_the_others(run_dir: Path, recipe: Recipe) -> None:
    path = run_dir / "filters/person/record.json"
    path.write_text(path.read_text().replace("0.997", "1.000"))
    found = status(run_dir, recipe)
    assert found["filters/person"].state is State.DAMAGED
    assert "the record was edited; remove the directory" in found["filters/person"].why
    assert found["scores/person"].state is State.DONE and found["curated"].why == "reads filters/person, which is damaged"
    path.write_text("{")
    assert status(run_dir, recipe)["filters/person"].state is State.DAMAGED


def test_figures_of_another_version_are_left_out(run_dir: Path, recipe: Recipe) -> None:
    shutil.rmtree(run_dir / "index")
    run_stage(run_dir / "index", stage="index", config=expected_settings(recipe)["index"], inputs={}, work=lambda partial: {"num_rows": 3})
    assert (status(run_dir, recipe)["index"].state, status(run_dir, recipe)["index"].figures) == (State.DONE, "")


def test_where_captions_are_optional_a_run_ends_with_the_curated_set(tmp_path: Path, plain_recipe: dict[str, Any]) -> None:
    found = status(tmp_path, changed(plain_recipe, "curate", "captions", "optional"))
    assert list(found) == ["index", "labels", "classifiers/person", "scores/person", "filters/person", "curated"]

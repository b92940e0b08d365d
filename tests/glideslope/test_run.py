import importlib
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from glideslope import run as recipe_module
from glideslope.cli.starter import starter_recipe
from glideslope.data_filter.audits.population import AuditRequest
from glideslope.data_filter.sources.kinds import look_at, read_source
from glideslope.errors import LabelError, RecipeError, ReleaseError, SourceError, StageError, StorageError
from glideslope.recipe.load import load_recipe, parse_recipe
from glideslope.recipe.policy import load_policy
from glideslope.recipe.recipe import Recipe
from glideslope.recipe.stage_settings import expected_settings
from glideslope.run import Engine, Run, Silent, find_recipe, open_run
from glideslope.store.records import read_record, run_stage
from glideslope.store.whole_files import write_bytes, write_json

from ..data_filter.conftest import TinyClip, fill_folder, tiny_clip, write_labels

__all__ = ["tiny_clip"]  # a fixture


def beside_its_policy(recipe: Recipe, directory: Path) -> Recipe:
    return recipe.model_copy(update={"policy": str(directory / "policy.yaml")})


def test_a_run_has_its_own_directory_with_the_resolved_recipe_and_its_policy(recipe_file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(recipe_file, read_source)
    with open_run(recipe, tmp_path / "runs") as run:
        assert run.directory == tmp_path / "runs" / "small"
        assert load_recipe(run.directory / "recipe.yaml", read_source) == beside_its_policy(recipe, run.directory)
        assert load_policy(run.directory / "policy.yaml") == load_policy(None)
        assert isinstance(run.reporter, Silent)


def test_a_second_run_in_the_same_process_is_refused_until_the_first_is_closed(recipe_file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(recipe_file, read_source)
    with (open_run(recipe, tmp_path), pytest.raises(StageError, match="another glideslope process is working on this run; wait for it"),
          open_run(recipe, tmp_path)):
        pytest.fail("the run was opened twice")
    with open_run(recipe, tmp_path):
        pass


def test_parts_of_a_stage_share_a_run_with_each_other_and_with_nobody_else(recipe_file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(recipe_file, read_source)
    with open_run(recipe, tmp_path, is_part=True), open_run(recipe, tmp_path, is_part=True, engine=Engine("ray", 3)) as run:
        assert run.engine == Engine("ray", 3)
        with pytest.raises(StageError, match="another glideslope process is working on this run"), open_run(recipe, tmp_path):
            pytest.fail("a whole stage was opened beside its parts")
    with (open_run(recipe, tmp_path), pytest.raises(StageError, match="another glideslope process is working on this run"),
          open_run(recipe, tmp_path, is_part=True)):
        pytest.fail("a part was opened beside a whole stage")


def test_a_second_process_on_the_same_run_is_refused_and_a_killed_one_leaves_no_lock(recipe_file: Path, tmp_path: Path) -> None:
    program = ("import sys, time; from pathlib import Path; from glideslope.run import find_recipe, open_run\n"
               "with open_run(find_recipe(sys.argv[1]), Path(sys.argv[2])): print('open', flush=True); time.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", program, str(recipe_file), str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "open\n"
            with pytest.raises(StageError, match="another glideslope process"), open_run(load_recipe(recipe_file, read_source), tmp_path):
                pytest.fail("the run was opened twice")
        finally:
            holder.kill()
    for _ in range(50):
        try:
            with open_run(load_recipe(recipe_file, read_source), tmp_path):
                return
        except StageError:
            time.sleep(0.1)
    pytest.fail("the lock outlived its process")


def test_a_runs_directory_that_cannot_be_made_is_one_clear_error(recipe_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (pytest.raises(StorageError, match=r"cannot write .*file/small: Not a directory"),
          open_run(load_recipe(recipe_file, read_source), tmp_path / "file")):
        pytest.fail("the run was opened")


def test_a_recipe_is_found_by_path_or_by_ready_made_name(recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_recipe(str(recipe_file)) == load_recipe(recipe_file, read_source)
    assert find_recipe("openmoji-demo").name == "openmoji-demo"
    with pytest.raises(RecipeError, match=r"recipe 'openmojis': no such file, and no ready-made recipe .*\(there are .*openmoji-demo"):
        find_recipe("openmojis")
    with pytest.raises(RecipeError, match=r"missing\.yaml: No such file"):
        find_recipe("missing.yaml")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain").write_text(recipe_file.read_text())
    assert find_recipe("plain").name == "small"


def run_in(directory: Path, plain: dict[str, Any]) -> Run:
    return Run(parse_recipe(plain, read_source, where="recipe"), directory, Silent())


def test_models_that_do_not_fit_together_are_refused_before_anything_is_read(tmp_path: Path, plain_recipe: dict[str, Any]) -> None:
    plain_recipe["noised_clip"]["preset"] = "noised-clip-micro-16"
    run = run_in(tmp_path / "run", plain_recipe)
    for start in (run.all, run.train):
        with pytest.raises(RecipeError, match=r"noised_clip\.preset: 'noised-clip-micro-16' reads 16x16"):
            start()
    assert not (tmp_path / "run").exists()


def test_the_time_of_a_run_is_told_from_a_measurement_without_the_stages_that_are_done(tmp_path: Path, plain_recipe: dict[str, Any]) -> None:
    plain_recipe["base"] |= {"preset": "glide-micro-16", "num_images": 100_000, "batch_size": 4}
    plain_recipe["noised_clip"] |= {"preset": "noised-clip-micro-16", "num_images": 40, "batch_size": 4}
    run = run_in(tmp_path, plain_recipe)
    found = run.estimate()
    assert found.keys() >= {"training/base", "training/noised_clip", "evaluation"}
    assert min(found.values()) > 0
    assert found["training/base"] > 100 * found["training/noised_clip"]
    for stage in found:
        finish(run, stage)
    assert run.estimate() == {}
    plain_recipe["evaluate"] = {"num_pairs": 8}
    assert run_in(tmp_path, plain_recipe).estimate().keys() == {"evaluation"}
    plain_recipe["base"]["checkpoint_images"] = 77
    assert run_in(tmp_path, plain_recipe).estimate().keys() == {"evaluation"}
    plain_recipe["base"]["num_images"] = 200
    again = run_in(tmp_path, plain_recipe).estimate()
    assert again.keys() == {"training/base", "training/noised_clip", "evaluation"}


def test_enlarging_is_a_part_of_the_time_of_an_evaluation(tmp_path: Path, plain_recipe: dict[str, Any]) -> None:
    plain_recipe["base"] |= {"preset": "glide-micro-16", "num_images": 40, "batch_size": 4}
    plain_recipe["noised_clip"] |= {"preset": "noised-clip-micro-16", "num_images": 40, "batch_size": 4}
    plain_recipe["evaluate"] = {"num_pairs": 4, "num_steps": 2}
    small = run_in(tmp_path, plain_recipe).estimate()["evaluation"]
    plain_recipe["upsampler"] = {"preset": "glide-upsampler-micro-32", "low_res_size": 16, "num_images": 40, "batch_size": 4,
                                 "learning_rate": 1e-3}
    found = run_in(tmp_path, plain_recipe).estimate()
    assert found["training/upsampler"] > 0 and found["evaluation"] > 10 * small  # 68 pictures of 8 steps beside 4 of 4 passes


def test_what_a_stopped_training_has_seen_is_no_part_of_the_time(tmp_path: Path, plain_recipe: dict[str, Any]) -> None:
    plain_recipe["base"] |= {"preset": "glide-micro-16", "num_images": 1_000_000, "batch_size": 4}
    plain_recipe["noised_clip"] |= {"preset": "noised-clip-micro-16", "num_images": 40, "batch_size": 4}
    run = run_in(tmp_path, plain_recipe)
    whole = run.estimate()["training/base"]
    (tmp_path / "training/base.partial/checkpoints/step-00247500").mkdir(parents=True)
    assert run.estimate()["training/base"] > whole / 5, "nothing says with which settings it was begun"
    write_json(tmp_path / "training/base.partial/intent.json",
               {"stage": "training/base", "config": expected_settings(run.recipe)["training/base"], "inputs": {}})
    assert run.estimate()["training/base"] < whole / 5


def finish(run: Run, stage: str) -> None:
    """A finished stage of a run, as far as its record tells."""
    inputs = {"tokenizer": "a" * 64} if stage == "training/noised_clip" else {}
    if stage == "evaluation":
        inputs = {"training/base": read_record(run.directory / "training/base").digest}
    run_stage(run.directory / stage, stage=stage, config=expected_settings(run.recipe).get(stage, {}), inputs=inputs, work=lambda partial: {})


def test_a_run_stops_before_training_where_the_filters_show_too_little(tmp_path: Path, plain_recipe: dict[str, Any]) -> None:
    run = run_in(tmp_path, plain_recipe)
    figures = {"recall": 0.88, "recall_lower_bound": 0.85, "kept_share": 0.9}
    write_json(tmp_path / "filters/person/filter.json", {"test": figures})
    with pytest.raises(ReleaseError, match=r"would not be let out: filter person: recall on test labels is 0.8800, the policy asks for "
                                           r"at least 0.9000; label more .* To train all the same"):
        run.check_filters()
    write_json(tmp_path / "filters/person/filter.json", {"test": figures | {"recall": 1.0}})
    run_in(tmp_path, plain_recipe).check_filters()


def test_a_source_without_labels_asks_for_them(tmp_path: Path, plain_recipe: dict[str, Any]) -> None:
    with pytest.raises(LabelError, match=r"no labels yet, .*; import them with `glideslope label RECIPE --import FILE\.csv`"):
        run_in(tmp_path, plain_recipe).label()


@pytest.mark.parametrize(("part", "setting", "value", "told"), [
    ("release", "license", "wtfpl", "release.license is 'wtfpl', the policy accepts Apache-2.0"),
    ("release", "golden_prompts", 0, "release.golden_prompts is 0, the policy asks for at least 1"),
    ("release", "companions", "nowhere", "release.companions: nowhere is no directory"),
    ("release", "citation", "write to ann" + "@uni-bonn.de", "release.citation holds a mail address"),
    ("release", "terms_of_use", "nowhere.md", "release.terms_of_use: nowhere.md cannot be read"),
    ("release", "license", "MIT", "release.license is 'MIT', which the Hub does not know; write it as mit"),
    ("release", "companions", ".", "release.companions: .*model_index.json"),
    ("evaluate", "num_pairs", 4, "evaluate.num_pairs is 4: were all of them won, that proves a share of 0.473, and the policy "
     "asks for at least 0.500"),
])
def test_what_could_not_be_released_is_refused_before_anything_is_trained(
        tmp_path: Path, plain_recipe: dict[str, Any], part: str, setting: str, value: object, told: str) -> None:
    plain_recipe.setdefault(part, {})[setting] = value
    run = run_in(tmp_path / "run", plain_recipe)
    for start in (run.all, run.train):
        with pytest.raises(ReleaseError, match=told):
            start()
    assert not (tmp_path / "run").exists()


def test_a_category_that_the_policy_promises_and_the_recipe_does_not_filter_is_refused(tmp_path: Path, plain_recipe: dict[str, Any]) -> None:
    plain_recipe["categories"][0]["name"] = "violence"
    with pytest.raises(ReleaseError, match="the policy names person, which the recipe does not filter"):
        run_in(tmp_path, plain_recipe).train()


def test_a_category_that_the_policy_does_not_name_is_refused_before_anything_is_trained(tmp_path: Path, plain_recipe: dict[str, Any]) -> None:
    plain_recipe["categories"].append({"name": "violence", "counts": "a weapon, a wound or an attack"})
    with pytest.raises(ReleaseError, match="filter violence: the policy demands nothing of this category; name it under `categories`"):
        run_in(tmp_path, plain_recipe).train()


def test_the_policy_of_a_recipe_lies_beside_it_and_a_missing_one_is_refused(recipe_file: Path, tmp_path: Path) -> None:
    recipe_file.write_text(recipe_file.read_text() + "policy: good/enough.yaml\n")
    recipe = load_recipe(recipe_file, read_source)
    with pytest.raises(ReleaseError, match=r"good/enough\.yaml: No such file"), open_run(recipe, tmp_path / "runs"):
        pytest.fail("the run was opened")
    (tmp_path / "good").mkdir()
    strict = load_policy(None).model_dump(mode="json") | {"size": {"at_most_mb": 7}}
    (tmp_path / "good/enough.yaml").write_text(yaml.safe_dump(strict))
    with open_run(recipe, tmp_path / "runs") as run:
        assert run.policy.size.at_most_mb == 7
        assert load_policy(run.directory / "policy.yaml") == run.policy


def test_more_steps_than_the_schedule_has_are_refused_with_the_recipe(plain_recipe: dict[str, Any]) -> None:
    plain_recipe["evaluate"] = {"num_steps": 2000}
    with pytest.raises(RecipeError, match=r"evaluate.num_steps: .* less than or equal to 1000 .got 2000"):
        parse_recipe(plain_recipe, read_source, where="recipe")


def test_training_before_curating_is_refused(tmp_path: Path, plain_recipe: dict[str, Any]) -> None:
    with pytest.raises(StageError, match="curated: no finished stage here"):
        run_in(tmp_path, plain_recipe).train()


def test_a_curated_set_that_was_changed_is_refused_before_anything_is_trained(tmp_path: Path, plain_recipe: dict[str, Any]) -> None:
    run = run_in(tmp_path, plain_recipe)

    def work(partial: Path) -> dict[str, Any]:
        for split in ("train", "validation"):
            write_bytes(partial / "data" / f"{split}-00000.parquet", b"rows")
        return {}

    run_stage(run.layout.curated, stage="curated", config={}, inputs={}, work=work)
    (run.layout.curated / "data" / "train-00000.parquet").write_bytes(b"others")
    (run.layout.curated / "data" / "validation-00000.parquet").unlink()
    with pytest.raises(StageError, match=r"curated: changed since the stage finished: .*train-00000.*; remove the directory and run"):
        run.train()
    assert not run.layout.training("base").exists()


def test_running_everything_goes_through_the_stages_in_their_order(
        tmp_path: Path, plain_recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    for name in ("index", "label", "fit", "check_filters", "curate", "train", "evaluate", "pack", "check"):
        monkeypatch.setattr(recipe_module.Run, name, lambda self, name=name: done.append(name))
    module = importlib.import_module("glideslope.release.verify")  # the package has a function of the same name
    monkeypatch.setattr(module, "verify", lambda release: done.append(f"verify {release.name}"))
    run_in(tmp_path, plain_recipe).all()
    assert done == ["index", "label", "fit", "check_filters", "curate", "train", "evaluate", "pack", "check", "verify release"]


def test_the_resolved_recipe_is_itself_a_recipe_for_the_same_run(recipe_file: Path, tmp_path: Path) -> None:
    with open_run(load_recipe(recipe_file, read_source), tmp_path) as run:
        written = run.directory / "recipe.yaml"
    assert find_recipe(str(written)) == beside_its_policy(load_recipe(recipe_file, read_source), run.directory)
    with open_run(load_recipe(written, read_source), tmp_path) as run:
        assert load_policy(written.with_name("policy.yaml")) == run.policy == load_policy(None)
    assert yaml.safe_load(written.read_text())["seed"] == 0


def test_another_source_in_the_same_run_directory_is_named(
        recipe_file: Path, tmp_path: Path, plain_recipe: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    first = load_recipe(recipe_file, read_source)
    for _ in range(2):
        with open_run(first, tmp_path):
            pass
    assert caplog.messages == []
    plain_recipe["source"] = {"kind": "folder", "path": "elsewhere"}
    with open_run(parse_recipe(plain_recipe, read_source, where="recipe"), tmp_path) as run:
        assert load_recipe(run.directory / "recipe.yaml", read_source).source.kind == "folder"
    (only,) = caplog.messages
    assert "small: held a run on the source" in only and "names folder elsewhere" in only and "another name" in only


@pytest.mark.parametrize("stage", ["train", "evaluate", "pack", "all"])
def test_what_needs_captions_is_refused_at_once_where_they_are_optional(stage: str, plain_recipe: dict[str, Any], tmp_path: Path) -> None:
    plain_recipe["curate"] = {"captions": "optional"}
    with (open_run(parse_recipe(plain_recipe, read_source, where="recipe"), tmp_path) as run,
          pytest.raises(RecipeError, match=r"needs captions, .*To filter only: index, label, fit, curate, audit, report")):
        getattr(run, stage)()
    assert {path.name for path in run.directory.iterdir()} == {".lock", "policy.yaml", "recipe.yaml"}


def test_a_folder_without_captions_goes_all_the_way_to_its_report(tmp_path: Path, tiny_clip: TinyClip) -> None:
    fill_folder(tmp_path / "images", 60)
    (tmp_path / "images" / "metadata.csv").unlink()
    found = look_at(str(tmp_path / "images"))
    recipe = starter_recipe(found.source, name="bare", has_captions=found.has_captions)
    recipe = recipe.model_copy(update={"categories": recipe.categories[:1]})
    assert recipe.clip.model == "lite0" and recipe.curate.captions == "optional"
    with open_run(recipe, tmp_path) as run:
        assert [record.stage for record in run.index()] == ["index"], "no text tower is trained"
        run.label(write_labels(tmp_path / "labels.csv", 60, category="person"))
        assert run.fit()[-1].summary["recall"] == 1.0
        assert run.curate().summary["seen"] == 60 and run.curate().summary["kept"] >= 30
        assert "the filter kept" in run.audit(AuditRequest()).describe()
        assert run.report(pictures="none").figures["ledger"]["dropped"].keys() == {"filter:person"}


def test_a_folder_without_captions_is_refused_before_it_is_embedded_where_they_are_required(
        tmp_path: Path, plain_recipe: dict[str, Any], tiny_clip: TinyClip) -> None:
    fill_folder(tmp_path / "images", 6)
    (tmp_path / "images" / "metadata.csv").unlink()
    plain_recipe["source"]["path"] = str(tmp_path / "images")
    with open_run(parse_recipe(plain_recipe, read_source, where="recipe"), tmp_path) as run:
        for index in (run.index, lambda: run.index_part(0, 2)):
            with pytest.raises(SourceError, match=r"none of the 6 images has a caption .* set curate\.captions to optional"):
                index()
    assert tiny_clip.num_images == 0
    (tmp_path / "images" / "003.txt").write_text("a caption")
    with open_run(parse_recipe(plain_recipe, read_source, where="recipe"), tmp_path) as run:
        assert run.index_part(0, 1)
    assert tiny_clip.num_images == 6

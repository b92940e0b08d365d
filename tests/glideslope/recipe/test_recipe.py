from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from glideslope.data_filter.sources.folder import FolderSource
from glideslope.data_filter.sources.kinds import read_source
from glideslope.data_filter.sources.openmoji import OpenMojiSource
from glideslope.errors import RecipeError
from glideslope.recipe.filters import Category
from glideslope.recipe.load import dump_recipe, load_recipe, parse_recipe
from glideslope.recipe.policy import CategoryDemands, Policy, SignersDemand
from glideslope.recipe.recipe import Recipe
from glideslope.run import find_recipe

RECIPES = Path(__file__).parents[3] / "recipes"
Change = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(("change", "told"), [
    (lambda r: r.update(sead=1), "sead: unknown key; see `glideslope init`"),
    (lambda r: r["base"].update(batchsize=1), r"base\.batchsize: unknown key"),
    (lambda r: r["categories"][0].update(limits={"min_recall": 1}), r"categories\.0\.limits: unknown key"),
    (lambda r: r["source"].update(image_size=64), r"source\.image_size: unknown key"),
    (lambda r: r.pop("name"), "name: required key is missing"),
    (lambda r: r["base"].pop("learning_rate"), r"base\.learning_rate: required key is missing"),
    (lambda r: r.update(seed="0"), r"seed: .*valid integer \(got '0'\)"),
    (lambda r: r.update(seed=True), r"seed: .*valid integer \(got True\)"),
    (lambda r: r["base"].update(num_images=64.5), r"base\.num_images: .*integer"),
    (lambda r: r["base"].update(learning_rate="1e-3"), r"base\.learning_rate: .*valid number \(got '1e-3'; in YAML .* as in 1\.0e-3\)"),
    (lambda r: r["base"].update(horizontal_flip="yes"), r"base\.horizontal_flip: .*boolean"),
    (lambda r: r.update(base=[1]), "base: "),
    (lambda r: r.update(categories={"name": "person"}), "categories: "),
    (lambda r: r.update(seed=-1), r"seed: .*greater than or equal to 0 \(got -1\)"),
    (lambda r: r["base"].update(num_images=0), r"base\.num_images: .*greater than or equal to 1"),
    (lambda r: r["base"].update(learning_rate=0), r"base\.learning_rate: .*greater than 0"),
    (lambda r: r["base"].update(learning_rate=float("nan")), r"base\.learning_rate: .*finite"),
    (lambda r: r["base"].update(precision="float16"), r"base\.precision: .*'float32' or 'bfloat16'"),
    (lambda r: r["categories"][0].update(target_recall=1.0), r"categories\.0\.target_recall: .*less than 1"),
    (lambda r: r["categories"][0].update(name="Per son"), r"categories\.0\.name: .*pattern"),
    (lambda r: r.update(name="../outside"), r"name: .*pattern"),
    (lambda r: r.update(categories=[]), r"categories: .*at least 1"),
    (lambda r: r["source"].update(kind="imagenet"), r"source: .*'imagenet'"),
    (lambda r: r.update(release={"variants": ["fp8"]}), r"release\.variants\.0: .*'fp16' or 'bf16'"),
    (lambda r: r.update(release={"variants": ["fp16", "fp16"]}), r"release: release\.variants must differ"),
    (lambda r: r.update(release={"max_shard_mb": 0}), r"release\.max_shard_mb: .*greater than or equal to 1"),
    (lambda r: r.update(release={"homepage": "javascript:alert(1)"}), r"release\.homepage: .*pattern"),
    (lambda r: r.update(release={"tags": ["a\nb"]}), r"release\.tags\.0: .*pattern"),
    (lambda r: r.update(release={"languages": ["English"]}), r"release\.languages\.0: .*pattern"),
    (lambda r: r.update(release={"languages": []}), r"release\.languages: .*at least 1 item"),
    (lambda r: r.update(release={"languages": ["en", "en"]}), r"release: release\.languages must differ"),
    (lambda r: r.update(evaluate={"guidance_scale": 1001.0}), r"evaluate\.guidance_scale: .*less than or equal to 1000"),
    (lambda r: r.update(evaluate={"sweep_scales": [1.0, 2e9]}), r"evaluate\.sweep_scales\.1: .*less than or equal to 1000"),
    (lambda r: r.update(labels={"train_share": 0.6, "calibrate_share": 0.4}), r"labels: train_share \+ calibrate_share must stay below 1"),
    (lambda r: r["categories"].append(r["categories"][0]), r"category names must differ, got \['person', 'person'\]")])
def test_a_wrong_key_type_or_value_is_one_error_that_names_it(plain_recipe: dict[str, Any], change: Change, told: str) -> None:
    change(plain_recipe)
    with pytest.raises(RecipeError, match=f"^my recipe: {told}") as caught:
        parse_recipe(plain_recipe, read_source, where="my recipe")
    assert ";" not in str(caught.value).replace("; see `glideslope init`", "").replace("; in YAML", "")
    assert "\n" not in str(caught.value)


def test_every_problem_is_named_at_once(plain_recipe: dict[str, Any]) -> None:
    plain_recipe |= {"seed": -1, "sead": 1}
    plain_recipe["base"]["num_images"] = "many"
    with pytest.raises(RecipeError, match=r"seed: .*base\.num_images: .*sead: unknown key"):
        parse_recipe(dict(sorted(plain_recipe.items(), reverse=True)), read_source, where="recipe")


@pytest.mark.parametrize(("content", "told"), [
    (b"name: [", "not readable as YAML"), (b"\xff\xfe\x00", "not readable as YAML"),
    (b"!!python/object/apply:os.system [ls]", "not readable as YAML"),
    (b"", "expected a mapping of stage names to settings, got NoneType"), (b"- a", "expected a mapping of stage names to settings, got list"),
    (b"seed: 1\nname: a\nseed: 2\n", "not readable as YAML: the key 'seed' stands twice .* line 3"),
    (b"base:\n  num_images: 1\n  num_images: 2\n", "the key 'num_images' stands twice")])
def test_a_file_that_is_no_recipe_is_refused_in_one_line(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=told) as caught:
        load_recipe(path, read_source)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"missing\.yaml: No such file or directory"):
        load_recipe(tmp_path / "missing.yaml", read_source)
    with pytest.raises(RecipeError, match="Is a directory"):
        load_recipe(tmp_path, read_source)


def test_a_resolved_recipe_reads_back_as_itself(recipe_file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(recipe_file, read_source)
    (tmp_path / "resolved.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "resolved.yaml", read_source) == recipe
    assert set(yaml.safe_load(dump_recipe(recipe))) == set(Recipe.model_fields)


def test_lists_of_the_release_are_read_from_yaml(plain_recipe: dict[str, Any]) -> None:
    recipe = parse_recipe(plain_recipe | {"release": {"variants": ["fp16", "bf16"], "languages": ["en", "de"], "tags": ["icons"]}},
                          read_source, where="")
    assert (recipe.release.variants, recipe.release.languages, recipe.release.tags) == (("fp16", "bf16"), ("en", "de"), ("icons",))
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe)), read_source, where="here") == recipe


def test_a_recipe_cannot_be_changed_once_it_is_read(recipe_file: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_recipe(recipe_file, read_source).seed = 1  # type: ignore[misc]  # that it is refused is the point


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_ready_made_recipe_loads_by_path_and_by_name(path: Path) -> None:
    recipe = load_recipe(path, read_source)
    assert recipe.name == path.stem
    assert find_recipe(path.stem) == find_recipe(str(path)) == recipe
    assert isinstance(recipe.source, OpenMojiSource)


def test_every_field_says_what_it_means() -> None:
    def undescribed(part: type[BaseModel]) -> list[str]:
        return [f"{part.__name__}.{name}" for name, field in part.model_fields.items()
                if not field.description and name != "kind" and not is_part(field.annotation)]

    parts = [FolderSource, OpenMojiSource, Category, *all_parts(Recipe), *all_parts(Policy), CategoryDemands, SignersDemand]
    assert [name for part in parts for name in undescribed(part)] == []
    assert all(part.__doc__ for part in parts)


def is_part(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def all_parts(part: type[BaseModel]) -> list[type[BaseModel]]:
    inner = [field.annotation for field in part.model_fields.values() if is_part(field.annotation)]
    return [part, *(found for child in inner if child is not None for found in all_parts(child))]


@pytest.mark.parametrize(("change", "told"), [
    (lambda r: r["categories"][0].update(caption_words=["man"]), "caption_words of person"),
    (lambda r: r["categories"][0].update(classifiers=["zero_shot"]), "zero_shot of person with clip.model lite0"),
    (lambda r: r.update(report={"attributes": [{"name": "place", "values": [
        {"value": "in", "prompt": "indoors"}, {"value": "out", "prompt": "outdoors"}]}]}), "report.attributes with clip.model lite0")])
def test_optional_captions_are_refused_where_captions_are_needed(change: Change, told: str, plain_recipe: dict[str, Any]) -> None:
    change(plain_recipe)
    parse_recipe(plain_recipe, read_source, where="recipe")
    plain_recipe["curate"] = {"captions": "optional"}
    with pytest.raises(RecipeError, match=f"curate.captions is optional, but captions are needed by {told}"):
        parse_recipe(plain_recipe, read_source, where="recipe")


def test_a_clip_with_a_text_tower_of_its_own_needs_no_captions(plain_recipe: dict[str, Any]) -> None:
    plain_recipe["curate"] = {"captions": "optional"}
    plain_recipe["clip"] = {"model": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"}
    plain_recipe["categories"][0]["classifiers"] = ["zero_shot"]
    assert parse_recipe(plain_recipe, read_source, where="recipe").curate.captions == "optional"

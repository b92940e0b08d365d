import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from glideslope.cli.starter import run_name, starter_recipe, write_starter
from glideslope.data_filter.sources.folder import FolderSource
from glideslope.data_filter.sources.huggingface import DatasetsSource
from glideslope.data_filter.sources.kinds import read_source
from glideslope.data_filter.sources.openmoji import OpenMojiSource
from glideslope.data_filter.sources.parquet import ParquetSource
from glideslope.data_filter.sources.webdataset import WebDatasetSource
from glideslope.errors import RecipeError, StorageError
from glideslope.recipe.load import load_recipe
from glideslope.recipe.policy import load_policy


def keys(value: Any, prefix: str = "") -> set[str]:
    if isinstance(value, dict):
        return {f"{prefix}{key}" for key in value} | {name for key, inner in value.items() for name in keys(inner, f"{prefix}{key}.")}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return keys(value[0], prefix)
    return set()


@pytest.mark.parametrize("source", [OpenMojiSource(), FolderSource(path="my pictures: all # of them"), FolderSource(path="/data/ünïcode")])
def test_the_starter_reads_back_and_holds_every_key(tmp_path: Path, source: OpenMojiSource | FolderSource) -> None:
    path = tmp_path / "recipe.yaml"
    write_starter(path, source)
    recipe = load_recipe(path, read_source)
    assert recipe == starter_recipe(source, name="recipe", policy=str(tmp_path / "policy.yaml"))
    assert keys(yaml.safe_load(path.read_text())) == keys(recipe.model_dump(mode="json"))


def test_every_key_is_explained_on_its_line(tmp_path: Path) -> None:
    write_starter(tmp_path / "recipe.yaml", OpenMojiSource())
    lines = (tmp_path / "recipe.yaml").read_text().splitlines()
    assert [line for line in lines if line.strip() and not line.startswith("#") and "  # " not in line and "kind:" not in line] == []


@pytest.mark.parametrize(("file", "beside"), [("recipe.yaml", "policy.yaml"), ("cats.yaml", "cats-policy.yaml")])
def test_the_policy_is_written_beside_the_recipe_and_names_its_categories(tmp_path: Path, file: str, beside: str) -> None:
    recipe = write_starter(tmp_path / file, OpenMojiSource())
    assert recipe.policy == beside
    policy = load_policy(load_recipe(tmp_path / file, read_source).policy)
    demands = {"recall": {"at_least": 0.99, "bound": 0.95}, "kept_share": {"at_least": 0.5}, "leak": None}
    assert policy.model_dump(mode="json")["categories"] == {"person": demands, "violence": demands}
    assert policy == load_policy(None).model_copy(update={"categories": policy.categories})
    assert policy.find_unnamed([category.name for category in recipe.categories]) == []


@pytest.mark.parametrize("name", ["recipe.yaml", "policy.yaml"])
def test_an_existing_file_is_never_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(RecipeError, match=f"{name}: exists already"):
        write_starter(tmp_path / "recipe.yaml", OpenMojiSource())
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_path_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        write_starter(tmp_path / "file" / "recipe.yaml", OpenMojiSource())


@pytest.mark.parametrize(("file", "name"), [
    ("cats.yaml", "cats"), ("v1.2.yaml", "v1.2"), ("2024.yaml", "2024"),
    ("my cats.yaml", "my-cats-[0-9a-f]{8}"), ("猫.yaml", "run-[0-9a-f]{8}"), (".yaml", "yaml-[0-9a-f]{8}"), ("_x_.yml", "x-[0-9a-f]{8}")])
def test_the_run_is_named_for_the_file(tmp_path: Path, file: str, name: str) -> None:
    write_starter(tmp_path / file, OpenMojiSource())
    assert re.fullmatch(name, load_recipe(tmp_path / file, read_source).name)


def test_recipes_of_different_files_never_share_a_run_directory() -> None:
    files = ["a b", "a-b", "a_b", "a  b", "猫", "犬", "a" * 81, "a" * 82, "a" * 200, "-a", "a-"]
    names = [run_name(Path(f"{stem}.yaml")) for stem in files]
    assert len(set(names)) == len(files)
    assert all(starter_recipe(OpenMojiSource(), name=name).name == name for name in names)


def test_the_starter_looks_for_people_and_for_violence_and_specifies_both(tmp_path: Path) -> None:
    recipe = write_starter(tmp_path / "recipe.yaml", FolderSource(path="x"))
    assert [category.name for category in recipe.categories] == ["person", "violence"]
    assert all(len(category.counts) > 40 and len(category.does_not_count) > 40 for category in recipe.categories)
    assert recipe.curate.captions == "required"
    assert write_starter(tmp_path / "bare.yaml", FolderSource(path="x"), has_captions=False).curate.captions == "optional"


@pytest.mark.parametrize("source", [
    OpenMojiSource(), FolderSource(path='a "b": [c] # d', caption_file="json:my caption"), WebDatasetSource(path="{0..9}.tar",
                                                                                                            keys="tar/member"),
    ParquetSource(path="~/x*", caption_column=None), DatasetsSource(path="arrow", data_files=("a[1]/*.arrow",))])
def test_every_source_reads_back_as_it_was_found(tmp_path: Path, source: Any) -> None:
    write_starter(tmp_path / "recipe.yaml", source)
    assert load_recipe(tmp_path / "recipe.yaml", read_source).source == source

from pathlib import Path
from typing import Any

import pytest
import yaml

from glideslope.config import FolderSource, OpenMojiSource, load_recipe
from glideslope.errors import RecipeError, StorageError
from glideslope.starter import starter_recipe, write_starter


def keys(value: Any, prefix: str = "") -> set[str]:
    if isinstance(value, dict):
        return {f"{prefix}{key}" for key in value} | {name for key, inner in value.items() for name in keys(inner, f"{prefix}{key}.")}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return keys(value[0], prefix)
    return set()


@pytest.mark.parametrize("images", [None, "my pictures: all # of them", "/data/ünïcode"])
def test_the_starter_reads_back_and_holds_every_key(tmp_path: Path, images: str | None) -> None:
    path = tmp_path / "recipe.yaml"
    write_starter(path, images)
    recipe = load_recipe(path)
    assert recipe == starter_recipe(images)
    assert isinstance(recipe.source, OpenMojiSource if images is None else FolderSource)
    assert keys(yaml.safe_load(path.read_text())) == keys(recipe.model_dump(mode="json"))


def test_every_key_is_explained_on_its_line(tmp_path: Path) -> None:
    write_starter(tmp_path / "recipe.yaml", None)
    lines = (tmp_path / "recipe.yaml").read_text().splitlines()
    assert [line for line in lines if line.strip() and not line.startswith("#") and "  # " not in line and "kind:" not in line] == []


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("mine")
    with pytest.raises(RecipeError, match="exists already"):
        write_starter(path, None)
    assert path.read_text() == "mine"


def test_a_path_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        write_starter(tmp_path / "file" / "recipe.yaml", None)

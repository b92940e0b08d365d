"""A small valid recipe as plain data, to be spoiled."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

RECIPE: dict[str, Any] = {
    "name": "small", "source": {"kind": "folder", "path": "pictures"},
    "categories": [{"name": "person", "counts": "a human being or a part of one"}],
    "base": {"num_images": 64, "learning_rate": 0.001}, "noised_clip": {"num_images": 64, "learning_rate": 0.001}}


@pytest.fixture
def plain_recipe() -> dict[str, Any]:
    """The recipe as YAML would give it."""
    return copy.deepcopy(RECIPE)


@pytest.fixture
def recipe_file(tmp_path: Path, plain_recipe: dict[str, Any]) -> Path:
    """The recipe as a file."""
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(plain_recipe))
    return path

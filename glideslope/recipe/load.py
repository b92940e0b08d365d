"""Recipes read from YAML and written as YAML."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ..errors import RecipeError
from ..store.strict_yaml import load_yaml
from .recipe import Recipe
from .strict_model import describe_problem


def load_recipe(path: Path) -> Recipe:
    """Read a recipe from YAML.

    Raises:
        RecipeError: the file is missing, is not YAML, or holds an unknown key, a wrong type or an impossible value;
            the message names every such key.
    """
    try:
        value = load_yaml(path.read_bytes())
    except OSError as error:
        raise RecipeError(f"recipe {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe {path}: not readable as YAML: {' '.join(str(error).split())}") from error
    return parse_recipe(value, where=f"recipe {path}")


def parse_recipe(value: Any, *, where: str) -> Recipe:
    """Check plain data and make a recipe of it; see `load_recipe`."""
    if not isinstance(value, dict):
        raise RecipeError(f"{where}: expected a mapping of stage names to settings, got {type(value).__name__}")
    try:
        return Recipe.model_validate(value)
    except ValidationError as error:
        problems = error.errors()
        inner = {problem["loc"][:length] for problem in problems for length in range(len(problem["loc"]))}
        # pydantic counts an item that it refused as absent, and then says that the list is too short
        told = [describe_problem(p) for p in problems if not (p["type"] == "too_short" and p["loc"] in inner)]
        raise RecipeError(f"{where}: {'; '.join(told)}") from error


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)

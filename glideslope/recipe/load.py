"""Recipes read from YAML and written as YAML."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ..errors import RecipeError
from ..store.strict_yaml import load_yaml
from ..text.one_line import one_line
from .recipe import Recipe
from .sources import SourceSettings
from .strict_model import describe_problem

ReadSource = Callable[[Any], SourceSettings]


def load_recipe(path: Path, read_source: ReadSource) -> Recipe:
    """Read a recipe from YAML. The policy that it names counts from the recipe's own folder.

    Args:
        path: the file.
        read_source: makes settings of the plain data under `source`, as `data_filter.sources.kinds.read_source` does.

    Raises:
        RecipeError: the file is missing, is not YAML, or holds an unknown key, a wrong type or an impossible value;
            the message names every such key.
    """
    try:
        value = load_yaml(path.read_bytes())
    except OSError as error:
        raise RecipeError(f"recipe {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe {path}: not readable as YAML: {one_line(error, None)}") from error
    recipe = parse_recipe(value, read_source, where=f"recipe {path}")
    return recipe if recipe.policy is None else recipe.model_copy(update={"policy": str(path.parent / recipe.policy)})


def parse_recipe(value: Any, read_source: ReadSource, *, where: str) -> Recipe:
    """Check plain data and make a recipe of it; see `load_recipe`."""
    if not isinstance(value, dict):
        raise RecipeError(f"{where}: expected a mapping of stage names to settings, got {type(value).__name__}")
    problems: list[str] = []
    if "source" in value:
        value = value | {"source": read_or_note(value["source"], read_source, problems)}
    try:
        recipe = Recipe.model_validate(value)
    except ValidationError as error:
        problems += describe_problems(error)
    if problems:
        raise RecipeError(f"{where}: {'; '.join(problems)}")
    return recipe


def read_or_note(value: Any, read_source: ReadSource, problems: list[str]) -> SourceSettings:
    """The settings of the source; where they are refused, the problems are noted, and settings without meaning stand in for them."""
    try:
        return read_source(value)
    except RecipeError as error:
        problems.append(str(error))
    except ValidationError as error:
        problems += describe_problems(error, "source")
    return SourceSettings(kind="refused")


def describe_problems(error: ValidationError, *above: str) -> list[str]:
    """Every problem that pydantic found in a part of a recipe, one sentence each; `above`: the keys that lead to the part."""
    problems = [problem | {"loc": (*above, *problem["loc"])} for problem in error.errors()]
    inner = {problem["loc"][:length] for problem in problems for length in range(len(problem["loc"]))}
    # pydantic counts an item that it refused as absent, and then says that the list is too short
    return [describe_problem(problem) for problem in problems if not (problem["type"] == "too_short" and problem["loc"] in inner)]


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)

"""The recipe as a release publishes it: everything that says what was done, nothing of where it was done.

No record of a stage holds the place of the data: sources, detectors and networks are known by digests of their content,
so the chain of digests holds wherever they lay. Only the recipe names places, and a release keeps their last part.
"""

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

from ...recipe.policy import POLICY_NAME
from ...recipe.recipe import Recipe
from ...recipe.strict_model import StrictModel

Part = TypeVar("Part", bound=StrictModel)

WINDOWS_PATH = re.compile(r"[A-Za-z]:[\\/]|\\\\")
HOME = re.compile(r"~[^/\\]*[\\/]")


def published_recipe(recipe: Recipe) -> Recipe:
    """A recipe without the places of a machine: of an absolute path the last part is left. Its policy lies beside it.

    Relative paths and addresses stay. Publishing twice changes nothing more.
    """
    return _without_machine(recipe.model_copy(update={"policy": POLICY_NAME}))


def last_part(path: str) -> str:
    """The last part of an absolute path or of one below a home directory; anything else as it is."""
    if WINDOWS_PATH.match(path):
        return PureWindowsPath(path).name or "data"
    if path.startswith("/") or HOME.match(path):
        return PurePosixPath(path).name or "data"
    return path


def _without_machine(part: Part) -> Part:
    """A part of a recipe, and its own parts, with what `PLACES` names shortened."""
    update: dict[str, Any] = {}
    for name in type(part).model_fields:
        value = getattr(part, name)
        if name in part.PLACES and isinstance(value, str):
            update[name] = last_part(value)
        elif name in part.PLACES and isinstance(value, tuple):
            update[name] = tuple(map(last_part, value))
        elif isinstance(value, StrictModel):
            update[name] = _without_machine(value)
        elif isinstance(value, tuple) and value and isinstance(value[0], StrictModel):
            update[name] = tuple(map(_without_machine, value))
    return part.model_copy(update=update)

"""The recipe as a release publishes it: everything that says what was done, nothing of where it was done.

No record of a stage holds the place of the data: sources, detectors and networks are known by digests of their content,
so the chain of digests holds wherever they lay. Only the recipe names places, and a release keeps their last part.
"""

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from ...recipe.recipe import Recipe
from ...recipe.strict_model import StrictModel

WINDOWS_PATH = re.compile(r"[A-Za-z]:[\\/]|\\\\")
HOME = re.compile(r"~[^/\\]*[\\/]")


def published_recipe(recipe: Recipe) -> Recipe:
    """A recipe without the places of a machine: of an absolute path the last part is left.

    Relative paths and addresses stay. Publishing twice changes nothing more.
    """
    source = _shorten(recipe.source, "path", "image_root", "data_files")
    categories = tuple(category.model_copy(update={"detectors": tuple(_shorten(detector, "path") for detector in category.detectors)})
                       for category in recipe.categories)
    release = _shorten(recipe.release, "use_policy", "policy", "companions")
    return recipe.model_copy(update={"source": source, "categories": categories, "release": release})


def last_part(path: str) -> str:
    """The last part of an absolute path or of one below a home directory; anything else as it is."""
    if WINDOWS_PATH.match(path):
        return PureWindowsPath(path).name or "data"
    if path.startswith("/") or HOME.match(path):
        return PurePosixPath(path).name or "data"
    return path


def _shorten(part: Any, *fields: str) -> Any:
    """A part of a recipe with the paths in these fields shortened; fields that it does not have are left out."""
    assert isinstance(part, StrictModel)
    update: dict[str, Any] = {}
    for field in fields:
        value = getattr(part, field, None)
        if isinstance(value, str):
            update[field] = last_part(value)
        elif isinstance(value, tuple):
            update[field] = tuple(map(last_part, value))
    return part.model_copy(update=update)

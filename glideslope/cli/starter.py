"""The recipe that `glideslope init` writes: every key, its default, and what it means, straight from the models."""

import re
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ..errors import RecipeError
from ..recipe.components import BaseTraining, NoisedClipTraining
from ..recipe.filters import Category, CurateConfig, Limits
from ..recipe.recipe import Recipe
from ..recipe.release import ReleaseConfig
from ..recipe.sources import SourceSettings
from ..store.digests import sha256_bytes
from ..store.whole_files import write_bytes

HEADER = """\
# A glideslope recipe: every key, what it means, and its default. Run it with `glideslope run {path}`.
# Sides are in pixels, amounts of training in images. Unknown keys are errors.
"""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}")  # as `Recipe.name`


def write_starter(path: Path, source: SourceSettings, *, has_captions: bool = True) -> Recipe:
    """Write a commented recipe, and return it.

    Args:
        path: the file; it must not exist.
        source, has_captions: as in `starter_recipe`.

    Raises:
        RecipeError: the file exists already.
        StorageError: it cannot be written.
    """
    refuse_existing(path)
    recipe = starter_recipe(source, name=run_name(path), has_captions=has_captions)
    lines = [HEADER.format(path=" ".join(str(path).splitlines())), *describe_part(recipe, indent=0)]
    write_bytes(path, ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace"))
    return recipe


def refuse_existing(path: Path) -> None:
    """Refuse to write over a file.

    Raises:
        RecipeError: it exists.
    """
    if path.exists():
        raise RecipeError(f"{path}: exists already; choose another name, or remove it first")


def run_name(path: Path) -> str:
    """The name of a recipe's run: the stem of its file; where that is no name, what is left of it and a digest, so that names differ."""
    if NAME.fullmatch(path.stem):
        return path.stem
    left = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[:60]
    return f"{left or 'run'}-{sha256_bytes(path.stem.encode('utf-8', 'surrogateescape'))[:8]}"


def starter_recipe(source: SourceSettings, *, name: str, has_captions: bool = True) -> Recipe:
    """A small recipe that runs as it is on the images of a source, in a run of that name.

    Args:
        source: where the images are.
        name: the run's name.
        has_captions: whether they have captions; where not, captions are optional.
    """
    limits = Limits(min_recall_lower_bound=0.95, min_kept_share=0.5)
    person = Category(name="person", counts="A human being or a part of one is visible: a face, a hand, a figure, however small.",
                      does_not_count="Animals, statues and toys without human features.", limits=limits)
    violence = Category(name="violence", counts="A weapon or a toy that looks like one, someone who fights or is hurt, blood, or a symbol of "
                                                "violent death.",
                        does_not_count="Tools that nobody uses as weapons, sports without weapons, fire, and fireworks in the sky.",
                        limits=limits)
    return Recipe(name=name, source=source, categories=(person, violence),
                  curate=CurateConfig(captions="required" if has_captions else "optional"),
                  base=BaseTraining(num_images=20_000, learning_rate=1e-3),
                  noised_clip=NoisedClipTraining(num_images=16_000, batch_size=64, learning_rate=1e-3),
                  release=ReleaseConfig(title="My model"))


def describe_part(part: BaseModel, *, indent: int) -> list[str]:
    """A part of a recipe as commented YAML lines."""
    lines = []
    for name, field in type(part).model_fields.items():
        value, pad = getattr(part, name), " " * indent
        if isinstance(value, BaseModel):
            comment = field.description or (type(value).__doc__ or "").split("\n")[0]
            lines += ["", f"{pad}{name}:  # {comment}"] if indent == 0 else [f"{pad}{name}:  # {comment}"]
            lines += describe_part(value, indent=indent + 2)
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            lines += ["", f"{pad}{name}:  # {field.description}"]
            for item in value:
                inner = describe_part(item, indent=indent + 4)
                lines += [f"{pad}  - {inner[0].strip()}", *inner[1:]]
        else:
            lines.append(describe_value(pad, name, value, field))
    return lines


def describe_value(pad: str, name: str, value: Any, field: FieldInfo) -> str:
    """One `key: value  # meaning` line."""
    text = yaml.safe_dump(value.value if isinstance(value, Enum) else value, default_flow_style=True, width=10_000, allow_unicode=True)
    text = text.removesuffix("\n").removesuffix("\n...")
    return f"{pad}{name}: {text}  # {field.description}" if field.description else f"{pad}{name}: {text}"

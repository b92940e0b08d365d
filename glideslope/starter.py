"""The recipe that `glideslope init` writes: every key, its default, and what it means, straight from the models."""

from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from .config import BaseModelConfig, Category, FolderSource, Limits, NoisedClipConfig, OpenMojiSource, Recipe, ReleaseConfig
from .errors import RecipeError
from .manifest import write_bytes

HEADER = """\
# A glideslope recipe: every key, what it means, and its default. Run it with `glideslope run {path}`.
# Sides are in pixels, amounts of training in images. Unknown keys are errors.
"""


def write_starter(path: Path, images: str | None) -> None:
    """Write a commented recipe.

    Args:
        path: the file; it must not exist.
        images: a folder of captioned images; none: the built-in OpenMoji drawings.

    Raises:
        RecipeError: the file exists already.
        StorageError: it cannot be written.
    """
    if path.exists():
        raise RecipeError(f"{path}: exists already; choose another name, or remove it first")
    recipe = starter_recipe(images)
    lines = [HEADER.format(path=path), *describe_part(recipe, indent=0)]
    write_bytes(path, ("\n".join(lines) + "\n").encode())


def starter_recipe(images: str | None) -> Recipe:
    """A small recipe that runs as it is on the given images."""
    limits = Limits(min_recall_lower_bound=0.95, min_kept_share=0.5)
    person = Category(name="person", counts="A human being or a part of one is visible: a face, a hand, a figure, however small.",
                      does_not_count="Animals, statues and toys without human features.", limits=limits)
    return Recipe(name="my-run", source=OpenMojiSource() if images is None else FolderSource(path=images), categories=(person,),
                  base=BaseModelConfig(num_images=20_000, learning_rate=1e-3),
                  noised_clip=NoisedClipConfig(num_images=16_000, batch_size=64, learning_rate=1e-3),
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

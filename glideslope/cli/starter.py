"""The recipe and the policy that `glideslope init` writes: every key, its default, and what it means."""

import re
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ..errors import RecipeError
from ..recipe.components import BaseTraining, NoisedClipTraining, UpsamplerTraining
from ..recipe.filters import Category, CurateConfig
from ..recipe.policy import POLICY_NAME, built_in_text
from ..recipe.recipe import Recipe
from ..recipe.release import ReleaseConfig
from ..recipe.sources import SourceSettings
from ..store.digests import sha256_bytes
from ..store.whole_files import write_bytes

HEADER = """\
# A glideslope recipe: every key, what it means, and its default. Run it with `glideslope run {path}`.
# Sides are in pixels, amounts of training in images. Unknown keys are errors.
"""
POLICY_HEADER = """\
# How good a release of {path} must be: a release that shows less is refused.
# docs/policy.md explains every key. Unknown keys are errors.
"""
CATEGORY = """\
  {name}:
    recall: {{at_least: 0.99, bound: 0.95}}  # share of its images that are found, and the 95 % lower bound of that share
    kept_share: {{at_least: 0.5}}            # share of the other images that stay
    leak: null                             # {{at_most: 0.001}} asks for an audit of what was kept, and what it must show
"""
CATEGORIES_OF_BUILT_IN = re.compile(r"(?<=\n)categories:[^\n]*\n(?:  [^\n]*\n)+")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}")  # as `Recipe.name`


def write_starter(path: Path, source: SourceSettings, *, has_captions: bool = True) -> Recipe:
    """Write a commented recipe, and its policy beside it; return the recipe.

    Args:
        path: the recipe's file. Neither it nor the policy may exist.
        source, has_captions: as in `starter_recipe`.

    Raises:
        RecipeError: one of the files exists already.
        StorageError: they cannot be written.
    """
    refuse_existing(path)
    refuse_existing(policy_beside(path))
    recipe = starter_recipe(source, name=run_name(path), policy=policy_beside(path).name, has_captions=has_captions)
    write_bytes(policy_beside(path), starter_policy(path, recipe).encode("utf-8", "backslashreplace"))
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


def policy_beside(path: Path) -> Path:
    """Where the policy of a recipe goes: `policy.yaml` beside `recipe.yaml`, `cats-policy.yaml` beside `cats.yaml`."""
    return path.with_name(POLICY_NAME if path.stem == "recipe" else f"{path.stem}-{POLICY_NAME}")


def starter_policy(path: Path, recipe: Recipe) -> str:
    """The text of the policy for a new recipe: demands of each of its categories, and all else as the built-in policy has it."""
    categories = "".join(CATEGORY.format(name=category.name) for category in recipe.categories)
    built_in = built_in_text()
    settings = CATEGORIES_OF_BUILT_IN.sub(f"categories:  # every category of the recipe, and what its filter must show\n{categories}",
                                          built_in[built_in.index("format:"):])
    return POLICY_HEADER.format(path=" ".join(path.name.splitlines())) + settings


def run_name(path: Path) -> str:
    """The name of a recipe's run: the stem of its file; where that is no name, what is left of it and a digest, so that names differ."""
    if NAME.fullmatch(path.stem):
        return path.stem
    left = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[:60]
    return f"{left or 'run'}-{sha256_bytes(path.stem.encode('utf-8', 'surrogateescape'))[:8]}"


def starter_recipe(source: SourceSettings, *, name: str, policy: str | None = None, has_captions: bool = True) -> Recipe:
    """A small recipe that runs as it is on the images of a source, in a run of that name.

    Args:
        source: where the images are.
        name: the run's name.
        policy: file with its policy.
        has_captions: whether they have captions; where not, captions are optional.
    """
    person = Category(name="person", counts="A human being or a part of one is visible: a face, a hand, a figure, however small.",
                      does_not_count="Animals, statues and toys without human features.")
    violence = Category(name="violence", counts="A weapon or a toy that looks like one, someone who fights or is hurt, blood, or a symbol of "
                                                "violent death.",
                        does_not_count="Tools that nobody uses as weapons, sports without weapons, fire, and fireworks in the sky.")
    return Recipe(name=name, policy=policy, source=source, categories=(person, violence),
                  curate=CurateConfig(captions="required" if has_captions else "optional"),
                  base=BaseTraining(num_images=20_000, learning_rate=1e-3),
                  noised_clip=NoisedClipTraining(num_images=16_000, batch_size=64, learning_rate=1e-3),
                  upsampler=UpsamplerTraining(num_images=6_000, batch_size=8, learning_rate=1e-3),
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

"""The recipe that `glideslope init` writes: every key, its default, and what it means, straight from the models."""

import os
import re
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from .config import (
    BaseModelConfig,
    Category,
    CurateConfig,
    DatasetsSource,
    FolderSource,
    Limits,
    NoisedClipConfig,
    OpenMojiSource,
    ParquetSource,
    Recipe,
    ReleaseConfig,
    Source,
    WebDatasetSource,
)
from .errors import RecipeError
from .manifest import sha256_bytes, write_bytes
from .text_files import NotTextError, decode_text
from .text_tables import TableError, read_header, read_json_lines

HEADER = """\
# A glideslope recipe: every key, what it means, and its default. Run it with `glideslope run {path}`.
# Sides are in pixels, amounts of training in images. Unknown keys are errors.
"""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}")  # as `Recipe.name`
SAVED_NAMES = ("dataset_dict.json", "state.json")
IMAGE_SUFFIXES = frozenset({".gif", ".jpeg", ".jpg", ".png", ".webp"})
CAPTION_SUFFIXES = frozenset({".csv", ".jsonl", ".txt"})
IMAGE_COLUMNS = ("image", "img", "jpg", "png", "webp", "picture", "image_path", "file_name", "path")
CAPTION_COLUMNS = ("text", "caption", "TEXT", "captions", "prompt", "description", "title")


def write_starter(path: Path, images: str | None) -> Recipe:
    """Write a commented recipe, and return it.

    Args:
        path: the file; it must not exist.
        images: what `guess_source` takes; none: the built-in OpenMoji drawings.

    Raises:
        RecipeError: the file exists already.
        StorageError: it cannot be written.
    """
    if path.exists():
        raise RecipeError(f"{path}: exists already; choose another name, or remove it first")
    recipe = starter_recipe(images, name=run_name(path))
    lines = [HEADER.format(path=path), *describe_part(recipe, indent=0)]
    write_bytes(path, ("\n".join(lines) + "\n").encode())
    return recipe


def run_name(path: Path) -> str:
    """The name of a recipe's run: the stem of its file; where that is no name, what is left of it and a digest, so that names differ."""
    if NAME.fullmatch(path.stem):
        return path.stem
    left = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[:60]
    return f"{left or 'run'}-{sha256_bytes(path.stem.encode('utf-8', 'surrogateescape'))[:8]}"


def starter_recipe(images: str | None, *, name: str) -> Recipe:
    """A small recipe that runs as it is on the given images, in a run of that name; captions are optional where a folder of images has none."""
    source = OpenMojiSource() if images is None else guess_source(images)
    curate = CurateConfig()
    if isinstance(source, FolderSource):
        column = find_captions(Path(source.path))
        source = source.model_copy(update={"caption_column": column or source.caption_column})
        curate = CurateConfig(captions="optional" if column is None else "required")
    limits = Limits(min_recall_lower_bound=0.95, min_kept_share=0.5)
    person = Category(name="person", counts="A human being or a part of one is visible: a face, a hand, a figure, however small.",
                      does_not_count="Animals, statues and toys without human features.", limits=limits)
    return Recipe(name=name, source=source, categories=(person,), curate=curate,
                  base=BaseModelConfig(num_images=20_000, learning_rate=1e-3),
                  noised_clip=NoisedClipConfig(num_images=16_000, batch_size=64, learning_rate=1e-3),
                  release=ReleaseConfig(title="My model"))


def guess_source(images: str) -> Source:
    """The source that fits what lies at a path.

    Args:
        images: a folder of images, of WebDataset tars, of parquet or Arrow files, a data set that `datasets` saved or that is
            laid out for the Hub, one such file, or a pattern of tars or parquet files.
    """
    path = Path(images)
    if any((path / name).is_file() for name in SAVED_NAMES):
        return DatasetsSource(path=images)
    found = first_files(path) if path.is_dir() else {path.suffix.lower(): path}
    if not (found.keys() & IMAGE_SUFFIXES and found.keys() & CAPTION_SUFFIXES):
        if ".tar" in found or images.endswith((".tar.gz", ".tgz")):
            return WebDatasetSource(path=images)
        if ".arrow" in found:
            return DatasetsSource(path="arrow", data_files=(str(path / "**/*.arrow") if path.is_dir() else images,))
        if ".parquet" in found:
            image, caption = guess_columns(found[".parquet"])
            kind = DatasetsSource if has_card(path / "README.md") else ParquetSource
            return kind(path=images, image_column=image, caption_column=caption)
    return FolderSource(path=images)


def first_files(folder: Path) -> dict[str, Path]:
    """One file of each suffix below a folder; names that start with a dot are not looked at."""
    found: dict[str, Path] = {}
    for place, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                found.setdefault(os.path.splitext(name)[1].lower(), Path(place) / name)  # noqa: PTH122  (a folder may hold a million files)
    return found


def find_captions(folder: Path) -> str | None:
    """The column of a folder's captions, or None where its images have none.

    Captions are text files beside images (then the column is the usual one) or a column of metadata. A folder that is not there, is empty
    or has metadata that cannot be read counts as one with captions: the index says what is wrong with it.
    """
    is_empty = True
    for place, folders, names in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        stems: dict[str, set[str]] = {}
        for name in (name for name in names if not name.startswith(".")):
            stem, suffix = os.path.splitext(name)  # noqa: PTH122  (a folder may hold a million files)
            stems.setdefault(stem, set()).add(suffix.lower())
            is_empty = False
        if any(".txt" in suffixes and len(suffixes) > 1 for suffixes in stems.values()):
            return CAPTION_COLUMNS[0]
        for path in (Path(place) / f"metadata{suffix}" for suffix in (".csv", ".jsonl") if suffix in stems.get("metadata", ())):
            columns = read_columns(path)
            column = next((name for name in CAPTION_COLUMNS if name in columns), None) if columns else CAPTION_COLUMNS[0]
            if column is not None:
                return column
    return CAPTION_COLUMNS[0] if is_empty else None


def read_columns(path: Path) -> list[str]:
    """The columns of the first row of metadata.csv or metadata.jsonl; none where it cannot be read."""
    try:
        text = decode_text(path.read_bytes(), keep_bad_bytes=True)
        if path.suffix == ".jsonl":
            return [name for _, row in islice(read_json_lines(text), 1) for name in row]
        return read_header(text, ("file_name",))
    except (OSError, NotTextError, TableError):
        return []


def guess_columns(path: Path) -> tuple[str, str]:
    """The columns of a parquet file that are called as images and captions mostly are; where none is, the first such name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
    except (OSError, pa.ArrowException):  # the index says what is wrong with the file
        names = []
    image, caption = (next((name for name in wanted if name in names), wanted[0]) for wanted in (IMAGE_COLUMNS, CAPTION_COLUMNS))
    return image, caption


def has_card(readme: Path) -> bool:
    """Whether a README begins with the settings by which `datasets` tells the splits of a data set apart."""
    try:
        with readme.open("rb") as file:
            return file.read(3) == b"---"
    except OSError:
        return False


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

"""A look at what lies at a path: the source that reads it, its settings, and what was found; `glideslope init` writes that down.

Only names, headers and first inputs are looked at; no picture is decoded.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import SourceError
from ...recipe.sources import DatasetsSource, FolderSource, ParquetSource, WebDatasetSource
from ...recipe.sources import Source as SourceConfig
from .files import IMAGE_SUFFIXES, UNSUPPORTED_SUFFIXES, is_left_out, list_files, locate, plain_text
from .folder import ImageFolder
from .folder_survey import survey_folder
from .huggingface import SAVED_NAMES, load_or_refuse
from .parquet import ParquetFiles
from .source import FIELD_PREFIX
from .tables import ADDRESS_HINT, CAPTION_COLUMNS, guess_columns, lists_addresses
from .tar_survey import TarSurvey, survey_tars
from .webdataset import COMPRESSED_SUFFIXES, WebDataset

CAPTION_SUFFIXES = ("txt", "caption", "cap", "captions", "text")
SPLIT_WORDS = {"train": "train", "training": "train", "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
               "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation"}  # as `datasets` knows them
METADATA_SUFFIXES = frozenset({".csv", ".jsonl", *(f".{suffix}" for suffix in CAPTION_SUFFIXES)})


@dataclass(frozen=True)
class Found:
    """What lies at a path.

    Attributes:
        source: the source that reads it.
        has_captions: whether captions were found.
        told: what was found, one sentence or more.
    """

    source: SourceConfig
    has_captions: bool
    told: str


def look_at(images: str) -> Found:
    """Look at what lies at a path.

    Args:
        images: a folder of images, of WebDataset tars, of parquet or Arrow files, a data set that `datasets` saved or that is
            laid out for the Hub, one such file, or a pattern of tars or parquet files.

    Raises:
        SourceError: nothing lies there, nothing that is read, or something that is damaged.
    """
    path = locate(images)
    if any((path / name).is_file() for name in SAVED_NAMES):
        return look_at_saved(images)
    files = first_files(path) if path.is_dir() else {path.suffix.lower(): path}
    has_images = bool(files.keys() & (IMAGE_SUFFIXES | UNSUPPORTED_SUFFIXES))
    if not (path.is_dir() and has_images and files.keys() & METADATA_SUFFIXES):
        if ".tar" in files or images.lower().endswith(COMPRESSED_SUFFIXES):
            return look_at_tars(images)
        if ".arrow" in files:
            return look_at_arrow(images, path)
        if ".parquet" in files:
            return look_at_parquet(images)
        if path.is_dir() and not has_images and (packed := [name for name in files if name in (".gz", ".tgz", ".zst", ".xz", ".bz2", ".zip")]):
            raise SourceError(f"{images}: no images in this folder, but packed files ({files[packed[0]].name} for example); unpack them first")
    if not path.is_dir():
        if path.exists() and path.suffix.lower() in IMAGE_SUFFIXES:
            raise SourceError(f"{images}: one image; name the folder that it lies in")
        told = "no file of a type that is read" if path.exists() else "no such file or folder"
        raise SourceError(f"{images}: {told}; expected a folder of images, .tar, .parquet or .arrow files, or a pattern of such files "
                          "(for a data set of the Hub write kind: datasets and its id into the recipe)")
    return look_at_folder(images, path)


def first_files(folder: Path) -> dict[str, Path]:
    """One file of each suffix below a folder; what `list_visible` leaves out is not looked at."""
    found: dict[str, Path] = {}
    for place, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not is_left_out(name))
        for name in sorted(names):
            if not is_left_out(name):
                found.setdefault(os.path.splitext(name)[1].lower(), Path(place) / name)  # noqa: PTH122  (a folder may hold a million files)
    return found


def look_at_folder(images: str, root: Path) -> Found:
    """A folder of images: captions are looked for in metadata, then in files beside the images."""
    survey = survey_folder(root)
    column = choose(survey.columns, CAPTION_COLUMNS)
    suffix = None if column else next((name for name in CAPTION_SUFFIXES if survey.suffixes[f".{name}"]), None)
    if column is None and suffix is None and (name := choose(survey.fields, CAPTION_COLUMNS)) is not None:
        suffix = f"{FIELD_PREFIX}{name}"
    usual = FolderSource(path=images)
    source = FolderSource(path=images, caption_column=column or usual.caption_column, caption_file=suffix or usual.caption_file)
    opened = ImageFolder(root, caption_column=source.caption_column, caption_file=source.caption_file)
    pictures = [entry for entry in opened.entries if entry.image is not None]
    num_captions = sum(entry.caption is not None or entry.caption_file is not None for entry in pictures)
    told = [f"{images}: {count(len(pictures), 'image')}, {num_captions} of them with a caption"]
    if column:
        told.append(f"(column {plain_text(column)} of the metadata)")
    elif suffix:
        told.append(f"({'field ' + suffix[5:] + ' of the .json file' if suffix.startswith(FIELD_PREFIX) else '.' + suffix + ' file'} beside "
                    f"the image)")
    else:
        told.append(f"({survey.describe()}; metadata.csv with the columns file_name and text would give them captions)")
    notes = [" ".join(told)]
    if lonely := sum(entry.image is None for entry in opened.entries):
        notes.append(f"{count(lonely, 'caption')} without an image")
    if missing := sum(not os.path.exists(root / entry.image) for entry in pictures if entry.image is not None and "\0" not in entry.image):  # noqa: PTH110  (fast)
        told_by = "that the metadata lists" if survey.columns else "that are links"
        notes.append(f"{missing} of the images {told_by} {'is' if missing == 1 else 'are'} missing")
    return Found(source, num_captions > 0, "; ".join(notes))


def look_at_tars(images: str) -> Found:
    """Tars: where names start again in every tar, have dots in them, or captions stand elsewhere, the settings say so."""
    source = WebDatasetSource(path=images)
    opened = WebDataset(source)
    opened.refuse_if_none_is_a_tar()
    survey = survey_tars(opened)
    dotted = survey.dotted
    if survey.num_dotted * 2 > survey.num_samples:
        source = source.model_copy(update={"name_until": "last_dot"})
        survey = survey_tars(WebDataset(source))
    if survey.repeated:
        source = source.model_copy(update={"keys": "tar/member"})
    member = choose_member(survey)
    source = source.model_copy(update={} if member is None else {"caption_member": member})
    if survey.num_crowded * 2 > survey.num_samples:
        source = source.model_copy(update={"image_member": survey.images.most_common(1)[0][0]})
    told = [f"{images}: {count(survey.num_tars, 'tar')}; of the first {survey.num_samples} samples "
            f"{survey.num_samples - survey.num_without_image} have an image"]
    if member is None:
        told.append(f"and none has a caption that is known by its name (there are {survey.describe_members()})")
    else:
        told.append(f"and {number_of_captions(survey, member)} have a caption ({member})")
    notes = [(source.name_until == "last_dot", f"names have dots in them, so that they end at the last ({dotted})"),
             (source.keys == "tar/member", f"names start again in every tar ({survey.repeated.rpartition('/')[2]}), so that keys name the "
                                           f"tar too"),
             (source.image_member is not None, f"samples have several images ({', '.join(sorted(survey.images))}), of which "
                                               f"{source.image_member} is taken")]
    return Found(source, member is not None, "; ".join([" ".join(told), *(note for holds, note in notes if holds)]))


def choose_member(survey: TarSurvey) -> str | None:
    """Where most of the samples have their captions; None: nothing is called as captions are."""
    members = [name for name in CAPTION_SUFFIXES if survey.captioned[name]]
    name = choose([place.removeprefix(FIELD_PREFIX) for place in survey.captioned if place.startswith(FIELD_PREFIX)], CAPTION_COLUMNS)
    fields = [] if name is None else [f"{FIELD_PREFIX}{name}"]
    return max([*members, *fields], key=lambda member: number_of_captions(survey, member), default=None)


def number_of_captions(survey: TarSurvey, member: str) -> int:
    """How many of the samples that were looked into have such a member, or such a field."""
    return survey.captioned[member]


def look_at_parquet(images: str) -> Found:
    """Parquet files; beside a README that names the splits of a data set, `datasets` reads them."""
    opened = ParquetFiles(ParquetSource(path=images))
    schema, num_rows, problem = None, 0, ""
    for name in opened.files:
        try:
            metadata = pq.read_metadata(opened.root / name)
            schema, num_rows = metadata.schema.to_arrow_schema(), metadata.num_rows
        except (OSError, pa.ArrowException) as error:
            problem = problem or f"{name}: {' '.join(str(error).split())[:200]}"
            continue
        break
    if schema is None:
        raise SourceError(f"{images}: no file can be read as parquet; {problem}")
    source: ParquetSource | DatasetsSource = ParquetSource(path=images)
    if locate(images).is_dir() and has_card(locate(images) / "README.md"):
        source = DatasetsSource(path=images, split=guess_split(opened.files))
    told = f"{images}: {count(len(opened.files), 'parquet file')}, the first with {num_rows} rows"
    return look_at_columns(schema, told, source)


def guess_split(files: Sequence[str]) -> str:
    """The split that `datasets` makes of files by their names: `train` where there is one or none is named, else the first."""
    words = [word for name in files for word in re.split(r"[/._\-]+", name.lower())]
    named = [SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS]
    return "train" if "train" in named or not named else named[0]


def look_at_columns(schema: pa.Schema, told: str, source: ParquetSource | DatasetsSource) -> Found:
    """The columns of a table.

    Raises:
        SourceError: none can hold images.
    """
    image, caption = guess_columns(schema)
    if image is None:
        hint = ADDRESS_HINT if lists_addresses(schema) else "images are read from bytes, from structs with bytes, or from paths"
        raise SourceError(f"{told}, but no column holds images (there are {', '.join(schema.names) or 'none'}). {hint}")
    source = source.model_copy(update={"image_column": image, "caption_column": caption})
    told += f"; images in column {image}, " + (f"captions in column {caption}" if caption else "no column is called as captions are")
    return Found(source, caption is not None, f"{told} (there are {', '.join(schema.names)})")


def look_at_saved(images: str) -> Found:
    """A data set that `save_to_disk` wrote; of several splits `train` is taken, or the first."""
    import datasets

    source = DatasetsSource(path=images)
    loaded: Any = load_or_refuse(source, lambda: datasets.load_from_disk(str(locate(images))))
    splits = dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {}
    split = "train" if "train" in splits or not splits else next(iter(splits))
    rows = splits.get(split, loaded)
    told = f"{images}: a saved data set" + (f" with the splits {', '.join(splits)}" if splits else "") + f"; {split} has {len(rows)} rows"
    return look_at_columns(rows.features.arrow_schema, told, source.model_copy(update={"split": split}))


def look_at_arrow(images: str, path: Path) -> Found:
    """Loose Arrow files go to the builder of `datasets`."""
    pattern = str(Path(images) / "**/*.arrow") if path.is_dir() else images
    source = DatasetsSource(path="arrow", data_files=(pattern,))
    root = path if path.is_dir() else path.parent
    files = list_files(str(path), suffix=".arrow") if path.is_dir() else (path.name,)
    told = f"{images}: {count(len(files), 'Arrow file')}"
    return look_at_columns(read_arrow_schema(root / files[0]), told, source)


def read_arrow_schema(path: Path) -> pa.Schema:
    """The schema of an Arrow file, in either of the two formats.

    Raises:
        SourceError: it is none.
    """
    for opener in (pa.ipc.open_stream, pa.ipc.open_file):
        try:
            with pa.memory_map(str(path)) as file:
                return opener(file).schema
        except (OSError, pa.ArrowException):
            continue
    raise SourceError(f"{path}: cannot be read as an Arrow file")


def has_card(readme: Path) -> bool:
    """Whether a README begins with the settings by which `datasets` tells the splits of a data set apart."""
    try:
        with readme.open("rb") as file:
            return file.read(3) == b"---"
    except OSError:
        return False


def choose(names: Iterable[str] | Counter[str], known: Sequence[str]) -> str | None:
    """The name that comes first among the known ones, whatever its capitals; else one that has `caption` in it; None: there is none."""
    there = list(names)
    named = [name for one in known for name in there if name.lower() == one] + [name for name in there if "caption" in name.lower()]
    return named[0] if named else None


def count(number: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

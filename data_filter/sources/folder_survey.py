"""Where the captions of a folder of images may stand: columns of its metadata, and files beside the images."""

import os
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from ...text.text_files import NotTextError, decode_text
from ...text.text_tables import TableError, read_header, read_json_lines, read_json_text
from .files import MAX_TEXT_BYTES, Unreadable, fold, plain_text, read_file
from .folder_listing import list_folder
from .source import fields_with_text

MOST_JSON = 32


@dataclass
class FolderSurvey:
    """What lies in a folder of images.

    Attributes:
        num_images: pictures, of types that are read and of types that are not.
        columns: columns of the first row of the metadata files, apart from `file_name`, in their order.
        suffixes: ending -> files of it that lie beside an image and are called as that.
        fields: field of the first JSON files among them -> files that have text there.
        others: ending -> files that are neither images nor beside one.
    """

    num_images: int = 0
    columns: list[str] = field(default_factory=list)
    suffixes: Counter[str] = field(default_factory=Counter)
    fields: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)

    def describe(self) -> str:
        """What might hold captions, as the rest of a sentence."""
        told = []
        if self.columns:
            told.append(f"the metadata has the columns {', '.join(map(plain_text, self.columns))}")
        if self.suffixes:
            told.append("beside the images lie " + ", ".join(f"{count} x {plain_text(suffix)}" for suffix,
                                                             count in self.suffixes.most_common(8)))
        if self.fields:
            told.append("the JSON has text in " + ", ".join(plain_text(name) for name, _ in self.fields.most_common(12)))
        if self.others:
            told.append("apart from them lie " + ", ".join(f"{count} x {plain_text(suffix)}" for suffix, count in self.others.most_common(8)))
        return "; ".join(told) or "there is nothing but images"


def survey_folder(root: Path) -> FolderSurvey:
    """Look at the names in a folder, the first row of its metadata, and the first JSON files beside images.

    Raises:
        SourceError: there is no image.
    """
    listing = list_folder(root)
    survey = FolderSurvey(num_images=len(listing.images))
    for name in listing.metadata:
        survey.columns += [column for column in read_columns(root / name) if column != "file_name" and column not in survey.columns]
    stems = {fold(stem) for _, stem in listing.images}
    for name in [*listing.captions.values(), *listing.others]:
        stem, suffix = os.path.splitext(name)  # noqa: PTH122  (a Path for each of a million files is slow)
        (survey.suffixes if suffix and fold(stem) in stems else survey.others).update([suffix.lower() or "no ending"])
        if suffix.lower() == ".json" and fold(stem) in stems and survey.suffixes[".json"] <= MOST_JSON:
            survey.fields.update(fields_with_text(read_fields(root / name)))
    return survey


def read_columns(path: Path) -> list[str]:
    """The columns of the first row of metadata.csv or metadata.jsonl; none where it cannot be read: the index says what is wrong with it."""
    try:
        text = decode_text(path.read_bytes(), keep_bad_bytes=True)
        if path.suffix.lower() == ".jsonl":
            return [name for _, row in islice(read_json_lines(text), 1) for name in row]
        return read_header(text, ("file_name",))
    except (OSError, NotTextError, TableError):
        return []


def read_fields(path: Path) -> dict[str, object]:
    """The fields of a JSON file; none where it holds no object or cannot be read: the index says what is wrong with it."""
    try:
        value = read_json_text(decode_text(read_file(path, max_bytes=MAX_TEXT_BYTES)))
    except (Unreadable, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}

"""A folder of images with captions, by the conventions of the `imagefolder` loader of `datasets`.

Captions stand in `metadata.jsonl` or `metadata.csv` (column `file_name`, relative to that file, and a caption column)
in the folder or below it, or in a file beside each picture: `name.txt` beside `name.png`, or another ending, or a field of
`name.json`, as the recipe says. Files of other types are counted. A picture that metadata lists several times, or with a list of
captions, is one input with several captions; a text file holds one caption.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ...errors import SourceError
from ...store.digests import sha256_bytes, sha256_json
from .files import MAX_IMAGE_BYTES, MAX_TEXT_BYTES, Unreadable, digest_images, locate, plain_text, read_file
from .folder_listing import Entry, list_entries, list_folder, split_caption_file, suffix_of
from .folder_survey import MOST_JSON, read_fields, survey_folder
from .kind import CAPTION_SUFFIXES, Found, Place, SourceKind
from .source import (
    CAPTION,
    FIELD_PREFIX,
    Shard,
    SourceItem,
    SourceLabel,
    decode_caption_field,
    decode_captions,
    digest_shards,
    refuse_changed,
    shard_name,
)
from .survey import choose, count
from .tables import CAPTION_COLUMNS

PACKED_SUFFIXES = (".gz", ".tgz", ".zst", ".xz", ".bz2", ".zip")


class FolderSource(SourceKind):
    """A folder of images with captions in metadata.jsonl, metadata.csv, or a file beside each image."""

    kind: Literal["folder"] = "folder"
    PLACES = frozenset({"path"})
    path: str = Field(description="the folder; a relative path counts from the current directory")
    caption_column: str = Field("text", description="name of the caption's column in metadata.jsonl or metadata.csv")
    caption_file: Annotated[str, Field(min_length=1)] = Field(
        "txt", description="ending of the caption file beside each image, or `json:<field>` to take a field of the .json file beside it")

    @classmethod
    def look_at(cls, place: Place) -> Found | None:
        """A folder with images; packed ones are refused."""
        if not place.path.is_dir():
            return None
        if not place.has_images and (packed := [name for name in place.files if name in PACKED_SUFFIXES]):
            raise SourceError(f"{place.text}: no images in this folder, but packed files ({place.files[packed[0]].name} for example); unpack "
                              "them first")
        return look_at_folder(place.text, place.path)

    def open(self, *, shard_size: int) -> "ImageFolder":
        """List the folder; see `ImageFolder`."""
        return ImageFolder(locate(self.path), caption_column=self.caption_column, caption_file=self.caption_file, shard_size=shard_size)


class ImageFolder:
    """A folder as a source; keys are the images' POSIX paths relative to the folder.

    Attributes:
        others: suffix -> number of files that are no picture, caption or metadata by their names, and were not looked at.
    """

    def __init__(self, root: Path, *, caption_column: str = "text", caption_file: str = "txt", shard_size: int = 256) -> None:
        """List the inputs; images and caption files are not opened.

        Raises:
            SourceError: no such folder, no image in it, or metadata that cannot be parsed.
        """
        if not root.is_dir():
            raise SourceError(f"{root}: no such folder; the source needs a folder of images")
        self.root = root
        self.caption_column, self.shard_size = caption_column, shard_size
        self.caption_suffix, self.caption_field = split_caption_file(caption_file)
        listing = list_folder(root, self.caption_suffix)
        self.entries = list_entries(listing, root, caption_column, self.caption_suffix)
        listed = {entry.image for entry in self.entries}
        self.others = Counter(suffix_of(name) for name in listing.others if name not in listed)

    def look_ahead(self, *, needs_captions: bool) -> None:
        """Refuse a folder of which no image has a caption, where that is needed; the message names what might hold captions."""
        if not needs_captions or any(entry.caption is not None for entry in self.entries):
            return
        described = [entry for entry in self.entries if entry.image is not None and entry.caption_file is not None]
        is_field = self.caption_field is not None
        if described and not (is_field and all(self.caption_field not in read_fields(self.root / (entry.caption_file or ""))
                                               for entry in described[:MOST_JSON])):
            return
        where = f"the field {self.caption_field} of a .json file" if is_field else f"a {self.caption_suffix} file"
        num_images = sum(entry.image is not None for entry in self.entries)
        raise SourceError(
            f"{self.root}: none of the {num_images} images has a caption (in metadata.csv or metadata.jsonl, column {self.caption_column}, "
            f"or in {where} beside it); {survey_folder(self.root).describe()}. Add captions, or set source.caption_column to the column or "
            "source.caption_file to the ending of the files that hold them; or, to filter images without captions, set curate.captions to "
            "optional in the recipe")

    def notes(self) -> list[str]:
        """One sentence on the files that were not looked at, if there are any."""
        if not self.others:
            return []
        counts = ", ".join(f"{number} x {suffix or 'no ending'}" for suffix, number in sorted(self.others.items()))
        return [f"{self.root}: {self.others.total()} files are neither images nor captions by their names and were not looked at ({counts}); "
                "an image among them needs its usual ending"]

    @cached_property
    def _shards(self) -> list[Shard]:
        found = []
        for number, start in enumerate(range(0, len(self.entries), self.shard_size)):
            entries = self.entries[start:start + self.shard_size]
            images = iter(digest_images([self.root / entry.image for entry in entries if entry.image is not None]))
            rows = [describe(self._describe(entry), None if entry.image is None else next(images)) for entry in entries]
            found.append(Shard(shard_name(number), fingerprint_of(rows), start, start + len(entries), len(entries)))
        return found

    def fingerprint(self) -> str:
        """Digest of every input's path, caption and content, wherever the folder lies."""
        return digest_shards(self._shards)

    def shards(self) -> Sequence[Shard]:
        """Runs of inputs: rows of metadata in their order, then the images that no metadata lists."""
        return self._shards

    def read(self, shard: Shard, *, keys: Collection[str] | None = None) -> Iterator[SourceItem]:
        """Read the files of a shard."""
        rows = []
        for listed in self.entries[shard.start:shard.stop]:
            if keys is not None and listed.key not in keys:
                continue
            entry = self._describe(listed)
            item = self._read(entry)
            if keys is None and entry.image is not None:
                rows.append(describe(entry, item.reason if item.image is None else sha256_bytes(item.image)))
            elif keys is None:
                rows.append(describe(entry, None))
            yield item
        if keys is None:
            refuse_changed(shard, fingerprint_of(rows))

    def labels(self, categories: Collection[str]) -> list[SourceLabel]:
        """None: a folder brings no labels."""
        return []

    def _describe(self, entry: Entry) -> Entry:
        """The entry with the caption of its text file."""
        if entry.caption_file is None:
            return entry
        try:
            data = read_file(self.root / entry.caption_file, max_bytes=MAX_TEXT_BYTES)
        except Unreadable as problem:
            return Entry(entry.key, entry.image, reason=CAPTION, error=f"caption of {entry.key} {problem.problem}")
        if self.caption_field is None:
            first, several, error = decode_captions(data.removesuffix(b"\n").removesuffix(b"\r"), entry.key)
        else:
            first, several, error = decode_caption_field(data, self.caption_field, entry.key)
        return Entry(entry.key, entry.image, first, reason=CAPTION if error else "", error=error, captions=several)

    def _read(self, entry: Entry) -> SourceItem:
        """Read one image file; whatever is wrong becomes the item's error."""
        if entry.image is None:
            return SourceItem(entry.key, entry.key, None, entry.caption, entry.reason, entry.error, captions=entry.captions)
        try:
            image = read_file(self.root / entry.image, max_bytes=MAX_IMAGE_BYTES)
        except Unreadable as problem:
            error = f"image {entry.key} {problem.problem}"
            return SourceItem(entry.key, entry.key, None, entry.caption, problem.reason, error, captions=entry.captions)
        return SourceItem(entry.key, entry.key, image, entry.caption, entry.reason, entry.error, captions=entry.captions)


def describe(entry: Entry, image: str | None) -> list[Any]:
    """What a fingerprint says of an entry with its caption, and of its image (digest, or why it cannot be read)."""
    return [entry.key, list(entry.captions) or entry.caption, entry.reason, entry.error, image]


def fingerprint_of(rows: Sequence[Sequence[Any]]) -> str:
    """Fingerprint of a shard."""
    return sha256_json({"source": "folder", "inputs": rows})


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

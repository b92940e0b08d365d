"""A folder of images with captions, by the conventions of the `imagefolder` loader of `datasets`.

Captions stand in `metadata.jsonl` or `metadata.csv` (column `file_name`, relative to that file, and a caption column)
in the folder or below it, or in `name.txt` beside `name.png`. Everything found is an input: an image that metadata
lists but that is missing, an image nobody described, a caption without an image.
"""

import csv
import io
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ...errors import SourceError
from ...manifest import sha256_bytes, sha256_json
from . import Shard, SourceItem, SourceLabel, check_caption, decode_caption, digest_shards, refuse_changed, shard_name
from .files import (
    IMAGE_SUFFIXES,
    MAX_IMAGE_BYTES,
    MAX_TEXT_BYTES,
    Unreadable,
    below_root,
    digest_images,
    list_visible,
    plain_text,
    read_file,
)

METADATA_NAMES = ("metadata.jsonl", "metadata.csv")


@dataclass(frozen=True, slots=True)
class Entry:
    """One input before it is read.

    Attributes:
        key: its name.
        image: path of its image relative to the folder, or None.
        caption: the caption where metadata gives one.
        caption_file: the text file that holds the caption, relative to the folder, or None.
        reason, error: what is wrong with it already.
    """

    key: str
    image: str | None
    caption: str | None = None
    caption_file: str | None = None
    reason: str = ""
    error: str | None = None


class ImageFolder:
    """A folder as a source; keys are the images' POSIX paths relative to the folder."""

    def __init__(self, root: Path, *, caption_column: str = "text", shard_size: int = 256) -> None:
        """List the inputs; images and text files are not opened.

        Raises:
            SourceError: no such folder, no image in it, or metadata that cannot be parsed.
        """
        if not root.is_dir():
            raise SourceError(f"{root}: no such folder; the source needs a folder of images")
        self.root = root
        self.caption_column, self.shard_size = caption_column, shard_size
        self.entries = list_entries(root, caption_column)

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
            return Entry(entry.key, entry.image, reason="caption", error=f"caption of {entry.key} {problem.problem}")
        caption, error = decode_caption(data.removesuffix(b"\n").removesuffix(b"\r"), entry.key)
        return Entry(entry.key, entry.image, caption, reason="caption" if error else "", error=error)

    def _read(self, entry: Entry) -> SourceItem:
        """Read one image file; whatever is wrong becomes the item's error."""
        if entry.image is None:
            return SourceItem(entry.key, entry.key, None, entry.caption, entry.reason, entry.error)
        try:
            image = read_file(self.root / entry.image, max_bytes=MAX_IMAGE_BYTES)
        except Unreadable as problem:
            return SourceItem(entry.key, entry.key, None, entry.caption, problem.reason, f"image {entry.key} {problem.problem}")
        return SourceItem(entry.key, entry.key, image, entry.caption, entry.reason, entry.error)


def describe(entry: Entry, image: str | None) -> list[str | None]:
    """What a fingerprint says of an entry with its caption, and of its image (digest, or why it cannot be read)."""
    return [entry.key, entry.caption, entry.reason, entry.error, image]


def fingerprint_of(rows: Sequence[Sequence[str | None]]) -> str:
    """Fingerprint of a shard."""
    return sha256_json({"source": "folder", "inputs": rows})


def list_entries(root: Path, caption_column: str) -> list[Entry]:
    """Every input of a folder, in order.

    Raises:
        SourceError: no image file at all, or metadata that cannot be parsed.
    """
    images, captions, metadata_files = [], {}, []
    for name in list_visible(root):
        stem, suffix = os.path.splitext(name)  # noqa: PTH122  (a Path for each of a million files is slow)
        if suffix.lower() in IMAGE_SUFFIXES:
            images.append((name, stem))
        elif suffix.lower() == ".txt":
            captions[stem] = name
        elif name.rpartition("/")[2] in METADATA_NAMES:
            metadata_files.append(name)
    if not images:
        raise SourceError(f"{root}: no images in this folder (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")
    folders = [name.rpartition("/")[0] for name in metadata_files]
    if len(set(folders)) != len(folders):
        raise SourceError(f"{root}: metadata.jsonl and metadata.csv lie in one folder; keep one of them")
    entries = [entry for name in metadata_files for entry in read_metadata(name, root, caption_column)]
    listed = {entry.image for entry in entries}
    entries += [describe_unlisted(name, captions.get(stem), bool(metadata_files)) for name, stem in images if name not in listed]
    if not metadata_files:
        described = {stem for _, stem in images}
        entries += [Entry(plain_text(name), None, reason="missing", error=f"caption {plain_text(name)} has no image beside it")
                    for stem, name in captions.items() if stem not in described]
    return entries


def describe_unlisted(image: str, caption_file: str | None, has_metadata: bool) -> Entry:
    """The entry of an image that no metadata lists: its caption comes from the text file beside it."""
    key = plain_text(image)
    if caption_file is not None:
        return Entry(key, image, caption_file=caption_file)
    where = "is not in the metadata and has" if has_metadata else "has"
    return Entry(key, image, reason="caption", error=f"image {key} {where} no {Path(key).stem}.txt beside it")


def read_metadata(name: str, root: Path, caption_column: str) -> list[Entry]:
    """The entries of one metadata file.

    Raises:
        SourceError: it cannot be read or parsed, or has no column `file_name`.
    """
    path = root / name
    try:
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from error
    rows = parse_jsonl(text, path) if path.suffix == ".jsonl" else parse_csv(text, path)
    folder = name.rpartition("/")[0]
    entries = []
    for line, row in rows:
        image = row.get("file_name")
        if not isinstance(image, str) or not image:
            raise SourceError(f"{path}, line {line}: no file_name; each row needs the image's path in the column file_name")
        entries.append(place_row(os.path.join(folder, image), root, row.get(caption_column)))  # noqa: PTH118  (see below_root)
    return entries


def place_row(image: str, root: Path, caption: Any) -> Entry:
    """The entry of one row of metadata; a path that leads out of the folder is refused."""
    inside = below_root(root, image)
    if inside is None:
        name = plain_text(os.path.relpath(root / image, root))
        return Entry(name, None, reason="missing", error=f"image {name} lies outside of the folder")
    key = plain_text(inside)
    caption, error = check_caption(caption, key)
    return Entry(key, inside, caption, reason="caption" if error else "", error=error)


def parse_jsonl(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line number and row of each line of a JSON Lines file; empty lines are skipped."""
    for number, line in enumerate(io.StringIO(text), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{path}, line {number}: not JSON ({error}); one JSON object per line is expected") from error
        if not isinstance(row, dict):
            raise SourceError(f"{path}, line {number}: expected a JSON object, got {type(row).__name__}")
        yield number, row


def parse_csv(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line number and row of each row of a CSV file with a header."""
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        if "file_name" not in (reader.fieldnames or ()):
            raise SourceError(f"{path}: no column file_name in the header (found {', '.join(reader.fieldnames or ()) or 'nothing'})")
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise SourceError(f"{path}, line {reader.line_num}: not CSV ({error})") from error

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

from ..errors import SourceError
from ..manifest import sha256_file, sha256_json
from .sources import Shard, SourceItem, SourceLabel, digest_shards, shard_name

IMAGE_SUFFIXES = frozenset({".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga",
                            ".tif", ".tiff", ".webp"})
METADATA_NAMES = ("metadata.jsonl", "metadata.csv")


@dataclass(frozen=True)
class Entry:
    """One input before it is read: where its image should be, and its caption or what is wrong with it."""

    key: str
    image: Path | None
    caption: str | None
    reason: str = ""
    error: str | None = None


class ImageFolder:
    """A folder as a source; keys are the images' POSIX paths relative to the folder."""

    def __init__(self, root: Path, *, caption_column: str = "text", shard_size: int = 256) -> None:
        """List the inputs.

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
            rows = [[entry.key, entry.caption, entry.reason, entry.error,
                     None if entry.image is None else digest_or_error(entry.image)] for entry in entries]
            fingerprint = sha256_json({"source": "folder", "inputs": rows})
            found.append(Shard(shard_name(number), fingerprint, start, start + len(entries), len(entries)))
        return found

    def fingerprint(self) -> str:
        """Digest of every input's path, caption and content, wherever the folder lies."""
        return digest_shards(self._shards)

    def shards(self) -> Sequence[Shard]:
        """Runs of inputs: rows of metadata in their order, then the images that no metadata lists."""
        return self._shards

    def read(self, shard: Shard, *, keys: Collection[str] | None = None) -> Iterator[SourceItem]:
        """Read the files of a shard."""
        for entry in self.entries[shard.start:shard.stop]:
            if keys is None or entry.key in keys:
                yield read_entry(entry)

    def labels(self, categories: Collection[str]) -> list[SourceLabel]:
        """None: a folder brings no labels."""
        return []


def read_entry(entry: Entry) -> SourceItem:
    """Read one image file; whatever is wrong becomes the item's error."""
    image, reason, error = None, entry.reason, entry.error
    if entry.image is not None:
        try:
            image = entry.image.read_bytes()
        except FileNotFoundError:
            reason, error = "missing", f"image {entry.key} is missing"
        except OSError as problem:
            reason, error = "unreadable", f"image {entry.key} cannot be read: {problem.strerror}"
    return SourceItem(entry.key, entry.key, image, entry.caption, reason, error)


def list_visible(root: Path) -> list[Path]:
    """Every file below a folder in a fixed order; names that start with a dot are not looked at."""
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(folder) / name for name in sorted(names) if not name.startswith(".")]
    return found


def digest_or_error(path: Path) -> str:
    """A file's SHA-256, or a mark that it cannot be read."""
    try:
        return sha256_file(path)
    except OSError as error:
        return f"unreadable: {error.errno}"


def list_entries(root: Path, caption_column: str) -> list[Entry]:
    """Every input of a folder, in order.

    Raises:
        SourceError: no image file at all, or metadata that cannot be parsed.
    """
    files = list_visible(root)
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    metadata_files = [path for path in files if path.name in METADATA_NAMES]
    if not images:
        raise SourceError(f"{root}: no images in this folder (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")
    folders = [path.parent for path in metadata_files]
    if len(set(folders)) != len(folders):
        raise SourceError(f"{root}: metadata.jsonl and metadata.csv lie in one folder; keep one of them")
    entries = [entry for path in metadata_files for entry in read_metadata(path, root, caption_column)]
    listed = {os.path.normpath(entry.image) for entry in entries if entry.image is not None}
    captions = {path.with_suffix(""): path for path in files if path.suffix.lower() == ".txt"}
    for image in images:
        if os.path.normpath(image) not in listed:
            entries.append(describe_unlisted(image, root, captions.get(image.with_suffix("")), bool(metadata_files)))
    if not metadata_files:
        described = {image.with_suffix("") for image in images}
        entries += [Entry(key_of(path, root), None, None, "missing", f"caption {key_of(path, root)} has no image beside it")
                    for stem, path in captions.items() if stem not in described]
    return entries


def key_of(path: Path, root: Path) -> str:
    """A path relative to the folder, as text; bytes that are not UTF-8 are written as escapes."""
    relative = path.relative_to(root).as_posix()
    return relative.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def describe_unlisted(image: Path, root: Path, caption_file: Path | None, has_metadata: bool) -> Entry:
    """The entry of an image that no metadata lists: its caption comes from the text file beside it."""
    key = key_of(image, root)
    if caption_file is None:
        where = "is not in the metadata and" if has_metadata else ""
        return Entry(key, image, None, "caption", " ".join(f"image {key} {where} has no {image.stem}.txt beside it".split()))
    try:
        text = caption_file.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return Entry(key, image, None, "caption", f"caption of {key} is not UTF-8")
    except OSError as error:
        return Entry(key, image, None, "caption", f"caption of {key} cannot be read: {error.strerror}")
    return check_caption(key, image, text.removesuffix("\n").removesuffix("\r"))


def check_caption(key: str, image: Path, caption: Any) -> Entry:
    """The entry of an image with a caption, unless the caption is missing, empty or not UTF-8."""
    if caption is None or (isinstance(caption, str) and not caption.strip()):
        return Entry(key, image, None, "caption", f"caption of {key} is missing")
    if not isinstance(caption, str):
        return Entry(key, image, None, "caption", f"caption of {key} is {type(caption).__name__}, expected text")
    if any("\ud800" <= letter <= "\udfff" for letter in caption):
        return Entry(key, image, None, "caption", f"caption of {key} is not UTF-8")
    return Entry(key, image, caption)


def read_metadata(path: Path, root: Path, caption_column: str) -> list[Entry]:
    """The entries of one metadata file.

    Raises:
        SourceError: it cannot be read or parsed, or has no column `file_name`.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from error
    rows = parse_jsonl(text, path) if path.suffix == ".jsonl" else parse_csv(text, path)
    entries = []
    for line, row in rows:
        name = row.get("file_name")
        if not isinstance(name, str) or not name:
            raise SourceError(f"{path}, line {line}: no file_name; each row needs the image's path in the column file_name")
        entries.append(place_row(path.parent / name, root, row.get(caption_column)))
    return entries


def place_row(image: Path, root: Path, caption: Any) -> Entry:
    """The entry of one row of metadata; a path that leads out of the folder is refused."""
    plain = Path(os.path.normpath(image))
    if not plain.is_relative_to(os.path.normpath(root)):
        name = os.path.relpath(plain, root).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        return Entry(name, None, None, "missing", f"image {name} lies outside of the folder")
    return check_caption(key_of(plain, Path(os.path.normpath(root))), plain, caption)


def parse_jsonl(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line number and row of each line of a JSON Lines file; empty lines are skipped."""
    for number, line in enumerate(io.StringIO(text), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
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

"""What a kind of source is: settings in the recipe that open what reads the data, and recognise their own kind of data."""

import os
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...errors import SourceError
from ...recipe.sources import SourceSettings
from .files import IMAGE_SUFFIXES, UNSUPPORTED_SUFFIXES, is_left_out, locate
from .source import Source

CAPTION_SUFFIXES = ("txt", "caption", "cap", "captions", "text")
METADATA_SUFFIXES = frozenset({".csv", ".jsonl", *(f".{suffix}" for suffix in CAPTION_SUFFIXES)})


@dataclass(frozen=True)
class Place:
    """What lies at a path, by names alone.

    Attributes:
        text: the path as somebody wrote it; it may be a pattern.
        path: where that is.
        files: ending, in small letters -> one file of it; of a folder, below it.
    """

    text: str
    path: Path
    files: Mapping[str, Path]

    @classmethod
    def of(cls, text: str) -> "Place":
        """Look at the names at a path; what `list_visible` leaves out is not looked at."""
        path = locate(text)
        return cls(text, path, first_files(path) if path.is_dir() else {path.suffix.lower(): path})

    @property
    def has_images(self) -> bool:
        """Whether a file is called as pictures are."""
        return bool(self.files.keys() & (IMAGE_SUFFIXES | UNSUPPORTED_SUFFIXES))

    def holds(self, suffix: str) -> bool:
        """Whether files of that ending are the data: they lie here, and this is no folder of images with captions beside them."""
        is_captioned = self.path.is_dir() and self.has_images and bool(self.files.keys() & METADATA_SUFFIXES)
        return suffix in self.files and not is_captioned


def first_files(folder: Path) -> dict[str, Path]:
    """One file of each suffix below a folder; what `list_visible` leaves out is not looked at."""
    found: dict[str, Path] = {}
    for place, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not is_left_out(name))
        for name in sorted(names):
            if not is_left_out(name):
                found.setdefault(os.path.splitext(name)[1].lower(), Path(place) / name)  # noqa: PTH122  (a folder may hold a million files)
    return found


@dataclass(frozen=True)
class Found:
    """What lies at a path.

    Attributes:
        source: the source that reads it.
        has_captions: whether captions were found.
        told: what was found, one sentence or more.
    """

    source: SourceSettings
    has_captions: bool
    told: str


class SourceKind(SourceSettings):
    """Base of the kinds of sources. A kind is the model of its settings; `kinds.KINDS` lists all."""

    @classmethod
    def look_at(cls, place: Place) -> Found | None:
        """What this kind finds at a path, for `glideslope init`; None where it is nothing for this kind. No picture is decoded.

        Raises:
            SourceError: it is for this kind, but is damaged, or holds nothing that is read.
        """
        return None

    @abstractmethod
    def open(self, *, shard_size: int) -> Source:
        """Open the source.

        Args:
            shard_size: inputs per shard where the source has no shards of its own.

        Raises:
            SourceError: it cannot be opened as a whole; single bad inputs are reported row by row instead.
        """

    def describe_keys(self) -> str:
        """What to do where many inputs have the same key."""
        return "Give each input a name of its own"


def open_source(settings: SourceSettings, *, shard_size: int) -> Source:
    """Open a source; see `SourceKind.open`.

    Raises:
        SourceError: it cannot be opened, or its settings are of no kind that is read.
    """
    return as_kind(settings).open(shard_size=shard_size)


def as_kind(settings: SourceSettings) -> SourceKind:
    """The settings with all that their kind can do.

    Raises:
        SourceError: no kind of source has such settings.
    """
    if not isinstance(settings, SourceKind):
        raise SourceError(f"source: {type(settings).__name__} (kind {settings.kind!r}) is no kind of source that can be opened")
    return settings

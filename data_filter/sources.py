"""Where images and captions come from.

A source knows its inputs (keys, concepts) without reading a single image, gives them out shard by shard in a fixed
order, and turns whatever is wrong with one input into an item with an error, never into an exception.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..config import FolderSource, OpenMojiSource

PROJECT_SALT = "glideslope"


@dataclass(frozen=True)
class SourceItem:
    """One input as it was found.

    Attributes:
        key: name of the input, unique in a sound source.
        concept: what it shows; variants of one concept share it. Where a source knows no concepts: the key.
        image: the original bytes, or None when they could not be had.
        caption: the caption as it stands in the data, or None when there is no usable one.
        reason: "" or the kind of refusal: `missing`, `unreadable` or `caption`.
        error: None or one sentence on what is wrong.
    """

    key: str
    concept: str
    image: bytes | None
    caption: str | None
    reason: str = ""
    error: str | None = None


@dataclass(frozen=True)
class Shard:
    """A run of inputs: `start` (included) to `stop` (excluded) in the source's order."""

    number: int
    start: int
    stop: int


@dataclass(frozen=True)
class SourceLabel:
    """One label that comes with the data.

    Attributes:
        key: the input it judges.
        category: name of the category.
        label: 1 (counts) or 0 (does not).
        groups: group name -> value, for figures per group; may be empty.
    """

    key: str
    category: str
    label: int
    groups: Mapping[str, str] = field(default_factory=dict)


class Source(Protocol):
    """What the index and the curation need of a source."""

    def fingerprint(self) -> str:
        """Digest of everything the inputs depend on; equal fingerprints mean equal bytes and captions."""

    @property
    def keys(self) -> Sequence[str]:
        """The key of every input, in order; a key may occur twice, the index refuses the later ones."""

    def read(self, shard: Shard, *, keys: Collection[str] | None = None) -> Iterator[SourceItem]:
        """Read the inputs of a shard, in order; with `keys`, only those."""

    def labels(self, categories: Collection[str]) -> list[SourceLabel]:
        """The labels that come with the data for these categories; none for most sources."""


def open_source(config: OpenMojiSource | FolderSource) -> Source:
    """Open a source.

    Raises:
        SourceError: it cannot be opened as a whole; single bad inputs are reported row by row instead.
    """
    if isinstance(config, OpenMojiSource):
        from .openmoji import OpenMoji

        return OpenMoji(config)
    from .folder import ImageFolder

    return ImageFolder(Path(config.path), caption_column=config.caption_column)


def cut_shards(num_inputs: int, shard_size: int) -> list[Shard]:
    """Cut a source's inputs into runs of `shard_size`."""
    starts = range(0, num_inputs, shard_size)
    return [Shard(number, start, min(start + shard_size, num_inputs)) for number, start in enumerate(starts)]


def hash_share(*words: str) -> float:
    """A number in [0, 1) that depends on nothing but the words: the way this project draws without a generator."""
    digest = hashlib.sha256("/".join(words).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48

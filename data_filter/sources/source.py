"""Where images and captions come from.

A source gives out its inputs shard by shard in a fixed order, and turns whatever is wrong with one input into an item
with an error, never into an exception. Opening one is cheap: every worker process does it. Only `shards` and
`fingerprint` look at all content.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from ...errors import SourceError
from ...store.digests import sha256_json
from ...text.caption_words import CAPTION_BREAK
from ...text.one_line import one_line
from ...text.text_files import NotTextError, decode_text, strip_mark
from ...text.text_tables import read_json_text

PROJECT_SALT = "glideslope"
FIELD_PREFIX = "json:"  # before a JSON field's name, where a recipe says where captions are
MAX_CAPTION_LETTERS = 1 << 18  # far more than any model reads; a tokenizer takes time by the square of a word's letters
CAPTION = "caption"  # the reason of an input whose caption cannot be used; its image may be sound all the same


@dataclass(frozen=True)
class SourceItem:
    """One input as it was found.

    Attributes:
        key: name of the input, unique in a sound source.
        concept: what it shows; variants of one concept share it. Where a source knows no concepts: the key.
        image: the original bytes, or None when they could not be had.
        caption: the caption as it stands in the data, or None when there is no usable one.
        reason: "" or the kind of refusal: `missing`, `too large`, `unreadable` or, where nothing else is wrong, `caption`.
        error: None or one sentence on what is wrong.
        metadata: JSON text that came with the pair, kept as it stands; None when there is none.
        captions: all captions where the data gives several, each once and `caption` the first; empty elsewhere.
    """

    key: str
    concept: str
    image: bytes | None
    caption: str | None
    reason: str = ""
    error: str | None = None
    metadata: str | None = None
    captions: tuple[str, ...] = ()


class Captions(NamedTuple):
    """The captions of one input: the first, all of them where there are several (else none), and what is wrong with them."""

    first: str | None
    several: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Shard:
    """A part of a source that is read, embedded and resumed as one: a tar file, some rows of a table, some files of a folder.

    Attributes:
        name: stable and unique in the source; the name of the index file without its ending.
        fingerprint: digest of everything that the shard's inputs depend on.
        start, stop: the source's own numbering of what lies in it, `stop` excluded (inputs, or files where inputs are not counted).
        num_inputs: how many inputs there are, or None where that is not known before they are read.
        file: the file that holds them, relative to the source's root, where there is just one; "" elsewhere.
    """

    name: str
    fingerprint: str
    start: int
    stop: int
    num_inputs: int | None
    file: str = ""


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

    def look_ahead(self, *, needs_captions: bool) -> None:
        """Look at the first inputs, before anything is digested or embedded: a wrong setting shows there.

        Raises:
            SourceError: with these settings most inputs would be lost or, where they are needed, all captions.
        """

    def fingerprint(self) -> str:
        """Digest of everything the inputs depend on; equal fingerprints mean equal bytes and captions."""

    def shards(self) -> Sequence[Shard]:
        """The shards in their order; cheap beside reading them. A key may occur twice, also across shards: the index finds that."""

    def read(self, shard: Shard, *, keys: Collection[str] | None = None) -> Iterator[SourceItem]:
        """Read the inputs of a shard, in order; with `keys`, only those.

        Raises:
            SourceError: read to its end without `keys`, the shard turns out to be another than its fingerprint says.
        """

    def notes(self) -> Sequence[str]:
        """What whoever indexes the source should hear of it beside its inputs: one sentence each."""

    def labels(self, categories: Collection[str]) -> list[SourceLabel]:
        """The labels that come with the data for these categories; none for most sources."""


def shard_name(number: int) -> str:
    """Name of the shard of that number: `shard-00003`."""
    return f"shard-{number:05d}"


def digest_shards(shards: Sequence[Shard]) -> str:
    """Fingerprint of a source made of these shards."""
    return sha256_json([[shard.name, shard.fingerprint] for shard in shards])


def decode_captions(data: bytes | Sequence[bytes | None] | None, key: str) -> Captions:
    """The captions of an input from the bytes of one or of several; see `check_captions`."""
    if data is None or isinstance(data, bytes):
        caption, error = decode_caption(data, key)
        return Captions(caption, (), error)
    try:
        return check_captions([None if one is None else decode_text(one) for one in data], key)
    except NotTextError as error:
        return Captions(None, (), f"caption of {key} {error}")


def check_captions(value: Any, key: str) -> Captions:
    """The captions of an input: a text, or a list of texts in which empty ones and repetitions do not count.

    One that cannot be used makes all of them unusable: nobody could search it for words.
    """
    if not isinstance(value, list):
        caption, error = check_caption(value, key)
        return Captions(caption, (), error)
    texts: dict[str, None] = {}
    for one in value:
        if one is not None and not (isinstance(one, str) and not strip_mark(one).strip()):
            caption, error = check_caption(one, key)
            if caption is None:
                return Captions(None, (), error)
            texts[caption] = None
    if not texts:
        return Captions(None, (), f"caption of {key} is missing")
    first, *others = texts
    return Captions(first, (first, *others) if others else ())


def all_captions(caption: str | None, captions: Sequence[str] | None) -> tuple[str, ...]:
    """Every caption of an input, given its first and its list where it has several: as items, indexes and ledgers hold them."""
    return tuple(captions or ([] if caption is None else [caption]))


def joined_captions(caption: str | None, captions: Sequence[str] | None) -> str:
    """Every caption of an input as one line for people and for words that are looked for; "" where there is none."""
    return CAPTION_BREAK.join(all_captions(caption, captions))


def decode_caption(data: bytes | None, key: str) -> tuple[str | None, str | None]:
    """A caption from its bytes, as it stands, and what is wrong with it: the first is None when the second is not."""
    if data is None:
        return None, f"caption of {key} is missing"
    try:
        return check_caption(decode_text(data), key)
    except NotTextError as error:
        return None, f"caption of {key} {error}"


def decode_caption_field(data: bytes, name: str, key: str) -> Captions:
    """The captions from a field of a JSON file's bytes; see `check_captions`."""
    try:
        fields = read_json_text(decode_text(data))
    except NotTextError as error:
        return Captions(None, (), f"caption of {key} is in a file that {error}")
    except (ValueError, RecursionError) as error:
        return Captions(None, (), f"caption of {key} is in a file that is not JSON: {one_line(error)}")
    return check_captions(fields.get(name) if isinstance(fields, dict) else None, key)


def fields_with_text(fields: Mapping[str, Any]) -> list[str]:
    """The fields of a JSON object that could be captions: those that hold text, or lists of it."""
    return [name for name, value in fields.items() if check_captions(value, name).error is None]


def check_caption(caption: Any, key: str) -> tuple[str | None, str | None]:
    """A caption as it stands but for a byte order mark, unless it is missing, empty or no text; see `decode_caption`."""
    caption = strip_mark(caption) if isinstance(caption, str) else caption
    if caption is None or (isinstance(caption, str) and not caption.strip()):
        return None, f"caption of {key} is missing"
    if not isinstance(caption, str):
        return None, f"caption of {key} is {type(caption).__name__}, expected text"
    if not caption.isascii() and any("\ud800" <= letter <= "\udfff" for letter in caption):
        return None, f"caption of {key} is not UTF-8"
    if len(caption) > MAX_CAPTION_LETTERS:
        return None, f"caption of {key} is too long: {len(caption)} letters, at most {MAX_CAPTION_LETTERS} are read"
    if "\0" in caption:
        return None, f"caption of {key} holds a zero byte, which text does not hold"
    return caption, None


def describe_item(item: SourceItem) -> list[Any]:
    """What a fingerprint says of an input that was read: everything the index writes of it."""
    image = None if item.image is None else hashlib.sha256(item.image).hexdigest()
    return [item.key, list(item.captions) or item.caption, item.metadata, item.reason, item.error, image]


def refuse_changed(shard: Shard, fingerprint: str) -> None:
    """Compare a shard that was read with what it was when the shards were listed.

    Raises:
        SourceError: it is another.
    """
    if fingerprint != shard.fingerprint:
        raise SourceError(f"source: {shard.file or shard.name} changed while it was read; leave the data alone and run the command again")


def hash_share(*words: str) -> float:
    """A number in [0, 1) that depends on nothing but the words: the way this project draws without a generator."""
    digest = hashlib.sha256("/".join(words).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48

"""What looks at data have in common: names that captions go by, and the columns of a table."""

from collections import Counter
from collections.abc import Iterable, Sequence

import pyarrow as pa

from ...errors import SourceError
from .kind import Found, SourceKind
from .tables import ADDRESS_HINT, guess_columns, lists_addresses


def look_at_columns(schema: pa.Schema, told: str, source: SourceKind) -> Found:
    """The columns of a table, as a source with the keys `image_column` and `caption_column` takes them.

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


def choose(names: Iterable[str] | Counter[str], known: Sequence[str]) -> str | None:
    """The name that comes first among the known ones, whatever its capitals; else one that has `caption` in it; None: there is none."""
    there = list(names)
    named = [name for one in known for name in there if name.lower() == one] + [name for name in there if "caption" in name.lower()]
    return named[0] if named else None


def count(number: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

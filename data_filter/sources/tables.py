"""Rows of Arrow tables as inputs: which columns hold what, and how a cell becomes an image, a caption, a key or JSON."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from ...errors import SourceError
from ...store.digests import canonical_json
from .files import Unreadable
from .source import CAPTION, SourceItem, decode_captions

BATCH_ROWS = 64  # rows in memory at once; 64 photographs of 10 MB stay below 1 GB
KEY_DIGITS = 32
IMAGE_COLUMNS = ("image", "img", "jpg", "png", "webp", "picture", "image_path", "file_name", "path")
CAPTION_COLUMNS = ("text", "caption", "captions", "prompt", "description", "sentence", "title", "alt_text", "txt")
ADDRESS_COLUMNS = ("url", "image_url", "img_url", "image_link", "link")
ADDRESS_HINT = ("It lists web addresses of images: download the images first, with img2dataset for example, and name the tars or files that it "
                "writes as the source")
MOST_LOOKED_AT = 64
MOST_PATH_LETTERS = 512

ReadPath = Callable[[str], bytes]


@dataclass(frozen=True)
class Columns:
    """The columns that hold an input.

    Attributes:
        image: bytes, a path, or a struct with `bytes`, `path` or both.
        caption: text; None: there are no captions.
        key: text or integers; None: the key is a digest of image and caption.
    """

    image: str
    caption: str | None
    key: str | None


class RowCells(NamedTuple):
    """The cells of one row: bytes or None each, several captions as a list; `extra` is its metadata and what is wrong with that."""

    image: bytes | None
    path: bytes | None
    key: bytes | None
    caption: bytes | list[bytes | None] | None
    extra: tuple[str | None, str | None]


@dataclass(frozen=True)
class TableRow:
    """One row as an input.

    Attributes:
        item: the input.
        is_external: whether its image was to be read from a file of its own.
    """

    item: SourceItem
    is_external: bool


def check_columns(schema: pa.Schema, columns: Columns, where: str) -> None:
    """Refuse a table that lacks a column or has another type there.

    Raises:
        SourceError: it does.
    """
    wanted = [("image_column", columns.image, is_image_type, "bytes, a path, or a struct with bytes or path")]
    if columns.caption is not None:
        wanted.append(("caption_column", columns.caption, is_caption_type, "text, or lists of it"))
    if columns.key is not None:
        wanted.append(("key_column", columns.key, is_key_type, "text or integers"))
    for setting, name, accepts, expected in wanted:
        found = schema.names.count(name)
        if found != 1:
            many = "no" if not found else f"{found} times the"
            what_to_do = f"name one with source.{setting}"
            if setting == "caption_column":
                what_to_do += ", or none (null) where there are no captions"
            elif setting == "image_column" and guess_columns(schema)[0] is None and lists_addresses(schema):
                what_to_do = ADDRESS_HINT
            raise SourceError(f"{where}: {many} column {name} (found {', '.join(schema.names) or 'none'}); {what_to_do}")
        if not accepts(schema.field(name).type):
            raise SourceError(f"{where}: column {name} is {schema.field(name).type}, expected {expected}; name another with source.{setting}")


def guess_columns(schema: pa.Schema) -> tuple[str | None, str | None]:
    """The columns that are called as images and captions mostly are, and hold what they hold; None where there is none.

    Of images that are called otherwise, a column of structs with bytes counts, then one of bytes.
    """
    fields = [field for field in schema if schema.names.count(field.name) == 1]
    image = next((field.name for field in in_order(fields, IMAGE_COLUMNS) if is_image_type(field.type)), None)
    for test in (types.is_struct, lambda kind: is_text_type(kind) and not is_path_type(kind) and not types.is_null(kind)):
        image = image or next((field.name for field in fields if test(field.type) and is_image_type(field.type)), None)
    named = in_order(fields, CAPTION_COLUMNS) + [field for field in fields if "caption" in field.name.lower()]
    return image, next((field.name for field in named if is_text_or_texts(field.type) and field.name != image), None)


def is_text_or_texts(kind: pa.DataType) -> bool:
    """Whether a type holds text, or lists of it, and no bytes."""
    return is_path_type(kind.value_type if is_list_type(kind) else kind)


def in_order(fields: Sequence[pa.Field], names: Sequence[str]) -> list[pa.Field]:
    """The fields that have one of these names, whatever their capitals, in the order of the names."""
    return [field for name in names for field in fields if field.name.lower() == name]


def lists_addresses(schema: pa.Schema) -> bool:
    """Whether a column is called as those are that hold web addresses of images."""
    return any(name.lower() in ADDRESS_COLUMNS for name in schema.names)


def refuse_rows(rows: Iterable[TableRow], columns: Columns, where: str, *, needs_captions: bool) -> None:
    """Refuse a table of whose first rows none has an image or, where that is needed, a caption.

    Args:
        rows: the table from its start; `MOST_LOOKED_AT` are taken.
        columns: what holds what.
        where: name of the table, for the message.
        needs_captions: whether an input without a caption is of no use.

    Raises:
        SourceError: so it is.
    """
    optional = "or, to filter images without captions, set curate.captions to optional"
    if needs_captions and columns.caption is None:
        raise SourceError(f"{where}: source.caption_column is none, but captions are required. Name the column; {optional}")
    first = [row.item for row in islice(rows, MOST_LOOKED_AT)]
    if first and all(item.image is None for item in first):
        told = f"{where}: none of the first {len(first)} rows has an image in column {columns.image}"
        if first[0].key.lower().startswith(("http://", "https://")):
            raise SourceError(f"{told}. {ADDRESS_HINT}")
        if len(first[0].key) > MOST_PATH_LETTERS:
            raise SourceError(f"{told}: its text is too long for paths; where it is base64, write the column anew as bytes")
        raise SourceError(f"{told}; {(first[0].error or '')[:300]}. Name another with source.image_column, or mend the files")
    if needs_captions and first and all(item.caption is None for item in first):
        raise SourceError(f"{where}: none of the first {len(first)} rows has a caption in column {columns.caption}. Name another with "
                          f"source.caption_column; {optional}")


def describe_key_column(column: str) -> str:
    """What to do where many rows have the same key in a column."""
    return f"Column {column} does not name the rows: name another with source.key_column, or none (null)"


def is_text_type(kind: pa.DataType) -> bool:
    """Whether a type holds text, or bytes that may be text."""
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return any(test(kind) for test in (types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary,
                                       types.is_binary_view, types.is_null))


def is_caption_type(kind: pa.DataType) -> bool:
    """Whether a type holds a caption, or a list of captions."""
    return is_text_type(kind) or (is_list_type(kind) and is_text_type(kind.value_type))


def is_list_type(kind: pa.DataType) -> bool:
    """Whether a type holds lists."""
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def is_path_type(kind: pa.DataType) -> bool:
    """Whether a type holds paths rather than bytes."""
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def is_image_type(kind: pa.DataType) -> bool:
    """Whether a type holds images as bytes, as paths, or as a struct of both."""
    if not types.is_struct(kind):
        return is_text_type(kind)
    parts = [field.type for field in kind if field.name in ("bytes", "path")]
    return bool(parts) and all(is_text_type(part) for part in parts)


def is_key_type(kind: pa.DataType) -> bool:
    """Whether a type holds keys."""
    return is_text_type(kind) or bool(types.is_integer(kind))


def is_json_type(kind: pa.DataType) -> bool:
    """Whether JSON can hold the values of a type: null, truth, numbers, text, and lists and structs of them."""
    if types.is_dictionary(kind):
        return is_json_type(kind.value_type)
    if types.is_struct(kind):
        return all(is_json_type(field.type) for field in kind)
    if is_list_type(kind):
        return is_json_type(kind.value_type)
    return bool(types.is_null(kind) or types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind) or is_path_type(kind))


def is_written_type(kind: pa.DataType) -> bool:
    """Whether JSON holds the values of a type as text: times, dates, decimals."""
    return bool(types.is_timestamp(kind) or types.is_date(kind) or types.is_time(kind) or types.is_decimal(kind))


def json_names(schema: pa.Schema, columns: Columns) -> list[str]:
    """The columns that go along as metadata: times and decimals as text, whatever else JSON can hold as it is."""
    own = {columns.image, columns.caption, columns.key}
    return [field.name for field in schema if field.name not in own and schema.names.count(field.name) == 1
            and (is_json_type(field.type) or is_written_type(field.type))]


def used_names(schema: pa.Schema, columns: Columns) -> list[str]:
    """Every column that is read."""
    return [name for name in (columns.image, columns.caption, columns.key) if name is not None] + json_names(schema, columns)


def read_rows(batch: pa.RecordBatch | pa.Table, columns: Columns, *, read_path: ReadPath, where: str,
              first_row: int) -> Iterator[TableRow]:
    """The rows of a batch as inputs.

    Args:
        batch: some rows.
        columns: what holds what.
        read_path: gives the bytes of an image's file; raises Unreadable.
        where: name of the table, for messages.
        first_row: number of the batch's first row in that table.
    """
    images, paths = image_cells(batch[columns.image])
    captions = [None] * len(images) if columns.caption is None else caption_cells(batch[columns.caption])
    keys = [None] * len(images) if columns.key is None else key_cells(batch[columns.key])
    extras = metadata_cells(batch, json_names(batch.schema, columns))
    for place, cells in enumerate(zip(images, paths, keys, captions, extras, strict=True)):
        yield make_row(RowCells(*cells), columns, read_path=read_path, name=f"row {first_row + place} of {where}")


def make_row(cells: RowCells, columns: Columns, *, read_path: ReadPath, name: str) -> TableRow:
    """One row as an input; the first thing wrong with it is named."""
    image, reason, error = cells.image, "", None
    is_external = image is None and cells.path is not None
    if is_external:
        image, reason, error = read_external(read_path, cells.path or b"", name)
    elif image is None:
        reason, error = "missing", f"{name} has no image"
    key, key_error = (None, None) if columns.key is None else check_key(cells.key, columns.key, name)
    if key is None and is_external and image is None:
        key = path_text(cells.path or b"")
    elif key is None:
        key = content_key(image, cells.caption)
    captions = decode_captions(cells.caption, key)
    metadata, metadata_error = cells.extra[0], cells.extra[1] and f"{name} {cells.extra[1]}"
    problems = [(reason, error), ("missing", key_error), ("unreadable", metadata_error), (CAPTION, captions.error)]
    reason, error = next(((reason, error) for reason, error in problems if error), ("", None))
    return TableRow(SourceItem(key, key, image, captions.first, reason, error, metadata, captions.several), is_external)


def unfolded_bytes(column: pa.Array | pa.ChunkedArray) -> int:
    """How many bytes the values of a column have, each as often as it stands there, whatever dictionaries stand for them in memory."""
    if isinstance(column, pa.ChunkedArray):
        return sum(map(unfolded_bytes, column.chunks))
    kind = column.type
    if types.is_struct(kind):
        return sum(map(unfolded_bytes, column.flatten()))
    if is_list_type(kind):
        return unfolded_bytes(column.flatten())
    if types.is_dictionary(kind) and is_text_type(kind):
        return int(pc.sum(pc.take(pc.binary_length(column.dictionary), column.indices)).as_py() or 0) + int(column.indices.nbytes)
    return int(column.nbytes)


def content_key(image: bytes | None, caption: bytes | Sequence[bytes | None] | None) -> str:
    """A key that follows from the data alone: 32 hex digits of the SHA-256 of the image, and a zero byte and the text of each caption."""
    digest = hashlib.sha256(image or b"")
    for one in [caption] if caption is None or isinstance(caption, bytes) else caption:
        if one is not None:
            digest.update(b"\0" + one)
    return digest.hexdigest()[:KEY_DIGITS]


def read_external(read_path: ReadPath, path: bytes, name: str) -> tuple[bytes | None, str, str | None]:
    """The bytes of an image's file, or reason and error."""
    text = path_text(path)
    try:
        return read_path(path.decode("utf-8", "surrogateescape")), "", None
    except Unreadable as problem:
        return None, problem.reason, f"image {text} ({name}) {problem.problem}"


def path_text(path: bytes) -> str:
    """A path as text."""
    return path.decode("utf-8", "backslashreplace")


def check_key(key: bytes | None, column: str, name: str) -> tuple[str | None, str | None]:
    """The key as text, and what is wrong with it."""
    if not key:
        return None, f"{name} has no key in column {column}"
    try:
        return key.decode("utf-8"), None
    except UnicodeDecodeError:
        return path_text(key), f"the key of {name} is not UTF-8"


def text_cells(column: pa.Array | pa.ChunkedArray) -> list[bytes | None]:
    """Cells of text or bytes as bytes: Arrow does not check that text is UTF-8."""
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(pa.large_binary()).to_pylist()  # type: ignore[no-any-return]  # pyarrow has no types


def caption_cells(column: pa.Array | pa.ChunkedArray) -> list[bytes | list[bytes | None] | None]:
    """Cells of captions as bytes, or as lists of them."""
    if not is_list_type(column.type):
        return [*text_cells(column)]
    return column.cast(pa.large_list(pa.large_binary())).to_pylist()  # type: ignore[no-any-return]  # pyarrow has no types


def key_cells(column: pa.Array | pa.ChunkedArray) -> list[bytes | None]:
    """Cells of keys as bytes; integers in decimal digits."""
    return text_cells(column.cast(pa.string()) if types.is_integer(column.type) else column)


def image_cells(column: pa.Array | pa.ChunkedArray) -> tuple[list[bytes | None], list[bytes | None]]:
    """Bytes and paths of a column of images, cell by cell; an empty path is none."""
    nothing: list[bytes | None] = [None] * len(column)
    if not types.is_struct(column.type):
        cells = text_cells(column)
        return (nothing, [cell or None for cell in cells]) if is_path_type(column.type) else (cells, nothing)
    names = [field.name for field in column.type]
    images = text_cells(pc.struct_field(column, "bytes")) if "bytes" in names else nothing
    paths = text_cells(pc.struct_field(column, "path")) if "path" in names else nothing
    return images, [path or None if image is None else None for image, path in zip(images, paths, strict=True)]


def metadata_cells(batch: pa.RecordBatch | pa.Table, names: Sequence[str]) -> list[tuple[str | None, str | None]]:
    """Canonical JSON of the other columns of each row, and what is wrong with it; None without other columns."""
    if not names:
        return [(None, None)] * batch.num_rows
    columns = []
    for name in names:
        column = batch[name]
        if types.is_timestamp(column.type):
            column = write_times(column)
        elif is_written_type(column.type):
            column = column.cast(pa.string())
        columns.append(column)
    try:
        rows = zip(*(column.to_pylist() for column in columns), strict=True)
        return [(canonical_json(json_value(dict(zip(names, row, strict=True)))), None) for row in rows]
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [(None, "has text that is not UTF-8")]
        return [cell for place in range(batch.num_rows) for cell in metadata_cells(batch.slice(place, 1), names)]


def write_times(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Points in time as text; in UTC where this machine does not know their zone."""
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        return column.cast(pa.timestamp(column.type.unit, "UTC")).cast(pa.string())


def json_value(value: Any) -> Any:
    """A value as JSON can hold it: NaN and the infinities become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: json_value(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [json_value(inner) for inner in value]
    return value

"""Parquet files from strangers: what reading one would take, told from the headers of its pages before anything is unpacked.

The footer may say anything, and a reader allocates what a page's own header states. So every header is read here, page by page, by the
layout of the Parquet format (parquet.thrift; Thrift's compact protocol). Files that this project writes hold plain pages alone: no
dictionaries and no deltas, with which a few bytes can stand for values of any size. In files of others one value may stand for many, so that
few rows are read at once, and what they unfold to is counted.
"""

import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

MAGIC = b"PAR1"
MAX_FOOTER_BYTES = 1_000_000  # a structure of three bytes there takes some hundred in memory
USUAL_HEADER_BYTES, MAX_HEADER_BYTES = 512, 65_536
MAX_PAGES = 1_000_000
MAX_NESTING = 8
MAX_LEVELS_OF_COLUMN = 3  # a list of values, a map of values: each level is an object a row for whoever reads it
BYTES_OF_VALUE = 8  # that a value takes in memory at least, if the page that holds it says it takes none (a null)
DATA_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = 0, 2, 3
PLAIN, DELTA_BYTE_ARRAY = 0, 7  # encodings; in the latter a value is the start of the one before it, and what follows
# Of files of others: what is read of a file of any size, and per byte of it. Data sets stay far below: pictures hardly shrink.
FREE_BYTES, MAX_EXPANSION, MAX_REPEATS = 1 << 27, 100, 1000  # of pages; a picture may stand in hundreds of rows
FREE_ROWS, ROWS_OF_BYTE = 1 << 16, 16
FREE_VALUES, VALUES_OF_BYTE = 1 << 24, 64  # items of lists
INTEGERS, TRUE, FALSE, DOUBLE, BINARY, LIST, SET, STRUCT = (4, 5, 6), 1, 2, 7, 8, 9, 10, 12
PLAIN_TYPES = frozenset({"BOOLEAN", "INT32", "INT64", "FLOAT", "DOUBLE", "BYTE_ARRAY"})  # of others a value has the size that the footer says
INT16, INT32 = 2**15 - 1, 2**31 - 1
Fields = dict[int, Any]


@dataclass(frozen=True)
class Budget:
    """What a file may take.

    Attributes:
        max_bytes: of all pages, unpacked.
        max_values: of any one column; nulls and items of lists count.
        max_rows: of the file.
        only_plain: refuse dictionaries and every encoding but the plain one, as files of ours have none.
    """

    max_bytes: int
    max_values: int
    max_rows: int
    only_plain: bool = True


class Page(NamedTuple):
    """What a page's header states: its kind, its bytes unpacked, its values (0 for a dictionary) and their encoding."""

    kind: int
    unpacked: int
    num_values: int
    encoding: int | None


class GroupCost(NamedTuple):
    """What reading columns of a row group takes.

    Attributes:
        packed: bytes that they have in the file.
        shared: bytes that a row's values can have at most though other rows have the same: of dictionaries, and of prefixes.
    """

    packed: int
    shared: int


def check_rows(metadata: Any, size_bytes: int, *, free: int = FREE_ROWS) -> None:
    """Refuse a footer that states more rows of a row group than there can be in a file of such a size.

    Raises:
        ValueError: so it is.
    """
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        packed = sum(group.column(column).total_compressed_size for column in range(group.num_columns))
        most = free + ROWS_OF_BYTE * max(0, min(packed, size_bytes))
        if not 0 <= group.num_rows <= most:
            raise ValueError(f"row group {number} states {group.num_rows} rows in {size_bytes} bytes, at most {most} are read")


def measure_group(file: BinaryIO, metadata: Any, group: int, names: Collection[str]) -> GroupCost:
    """What reading columns of a row group takes, by the headers of their pages.

    Args:
        file: the parquet file.
        metadata: its footer, as pyarrow has read it.
        group: number of the row group.
        names: the columns, with all that lies in them.

    Raises:
        ValueError: they take more than any data set does, or their pages are not where the footer says.
        OSError: the file cannot be read.
    """
    size_bytes = file.seek(0, 2)
    held = packed = shared = 0
    for column in range(metadata.num_columns):
        chunk, is_list = metadata.row_group(group).column(column), metadata.schema.column(column).max_repetition_level > 0
        if not any(chunk.path_in_schema == name or chunk.path_in_schema.startswith(f"{name}.") for name in names):
            continue
        pages = read_chunk(file, first_page(chunk), chunk.total_compressed_size, size_bytes)
        dictionary = max((page.unpacked for page in pages if page.kind == DICTIONARY_PAGE), default=0)
        prefixed = max((page.unpacked for page in pages if page.encoding == DELTA_BYTE_ARRAY), default=0)
        if is_list and prefixed:
            raise ValueError(f"column {chunk.path_in_schema} holds lists of text as prefixes, whose size nothing tells; write it anew, plainly")
        num_values = sum(page.num_values for page in pages)
        if is_list and num_values > FREE_VALUES + VALUES_OF_BYTE * chunk.total_compressed_size:
            raise ValueError(f"the lists of column {chunk.path_in_schema} have {num_values} items in {chunk.total_compressed_size} bytes")
        held += dictionary + max((page.unpacked for page in pages if page.kind != DICTIONARY_PAGE), default=0)
        packed += chunk.total_compressed_size
        shared += 0 if is_list else max(dictionary, prefixed)  # lists are read as dictionaries
    packed = min(packed, size_bytes)
    if held > FREE_BYTES + MAX_EXPANSION * packed:
        raise ValueError(f"its pages unfold from {packed} to more than {FREE_BYTES + MAX_EXPANSION * packed} bytes; write the file anew with "
                         "smaller row groups")
    return GroupCost(packed, shared)


def first_page(chunk: Any) -> int:
    """Where the pages of a column chunk begin."""
    starts = [chunk.data_page_offset, *([chunk.dictionary_page_offset] if chunk.has_dictionary_page else [])]
    return min([start for start in starts if start > 0], default=0)


def open_bounded(path: Path, budget: Budget) -> Any:
    """Open a parquet file (`pyarrow.parquet.ParquetFile`) after its pages were held against a budget.

    Raises:
        ValueError: it is no parquet file, or takes more than the budget, or its pages are not where the footer says, or it has columns
            that are not read.
        OSError, pyarrow.ArrowException: it cannot be read.
    """
    from pyarrow import parquet

    with path.open("rb") as file:
        size_bytes = file.seek(0, 2)
        check_footer(file, size_bytes)
        opened = parquet.ParquetFile(path, thrift_string_size_limit=MAX_FOOTER_BYTES, thrift_container_size_limit=MAX_PAGES)
        metadata = opened.metadata
        if metadata.num_rows > budget.max_rows:
            raise ValueError(f"{metadata.num_rows} rows in {size_bytes} bytes, at most {budget.max_rows} are read")
        if budget.only_plain:
            check_columns(metadata)
        num_bytes, values = 0, [0] * metadata.num_columns
        for group in range(metadata.num_row_groups):
            for column in range(metadata.num_columns):
                chunk = metadata.row_group(group).column(column)
                for page in read_chunk(file, first_page(chunk), chunk.total_compressed_size, size_bytes, only_plain=budget.only_plain):
                    num_bytes, values[column] = num_bytes + page.unpacked + BYTES_OF_VALUE * page.num_values, values[column] + page.num_values
                    if num_bytes > budget.max_bytes or values[column] > budget.max_values:
                        raise ValueError(f"its {size_bytes} bytes unfold to more than {budget.max_bytes}, or to more than "
                                         f"{budget.max_values} values in a column")
    return opened


def check_columns(metadata: Any) -> None:
    """Refuse columns of types that no file of ours has, or that lie deep in one another, and row groups without all columns.

    Raises:
        ValueError: there is one.
    """
    for number in range(metadata.num_columns):
        column = metadata.schema.column(number)
        if column.physical_type not in PLAIN_TYPES:
            raise ValueError(f"its column {column.name[:80]!r} has the type {column.physical_type}, which is not read")
        if column.path.count(".") + 1 > MAX_LEVELS_OF_COLUMN or column.max_definition_level > 2 * MAX_LEVELS_OF_COLUMN:
            raise ValueError(f"its column {column.path[:80]!r} lies more than {MAX_LEVELS_OF_COLUMN} deep")
    for group in range(metadata.num_row_groups):
        if (found := metadata.row_group(group).num_columns) != metadata.num_columns:
            raise ValueError(f"row group {group} has {found} columns, the file {metadata.num_columns}")


def check_footer(file: BinaryIO, size_bytes: int) -> None:
    """Refuse what does not end like a parquet file, or whose footer is larger than is read."""
    file.seek(max(0, size_bytes - 8))
    tail = file.read(8)
    if size_bytes < 12 or tail[4:] != MAGIC:
        raise ValueError("its end is not that of a parquet file")
    footer = struct.unpack("<I", tail[:4])[0]
    if footer > min(MAX_FOOTER_BYTES, size_bytes - 12):
        raise ValueError(f"its footer has {footer} bytes, at most {min(MAX_FOOTER_BYTES, size_bytes - 12)} are read")


def read_chunk(file: BinaryIO, start: int, length: int, size_bytes: int, *, only_plain: bool = False) -> list[Page]:
    """What the header of each page of a column chunk states.

    Raises:
        ValueError: a page that is not plain where only such are read, or pages that do not fill the chunk.
    """
    pages: list[Page] = []
    place = start
    if start < 0 or length < 0 or start + length > size_bytes:
        raise ValueError("a column's pages lie outside of the file")
    while place < start + length and len(pages) < MAX_PAGES:
        fields, used = read_header(file, place, start + length)
        kind, unpacked, packed = (fields.get(number, -1) for number in (1, 2, 3))
        if not all(isinstance(value, int) and value >= 0 for value in (kind, unpacked, packed)):
            raise ValueError("a page's header states no sizes")
        inner = fields.get({DATA_PAGE: 5, DICTIONARY_PAGE: 7, DATA_PAGE_V2: 8}.get(kind, 0))
        if not isinstance(inner, dict) or not isinstance(inner.get(1), int) or inner[1] < 0:
            raise ValueError(f"a page of kind {kind} is not read")
        encoding = inner.get(4 if kind == DATA_PAGE_V2 else 2)
        if only_plain and (kind == DICTIONARY_PAGE or encoding != PLAIN):
            raise ValueError("holds a page with a dictionary or deltas; files of a release hold plain pages")
        pages.append(Page(kind, unpacked, 0 if kind == DICTIONARY_PAGE else inner[1], None if kind == DICTIONARY_PAGE else encoding))
        place += used + packed
    if place != start + length:
        raise ValueError("a column's pages do not fill the place that the footer gives them")
    return pages


def read_header(file: BinaryIO, place: int, end: int) -> tuple[Fields, int]:
    """The header of the page at a place, and how many bytes it has; most are short, one with statistics may be long."""
    file.seek(place)
    try:
        return read_struct(file.read(min(USUAL_HEADER_BYTES, end - place)), 0)
    except ValueError:
        file.seek(place)
        return read_struct(file.read(min(MAX_HEADER_BYTES, end - place)), 0)


def read_struct(data: bytes, place: int, depth: int = 0) -> tuple[Fields, int]:
    """One structure in Thrift's compact protocol: field number -> value, and where it ends.

    Raises:
        ValueError: it is cut off, nested too deep, or holds a type that there is not.
    """
    if depth > MAX_NESTING:
        raise ValueError("a page's header is nested too deep")
    fields: Fields = {}
    number = 0
    try:
        while True:
            sign, place = data[place], place + 1
            if sign == 0:
                return fields, place
            if sign >> 4:
                number += sign >> 4
            else:
                number, place = read_integer(data, place)
            if not 0 < number <= INT16 or number in fields:  # readers differ on which of two fields counts
                raise ValueError(f"a page's header holds the field {number} twice, or there is no such field")
            fields[number], place = read_value(data, place, sign & 15, depth)
    except IndexError as error:
        raise ValueError("a page's header is cut off") from error


def read_value(data: bytes, place: int, kind: int, depth: int) -> tuple[Any, int]:
    """A value of a structure; lists and maps are passed over."""
    if kind in (TRUE, FALSE):
        return kind == TRUE, place
    if kind in INTEGERS:
        value, place = read_integer(data, place)
        return value if -INT32 <= value <= INT32 else None, place  # sizes and counts have 32 bits; a longer number is none
    if kind == STRUCT:
        return read_struct(data, place, depth + 1)
    if kind == BINARY:
        length, place = read_varint(data, place)
        if place + length > len(data):
            raise IndexError
        return None, place + length
    if kind in (3, DOUBLE):
        return None, place + (1 if kind == 3 else 8)
    if kind in (LIST, SET):
        sign, place = data[place], place + 1
        length, inner = sign >> 4, sign & 15
        if length == 15:
            length, place = read_varint(data, place)
        for _ in range(min(length, len(data))):
            _, place = (None, place + 1) if inner in (TRUE, FALSE) else read_value(data, place, inner, depth + 1)
        return None, place
    raise ValueError(f"a page's header holds a field of type {kind}")


def read_varint(data: bytes, place: int) -> tuple[int, int]:
    """An unsigned number of at most ten bytes, seven bits in each."""
    value = 0
    for shift in range(0, 70, 7):
        byte, place = data[place], place + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("a page's header holds a number of more than ten bytes")


def read_integer(data: bytes, place: int) -> tuple[int, int]:
    """A signed number, its sign in the lowest bit."""
    value, place = read_varint(data, place)
    return (value >> 1) ^ -(value & 1), place

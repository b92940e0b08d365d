"""Parquet files from strangers: what reading one would take, told from the headers of its pages before anything is unpacked.

The footer may say anything, and a reader allocates what a page's own header states. So every header is read here, page by page, by the
layout of the Parquet format (parquet.thrift; Thrift's compact protocol). Files that this project writes hold plain pages alone: no
dictionaries and no deltas, with which a few bytes can stand for values of any size.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

MAGIC = b"PAR1"
MAX_FOOTER_BYTES = 16_000_000
USUAL_HEADER_BYTES, MAX_HEADER_BYTES = 512, 65_536
MAX_PAGES = 1_000_000
MAX_NESTING = 8
DATA_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = 0, 2, 3
PLAIN = 0
INTEGERS, TRUE, FALSE, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = (4, 5, 6), 1, 2, 7, 8, 9, 10, 11, 12
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


def open_bounded(path: Path, budget: Budget) -> Any:
    """Open a parquet file (`pyarrow.parquet.ParquetFile`) after its pages were held against a budget.

    Raises:
        ValueError: it is no parquet file, or takes more than the budget, or its pages are not where the footer says.
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
        num_bytes, values = 0, [0] * metadata.num_columns
        for group in range(metadata.num_row_groups):
            for column in range(metadata.num_columns):
                chunk = metadata.row_group(group).column(column)
                starts = [chunk.data_page_offset, *([chunk.dictionary_page_offset] if chunk.has_dictionary_page else [])]
                for unpacked, number in read_chunk(file, min(starts), chunk.total_compressed_size, size_bytes, budget):
                    num_bytes, values[column] = num_bytes + unpacked, values[column] + number
                    if num_bytes > budget.max_bytes or values[column] > budget.max_values:
                        raise ValueError(f"its {size_bytes} bytes unfold to more than {budget.max_bytes}, or to more than "
                                         f"{budget.max_values} values in a column")
    return opened


def check_footer(file: BinaryIO, size_bytes: int) -> None:
    """Refuse what does not end like a parquet file, or whose footer is larger than is read."""
    file.seek(max(0, size_bytes - 8))
    tail = file.read(8)
    if size_bytes < 12 or tail[4:] != MAGIC:
        raise ValueError("its end is not that of a parquet file")
    footer = struct.unpack("<I", tail[:4])[0]
    if footer > min(MAX_FOOTER_BYTES, size_bytes - 12):
        raise ValueError(f"its footer has {footer} bytes, at most {min(MAX_FOOTER_BYTES, size_bytes - 12)} are read")


def read_chunk(file: BinaryIO, start: int, length: int, size_bytes: int, budget: Budget) -> list[tuple[int, int]]:
    """Unpacked bytes and number of values of each page of a column chunk.

    Raises:
        ValueError: a page that is not plain where only such are read, or pages that do not fill the chunk.
    """
    pages: list[tuple[int, int]] = []
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
        if budget.only_plain and (kind == DICTIONARY_PAGE or encoding != PLAIN):
            raise ValueError("holds a page with a dictionary or deltas; files of a release hold plain pages")
        pages.append((unpacked, 0 if kind == DICTIONARY_PAGE else inner[1]))
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
            fields[number], place = read_value(data, place, sign & 15, depth)
    except IndexError as error:
        raise ValueError("a page's header is cut off") from error


def read_value(data: bytes, place: int, kind: int, depth: int) -> tuple[Any, int]:
    """A value of a structure; lists and maps are passed over."""
    if kind in (TRUE, FALSE):
        return kind == TRUE, place
    if kind in INTEGERS:
        return read_integer(data, place)
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

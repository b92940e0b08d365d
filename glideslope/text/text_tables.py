"""Tables as text, from strangers: CSV with a header, and JSON lines. What could be read in two ways is refused with its line.

A caption that is cut at a comma, or that swallows the rows behind it, hides words from the filters. So every row has as many
cells as the header, a quote that opens also closes, and nothing stands twice.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .text_files import LINE_ENDS, count_line, split_lines, strip_mark

DELIMITERS = (",", ";", "\t")
QUOTED = re.compile(r'"((?:[^"]++|"")*+)"')


class TableError(ValueError):
    """A table that cannot be read; the message is what follows the file's name and `, ` or `: `.

    Attributes:
        line: where it is wrong, counted from 1; None: the table as a whole.
    """

    def __init__(self, problem: str, line: int | None = None) -> None:
        """Keep the line."""
        super().__init__(problem)
        self.line = line

    def describe(self, name: object) -> str:
        """The whole sentence, of a file of that name."""
        return f"{name}{'' if self.line is None else f', line {self.line}'}: {self}"


@dataclass(frozen=True)
class Row:
    """One row: its cells by column, as they stand, and the line where it begins."""

    cells: Mapping[str, str]
    line: int


def read_csv(text: str, needed: Sequence[str], *, known: Collection[str] = ()) -> Iterator[Row]:
    """The rows of a CSV table with a header, separated by commas, semicolons or tabs; rows without any text are skipped.

    Blanks around the names in the header do not count, nor do capitals in those that are known.

    Args:
        text: the table, without a byte order mark.
        needed: columns that the header must name.
        known: further columns whose capitals do not count.

    Raises:
        TableError: a needed column is missing, a column stands twice, a row has more or fewer cells than the header, or a
            quote opens in mid-cell, is never closed, or closes before its cell ends.
    """
    known = {*needed, *known}
    delimiter = find_delimiter(text, needed, known)
    rows = split_rows(text, delimiter)
    _, names = next(rows, (1, []))
    header = plain_header(names, known)
    check_header(header, needed)
    for line, cells in rows:
        if len(cells) > len(header):
            raise TableError(f"{len(cells)} cells, the header has {len(header)}; put text with {delimiter!r} in double quotes", line)
        if len(cells) < len(header):
            raise TableError(f"{len(cells)} cells, the header has {len(header)}; write every {delimiter!r}, also before an empty cell", line)
        if unnamed := next((cell for name, cell in zip(header, cells, strict=True) if not name and cell.strip()), None):
            raise TableError(f"{unnamed!r:.80} stands in a column without a name; name the column, or put text with {delimiter!r} in double "
                             "quotes", line)
        yield Row(dict(zip(header, cells, strict=True)), line)


def read_header(text: str, needed: Sequence[str] = ()) -> list[str]:
    """The names in the header of a CSV table, without surrounding blanks.

    Raises:
        TableError: its quotes are wrong.
    """
    _, names = next(split_rows(text, find_delimiter(text, needed, needed)), (1, []))
    return plain_header(names, needed)


def find_delimiter(text: str, needed: Sequence[str], known: Collection[str]) -> str:
    """The first delimiter with which the header names all needed columns; a comma where none does."""
    for delimiter in DELIMITERS:
        try:
            _, names = next(split_rows(text, delimiter), (1, []))
        except TableError:  # its quotes enclose other cells than this delimiter separates
            continue
        if set(needed) <= set(plain_header(names, known)):
            return delimiter
    return DELIMITERS[0]


def plain_header(names: Sequence[str], known: Collection[str]) -> list[str]:
    """A header without surrounding blanks, names of known columns spelled as these."""
    spelled = {name.lower(): name for name in known}
    return [name if name in known else spelled.get(name.lower(), name) for name in (name.strip() for name in names)]


def check_header(header: Sequence[str], needed: Sequence[str]) -> None:
    """Refuse a header that lacks a column or names one twice.

    Raises:
        TableError: it does.
    """
    missing = [name for name in needed if name not in header]
    if missing:
        raise TableError(f"column {', '.join(missing)} is missing; the header must name {', '.join(needed)} "
                         f"(found {', '.join(header)[:200] or 'nothing'})")
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise TableError(f"column {', '.join(twice)} stands twice in the header; remove one")


def split_rows(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The line where each row begins, and its cells, as RFC 4180 reads them; rows without any text are left out.

    Raises:
        TableError: a quote opens in mid-cell, is never closed, or closes before its cell ends.
    """
    start, line = 0, 1
    while start < len(text):
        found = LINE_ENDS.search(text, start)
        end, after = found.span() if found else (len(text), len(text))
        num_lines = 1
        if text.find('"', start, end) < 0:
            cells = text[start:end].split(delimiter)
        else:
            cells, end = split_quoted(text, start, delimiter, line)
            found = LINE_ENDS.match(text, end)
            num_lines, after = len(LINE_ENDS.findall(text, start, end)) + 1, found.end() if found else end
        if any(map(str.strip, cells)):
            yield line, cells
        start, line = after, line + num_lines


def split_quoted(text: str, start: int, delimiter: str, line: int) -> tuple[list[str], int]:
    """The cells of a row with quotes that begins at a place of a text, and where it ends."""
    plain = re.compile(rf"[^{delimiter}\r\n]*+")
    cells, place = [], start
    while True:
        if text.startswith('"', place):
            match = QUOTED.match(text, place)
            if match is None:
                raise TableError("a double quote opens a cell here and is never closed; close it, or write it twice in a quoted cell",
                                 line + count_line(text, place, start) - 1)
            cells.append(match[1].replace('""', '"'))
            if text[match.end():match.end() + 1] not in ("", delimiter, "\r", "\n"):
                raise TableError(f"{text[match.end():match.end() + 20]!r} follows the double quote that closes the cell which opens here; "
                                 "close the cell where it ends, and write a double quote in it twice",
                                 line + count_line(text, place, start) - 1)
        else:
            match = plain.match(text, place)
            assert match is not None  # it matches nothing as well
            cell = match[0]
            if cell.lstrip().startswith('"') or cell.count('"') % 2:
                raise TableError(f"a double quote opens inside of the cell {cell!r:.60}; put the whole cell in double quotes, without blanks "
                                 "before them, and write a double quote in it twice", line + count_line(text, place, start) - 1)
            cells.append(cell)
        place = match.end()
        if not text.startswith(delimiter, place):
            return cells, place
        place += 1


def read_json_lines(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and object of each line of JSON lines; blank lines are skipped.

    Raises:
        TableError: a line is no JSON object, or one of its keys stands twice.
    """
    for number, line in enumerate(split_lines(text), start=1):
        if not line.strip():
            continue
        try:
            row = read_json_text(strip_mark(line))
        except (ValueError, RecursionError) as error:
            raise TableError(f"not JSON ({error}); one JSON object per line is expected", number) from error
        if not isinstance(row, dict):
            raise TableError(f"expected a JSON object, got {type(row).__name__}", number)
        yield number, row


def read_json_text(text: str) -> Any:
    """A JSON value in which no key stands twice: two readers would see two things.

    Raises:
        ValueError, RecursionError: the text is not JSON, or a key stands twice.
    """
    return json.loads(text, object_pairs_hook=_without_repeats)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice!r:.80} stands twice")
    return value

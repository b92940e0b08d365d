"""Label files: CSV tables in which people write what they see."""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import LabelError

CSV_COLUMNS = ("key", "category", "label")
GROUP_COLUMNS = ("skin_tone", "gender")
GROUP_PREFIX = "group:"
GROUP_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
MAX_CELL = 10_000_000


@dataclass(frozen=True)
class Verdict:
    """A label before it has a role: what a person or a file says.

    Attributes:
        key, category, label, groups, who, how: as in `labels.Label`.
        where: where it stands, for messages, for example `labels.csv, line 7`.
    """

    key: str
    category: str
    label: int
    who: str
    how: str
    where: str
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CsvRow:
    """One row of a CSV file: its cells by column, and where it stands, for messages."""

    cells: Mapping[str, str]
    where: str


def read_label_csv(path: Path) -> list[Verdict]:
    """Read labels from a CSV file with the columns key, category, label and, if wanted, who, how and groups.

    A column `group:<name>` holds the value of a group (the columns skin_tone and gender do so under their plain names).
    A row with an empty label is ambiguous and gives no verdict.

    Raises:
        LabelError: the file cannot be read, lacks a column, or holds a label that is not 0, 1 or empty.
    """
    verdicts = []
    groups: Mapping[str, str] | None = None
    for row in read_csv(path, CSV_COLUMNS):
        groups = name_groups(row.cells, path) if groups is None else groups
        if (label := read_label(row)) is not None:
            values = {name: row.cells[column] for column, name in groups.items()}
            verdicts.append(Verdict(row.cells["key"], row.cells["category"], label, row.cells.get("who", ""),
                                    row.cells.get("how", "") or path.name, row.where, values))
    return verdicts


def read_label(row: CsvRow) -> int | None:
    """The label of a row; None where it is empty.

    Raises:
        LabelError: it is not 0, 1 or empty.
    """
    text = row.cells["label"]
    if text not in ("0", "1", ""):
        raise LabelError(f"{row.where}: label is {text!r}, expected 1 (counts), 0 (does not) or empty (ambiguous)")
    return int(text) if text else None


def name_groups(columns: Mapping[str, str], path: Path) -> dict[str, str]:
    """Column -> group for the columns that hold groups.

    Raises:
        LabelError: a name that is no name of a group, or one group in two columns.
    """
    groups = {column: column.removeprefix(GROUP_PREFIX) for column in columns if column in GROUP_COLUMNS or column.startswith(GROUP_PREFIX)}
    for column, name in groups.items():
        if not GROUP_NAME.fullmatch(name):
            raise LabelError(f"{path}: column {column!r}: a group is named by small letters, digits and _, for example group:age")
    twice = sorted(name for name in set(groups.values()) if list(groups.values()).count(name) > 1)
    if twice:
        raise LabelError(f"{path}: group {', '.join(twice)} stands in two columns; keep one of them")
    return groups


def read_csv(path: Path, needed: tuple[str, ...]) -> Iterator[CsvRow]:
    """The rows of a CSV file (UTF-8, comma separated, with a header); rows without any text are skipped.

    Raises:
        LabelError: the file cannot be read, is no such CSV, lacks a needed column or names one twice, or a row has more
            cells than the header.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise LabelError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LabelError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from error
    csv.field_size_limit(MAX_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        check_header(header, needed, path)
        for cells in reader:
            where = f"{path}, line {reader.line_num}"
            if len(cells) > len(header):
                raise LabelError(f"{where}: {len(cells)} cells, the header has {len(header)}; put text with commas in double quotes")
            if any(cells):
                yield CsvRow(dict.fromkeys(header, "") | dict(zip(header, cells, strict=False)), where)
    except csv.Error as error:
        raise LabelError(f"{path}, line {reader.line_num}: not readable as CSV ({error}); save it as comma-separated UTF-8") from error


def check_header(header: list[str], needed: tuple[str, ...], path: Path) -> None:
    """Refuse a header that lacks a column or names one twice."""
    missing = [name for name in needed if name not in header]
    if missing:
        hint = "; the cells are separated by ';', save the file with commas" if len(header) == 1 and ";" in header[0] else ""
        raise LabelError(f"{path}: column {', '.join(missing)} is missing; the header must name {', '.join(needed)}{hint}")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise LabelError(f"{path}: column {', '.join(twice)} stands twice in the header; remove one")

"""Label files: CSV tables in which people write what they see."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import LabelError
from ...store.digests import DIGEST_PATTERN
from ...text import text_tables
from ...text.text_files import NotTextError, decode_text
from ...text.text_tables import TableError
from ..index.withheld import secret_in

CSV_COLUMNS = ("key", "category", "label")
MORE_COLUMNS = ("who", "how", "concept", "sha256")
GROUP_COLUMNS = ("skin_tone", "gender")
GROUP_PREFIX = "group:"
GROUP_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
LABEL_WORDS = {"1": 1, "1.0": 1, "true": 1, "yes": 1, "0": 0, "0.0": 0, "false": 0, "no": 0}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    """A label before it has a role: what a person or a file says.

    Attributes:
        key, category, label, groups, who, how: as in `store.Label`.
        where: where it stands, for messages, for example `labels.csv, line 7`.
        concept: what the input shows, in the file's words; "" where the file says nothing. Inputs with the same one share a role.
        sha256: digest of the image's bytes that were looked at; "": those that the index has.
    """

    key: str
    category: str
    label: int
    who: str
    how: str
    where: str
    groups: Mapping[str, str] = field(default_factory=dict)
    concept: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class LabelFile:
    """What a label file says.

    Attributes:
        verdicts: one for each row with a label.
        num_rows: rows that say anything.
        num_empty: those among them whose label is empty.
    """

    verdicts: Sequence[Verdict]
    num_rows: int
    num_empty: int


@dataclass(frozen=True)
class CsvRow:
    """One row of a CSV file: its cells by column, without surrounding blanks but for the key, and where it stands, for messages."""

    cells: Mapping[str, str]
    where: str


def read_label_csv(path: Path) -> list[Verdict]:
    """The verdicts of `read_label_file`."""
    return list(read_label_file(path).verdicts)


def read_label_file(path: Path) -> LabelFile:
    """Read labels from a CSV file with the columns key, category, label and, if wanted, who, how, concept, sha256 and groups.

    A column `group:<name>` holds the value of a group (the columns skin_tone and gender do so under their plain names).
    A row with an empty label is ambiguous and gives no verdict. Other columns are named once in a warning and left alone.

    Raises:
        LabelError: the file cannot be read, lacks a column, holds a label or digest that is none, or has no label at all.
    """
    verdicts: list[Verdict] = []
    groups: Mapping[str, str] | None = None
    num_rows = 0
    for row in read_csv(path, CSV_COLUMNS):
        num_rows += 1
        if groups is None:
            groups = name_groups(row.cells, path)
            name_unknown(row.cells, groups, path)
        label, sha256 = read_label(row), row.cells.get("sha256", "").lower()
        if sha256 and not DIGEST_PATTERN.fullmatch(sha256):
            raise LabelError(f"{row.where}: sha256 is {sha256!r:.80}, expected 64 hexadecimal digits, or nothing")
        if label is not None:
            values = {name: row.cells[column] for column, name in groups.items()}
            refuse_secrets(values | {"concept": row.cells.get("concept", "")}, row.where)
            verdicts.append(Verdict(row.cells["key"], row.cells["category"], label, row.cells.get("who", ""),
                                    row.cells.get("how", "") or path.name, row.where, values, row.cells.get("concept", ""), sha256))
    if not verdicts:
        raise LabelError(f"{path}: none of its {num_rows} rows has a label; write 1 (counts) or 0 (does not) into the column `label`")
    return LabelFile(verdicts, num_rows, num_rows - len(verdicts))


def refuse_secrets(published: Mapping[str, str], where: str) -> None:
    """Refuse cells that a release publishes and that hold what it must not.

    Raises:
        LabelError: one does.
    """
    for name, value in published.items():
        if kind := secret_in(value, name):
            raise LabelError(f"{where}: {name} holds {kind}, which a release must not publish; write something else there")


def read_label(row: CsvRow) -> int | None:
    """The label of a row; None where it is empty.

    Raises:
        LabelError: it is not 0 or 1, a spelling of them (true, yes, 1.0; false, no, 0.0), or empty.
    """
    text = row.cells["label"]
    if text and text.lower() not in LABEL_WORDS:
        raise LabelError(f"{row.where}: label is {text!r}, expected 1 (counts), 0 (does not) or empty (ambiguous)")
    return LABEL_WORDS[text.lower()] if text else None


def name_unknown(columns: Mapping[str, str], groups: Mapping[str, str], path: Path) -> None:
    """Warn once of the columns that nothing is taken from."""
    unknown = [repr(name) for name in columns if name not in (*CSV_COLUMNS, *MORE_COLUMNS) and name not in groups]
    if unknown:
        log.warning("%s: column %s is not read; known are %s, %s, and group:NAME", path, ", ".join(unknown),
                    ", ".join((*CSV_COLUMNS, *MORE_COLUMNS)), ", ".join(GROUP_COLUMNS))


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
    """The rows of a CSV file (UTF-8 with a header, separated by commas, semicolons or tabs); rows without any text are skipped.

    Blanks around names and cells, and capitals in the names of known columns, do not count; the cells of `key` stay as they are.

    Raises:
        LabelError: the file cannot be read, or is no table as `text_tables.read_csv` reads them.
    """
    known = (*CSV_COLUMNS, *MORE_COLUMNS, *GROUP_COLUMNS)
    try:
        for row in text_tables.read_csv(decode_text(path.read_bytes()), needed, known=known):
            plain = {name: cell if name == "key" else cell.strip() for name, cell in row.cells.items()}
            yield CsvRow(plain, f"{path}, line {row.line}")
    except OSError as error:
        raise LabelError(f"{path}: {error.strerror}") from error
    except NotTextError as error:
        raise LabelError(f"{path}: {error}; or save it as \"CSV UTF-8\"") from error
    except TableError as error:
        raise LabelError(error.describe(path)) from error

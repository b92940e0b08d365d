"""Nothing that came from outside steers the terminal: not in messages, tables, bars, logs or JSON."""

import io
import json
import logging
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from glideslope.cli import arguments as cli_shared
from glideslope.cli.terminal import PlainConsole, PlainFormatter
from glideslope.errors import printable

STEERING = {"Cc", "Cf", "Zl", "Zp", "Cs"}
REPAINT = "\x1b[2K\rverified \x9b31m\u202etxet\u2066 [red]x[/] \u200b\ufeff"
ANY_TEXT = st.text(alphabet=st.characters(), max_size=30)


def steers(text: str, *, allowed: str = "") -> set[str]:
    return {char for char in text if unicodedata.category(char) in STEERING and char not in allowed}


@given(ANY_TEXT)
def test_what_is_printable_is_one_line_and_stays_as_it_is(text: str) -> None:
    found = printable(text)
    assert not steers(found, allowed="\u200c\u200d") and "\n" not in found
    assert printable(found) == found


@given(ANY_TEXT)
def test_lines_stay_where_they_are_wanted(text: str) -> None:
    found = printable(text, keep_lines=True)
    assert not steers(found, allowed="\n\u200c\u200d") and found.count("\n") == text.count("\n")


@given(st.text(alphabet=st.characters(exclude_categories=("C", "Z")), max_size=30))
def test_ordinary_text_is_not_touched(text: str) -> None:
    assert printable(text) == "".join(char if char not in "\u115f\u1160\u17b4\u17b5\u3164\uffa0" else f"<U+{ord(char):04X}>" for char in text)


def test_joiners_stay_where_scripts_and_emoji_need_them() -> None:
    text = "\U0001f469\u200d\U0001f4bb \u0645\u06cc\u200c\u062e\u0648"
    assert printable(text) == text
    assert printable("pay\u200cpal") == "pay<U+200C>pal"


def rendered(value: Any) -> str:
    console = PlainConsole()
    console.file = io.StringIO()
    console.print(value)
    return console.file.getvalue()


@pytest.mark.parametrize("value", [REPAINT, Text(REPAINT), Text.assemble(("glideslope:", "bold red"), REPAINT)])
def test_a_message_cannot_repaint_itself(value: Any) -> None:
    found = rendered(value)
    assert not steers(found, allowed="\n") and "<U+001B>" in found and "<U+202E>" in found and "[red]x[/]" in found


def test_a_table_shows_its_cells_as_they_are() -> None:
    table = Table()
    table.add_column(REPAINT)
    table.add_row(REPAINT)
    assert not steers(rendered(table), allowed="\n")


def test_the_commands_print_on_such_consoles(capsys: pytest.CaptureFixture[str]) -> None:
    assert type(cli_shared.out) is PlainConsole is type(cli_shared.err)
    cli_shared.tell({"reason": REPAINT}, as_json=True)
    line = capsys.readouterr().out
    assert not steers(line, allowed="\n") and json.loads(line) == {"reason": REPAINT}


def test_a_log_line_is_one_line() -> None:
    record = logging.LogRecord("glideslope", logging.WARNING, "x", 1, "%s", (f"{REPAINT}\nglideslope: verified",), None)
    line = PlainFormatter("%(message)s").format(record)
    assert not steers(line)

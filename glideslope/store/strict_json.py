"""JSON from strangers: size and depth limited, no repeated keys, no NaN, so that two readers cannot see two things."""

import json
import math
import re
from pathlib import Path
from typing import Any

from ..errors import VerificationError

MAX_DEPTH = 32
MAX_INTEGER_DIGITS = 20
MAX_LINES = 1_000_000
MAX_CONTAINERS = 1_000_000  # an empty list takes two bytes of text and sixty of memory
NO_OBJECT = "expected a JSON object, got {}"
STRINGS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)  # never goes back, so linear in time
NO_BRACKETS = re.compile(r"[^\[{\]}]++")


def parse_object(data: bytes, *, where: str, max_bytes: int, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        data: UTF-8 text without a byte order mark.
        where: names the text in messages.
        max_bytes: longest text that is looked at.
        max_depth: most objects and lists inside one another.

    Raises:
        VerificationError: too long, not UTF-8, not JSON, too deep, no object, a key that occurs twice, an integer of more
            than 20 digits, or a number that JSON does not have.
    """
    if len(data) > max_bytes:
        raise VerificationError(where, [f"{len(data)} bytes; at most {max_bytes} are read"])
    try:
        value = load_text(data.decode(), max_depth=max_depth)
    except ValueError as error:
        raise VerificationError(where, [f"not readable as JSON ({error})"]) from error
    if not isinstance(value, dict):
        raise VerificationError(where, [NO_OBJECT.format(type(value).__name__)])
    return value


def load_object(text: str | bytes) -> dict[str, Any]:
    """Parse a JSON object whose length was looked at before, as `load_text` does.

    Raises:
        ValueError: not strict JSON, or not an object.
    """
    value = load_text(text if isinstance(text, str) else text.decode())
    if not isinstance(value, dict):
        raise ValueError(NO_OBJECT.format(type(value).__name__))
    return value


def load_lines(text: bytes) -> list[dict[str, Any]]:
    """Parse JSON objects, one a line, the last line ended too.

    Raises:
        ValueError: a line that is not a JSON object, which is named; or more than a million lines, or two million objects and lists.
    """
    if (num_lines := text.count(b"\n")) > MAX_LINES:
        raise ValueError(f"{num_lines} lines, at most {MAX_LINES} are read")
    decoded = text.decode()
    refuse_many(decoded, MAX_LINES + MAX_CONTAINERS)
    lines = decoded.split("\n")
    if lines[-1]:
        raise ValueError("the last line is not ended")
    rows = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            rows.append(load_object(line))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
    return rows


def load_text(text: str, *, max_depth: int = MAX_DEPTH) -> Any:
    """Parse JSON strictly; how long the text may be is for whoever read it to say.

    Raises:
        ValueError: not JSON, too deep, more than a million objects and lists, a key that occurs twice, an integer of more than 20
            digits, a number that JSON or a float does not have, or half a surrogate pair.
    """
    brackets = _find_brackets(text)
    refuse_many(brackets)
    depth = _measure_depth(brackets)
    if depth > max_depth:
        raise ValueError(f"objects and lists lie {depth} deep, at most {max_depth} are read")
    value = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant, parse_int=_parse_integer,
                       parse_float=_parse_float)
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text, and cannot be written again
    return value


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Read a file that is not larger than it may be; at most one byte more than allowed is ever read.

    Raises:
        VerificationError: missing, unreadable or too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise VerificationError(str(path), [str(error.strerror)]) from error
    if len(data) > max_bytes:
        raise VerificationError(str(path), [f"more than {max_bytes} bytes; no such file is that large"])
    return data


def refuse_many(text: str, max_containers: int = MAX_CONTAINERS) -> None:
    """Refuse a text, of one JSON value or of one on each line, that holds too many objects and lists in all.

    Raises:
        ValueError: it does.
    """
    brackets = _find_brackets(text)
    number = brackets.count("[") + brackets.count("{")
    if number > max_containers:
        raise ValueError(f"{number} objects and lists, at most {max_containers} are read")


def _find_brackets(text: str) -> str:
    """The brackets of a text, in order, those in strings aside."""
    return NO_BRACKETS.sub("", STRINGS.sub("", text))


def _measure_depth(brackets: str) -> int:
    """How deep brackets lie in one another; unbalanced text is left to the parser."""
    depth = deepest = 0
    for sign in brackets:
        depth += 1 if sign in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # add returns None on purpose
        raise ValueError(f"the key {twice!r:.80} occurs twice")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _parse_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits:.40} is beyond what a float holds")
    return value


def _parse_integer(digits: str) -> int:
    if len(digits) > MAX_INTEGER_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)

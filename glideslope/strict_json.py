"""JSON from strangers: size and depth limited, no repeated keys, no NaN, so that two readers cannot see two things."""

import json
import re
from pathlib import Path
from typing import Any

from .errors import VerificationError

MAX_DEPTH = 32
MAX_INTEGER_DIGITS = 20
TOKENS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{\]}]', re.DOTALL)  # strings, brackets; never goes back, so linear in time


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
        text = data.decode()
        depth = _depth(text)
        if depth > max_depth:
            raise ValueError(f"objects and lists lie {depth} deep, at most {max_depth} are read")
        value = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant, parse_int=_parse_integer)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text, and cannot be written again
    except ValueError as error:
        raise VerificationError(where, [f"not readable as JSON ({error})"]) from error
    if not isinstance(value, dict):
        raise VerificationError(where, [f"expected a JSON object, got {type(value).__name__}"])
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


def _depth(text: str) -> int:
    """How deep brackets lie in one another, those in strings aside; unbalanced text is left to the parser."""
    depth = deepest = 0
    for token in TOKENS.finditer(text):
        sign = token[0][0]
        depth += 1 if sign in "[{" else -1 if sign in "]}" else 0
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


def _parse_integer(digits: str) -> int:
    if len(digits) > MAX_INTEGER_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)

"""Text from bytes: UTF-8 without its byte order mark, or one sentence that says what the bytes are and how to convert them."""

import codecs
import re

MARK = "\ufeff"
LINE_ENDS = re.compile(r"\r\n|\r|\n")
# The longer marks first: UTF-32 begins as UTF-16 does.
WIDE_MARKS = ((codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"),
              (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"))


class NotTextError(ValueError):
    """Bytes that are no UTF-8 text; the message is the rest of a sentence that begins with what holds them."""


def decode_text(data: bytes, *, keep_bad_bytes: bool = False) -> str:
    """The text that bytes hold, without a byte order mark.

    Args:
        data: the bytes.
        keep_bad_bytes: let each byte that is not UTF-8 stand as half a surrogate pair (Python's `surrogateescape`), for a reader
            that refuses single rows.

    Raises:
        NotTextError: they are UTF-16 or UTF-32, in another encoding, or hold zero bytes.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        if not keep_bad_bytes or wide_encoding(data):
            raise NotTextError(describe_encoding(data, error)) from error
        text = data.decode("utf-8", "surrogateescape")
    if "\0" in text:
        place = text.index("\0")
        told = f"byte {data.index(0)} in line {count_line(text, place)} is a zero byte, which text does not hold"
        raise NotTextError(f"{told}; where it is UTF-16, {describe_command('UTF-16LE')}")
    return strip_mark(text)


def strip_mark(text: str) -> str:
    """A text without the byte order marks that it may begin with: tools that take one for a letter write another before it."""
    return text.lstrip(MARK)


def split_lines(text: str) -> list[str]:
    """The lines of a text, whichever of the three usual line ends it has; what follows the last end is a line where it is not empty."""
    lines = LINE_ENDS.split(text)
    return lines if lines[-1] else lines[:-1]


def count_line(text: str, place: int, start: int = 0) -> int:
    """The number of the line in which a place of a text lies; the line of `start` is 1."""
    return len(LINE_ENDS.findall(text, start, place)) + 1


def wide_encoding(data: bytes) -> str | None:
    """The encoding whose byte order mark bytes begin with, where it is not UTF-8's."""
    return next((name for mark, name in WIDE_MARKS if data.startswith(mark)), None)


def describe_encoding(data: bytes, error: UnicodeDecodeError) -> str:
    """What is known of bytes that are not UTF-8, and what to do."""
    if name := wide_encoding(data):
        return f"is {name}, expected UTF-8; {describe_command(name)}"
    line = count_line(data[:error.start].decode("latin-1"), error.start)
    told = f"is not UTF-8: byte {error.start} in line {line} is {data[error.start]:#04x} ({error.reason})"
    return f"{told}; where it is Latin-1, {describe_command('LATIN1')}"


def describe_command(encoding: str) -> str:
    """How to convert a file."""
    return f"convert it: iconv -f {encoding} -t UTF-8 OLD > NEW"

"""Numbers and texts as cards, reports and the terminal write them.

Bounds are rounded to the cautious side, small differences are not rounded away, and text from outside does nothing but stand there.
"""

import math
import re
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal

from ..errors import printable

DIGITS = 1
ADDRESS = re.compile(r"(?i)(?:https?|ftp)://|(?:mailto|xmpp):|www\.|@")  # whatever stands before: some readers find a link in `_www.` too
BLOCK_START = re.compile(r"\A(\d*)((?<=\d)[.)](?= |\Z)|(?<!\d)[-+=](?= |[-+=]*\Z))")


def count(value: int) -> str:
    """A count with thousands separated: `4,460`."""
    return f"{value:,}"


def percent(share: float | None) -> str:
    """A share as a percentage with one decimal; what is below one never reads as 100 %, nor above zero as 0 %."""
    if share is None:
        return "not measured"
    text = f"{100 * share:.{DIGITS}f}"
    if text == f"{100:.{DIGITS}f}" and share < 1:
        return _percent_down(share)
    if text == f"{0:.{DIGITS}f}" and share > 0:
        return _percent_up(share)
    return f"{text} %"


def at_least(share: float | None) -> str:
    """A lower bound: `at least 97.9 %`, rounded down."""
    return "not measured" if share is None else f"at least {_percent_down(share)}"


def at_most(share: float | None) -> str:
    """An upper bound: `at most 0.3 %`, rounded up."""
    return "not measured" if share is None else f"at most {_percent_up(share)}"


def precise_percent(share: float, *, up: bool = False) -> str:
    """A share as a percentage of three significant digits, for shares far below one per cent; an upper bound is rounded up."""
    value = Decimal(repr(share)) * 100
    if value:
        value = value.quantize(Decimal(1).scaleb(value.adjusted() - 2), rounding=ROUND_CEILING if up else ROUND_HALF_EVEN)
    return f"{value.normalize():f} %"


def at_most_precise(share: float) -> str:
    """A small upper bound: `at most 0.0501 %`, rounded up."""
    return f"at most {precise_percent(share, up=True)}"


def asked(demand: float | None) -> str:
    """What a policy demands of a figure, with every digit that it was written with: `asked for: 97.5 %`."""
    return "nothing is asked for" if demand is None else f"asked for: {(Decimal(repr(demand)) * 100).normalize():f} %"


def decimal(value: float, digits: int = 3) -> str:
    """A number with so many decimals."""
    return f"{value:.{digits}f}"


def significant(value: float, digits: int = 3) -> str:
    """A number with so many significant digits: `0.0003`, `1e-05`."""
    return f"{value:.{digits}g}"


def millions(value: int) -> str:
    """A count of parameters: `7.1 million`, or the plain count below a hundred thousand."""
    return f"{value / 1e6:.1f} million" if value >= 100_000 else count(value)


def megabytes(size_bytes: int) -> str:
    """A file size: `28.4 MB`, or `12 kB` when small."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1_000_000 else f"{max(1, round(size_bytes / 1e3))} kB"


def duration(seconds: float) -> str:
    """A time: `48 s`, `7 min 5 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def cell(text: str) -> str:
    """Text from outside inside a card, in a table or a sentence: on one line, with the signs of Markdown and HTML disarmed.

    What begins a block (a list, a heading, a rule) does so no more, and an address becomes no link.
    """
    flat = printable(text)
    for sign, replacement in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        flat = flat.replace(sign, replacement)
    flat = "".join(f"\\{char}" if char in "\\`*_[]|#~$" else char for char in flat)
    flat = ADDRESS.sub(lambda match: re.sub(r"[:.@]", r"\\\g<0>", match.group()), flat)
    return BLOCK_START.sub(lambda match: f"{match[1]}\\{match[2]}", flat)


def in_code(text: str) -> str:
    """Text from outside in the type of code, which it cannot end, nor the cell of a table around it."""
    return f"`{printable(text).replace('`', chr(39)).replace('|', chr(0xA6)).strip() or ' '}`"


def _percent_down(share: float) -> str:
    scale = 10**DIGITS
    return f"{math.floor(round(100 * share * scale, 6)) / scale:.{DIGITS}f} %"


def _percent_up(share: float) -> str:
    scale = 10**DIGITS
    return f"{math.ceil(round(100 * share * scale, 6)) / scale:.{DIGITS}f} %"

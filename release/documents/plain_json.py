"""JSON documents in the form in which this project writes JSON: sorted keys, two spaces, no NaN, a line end."""

import math
from collections.abc import Mapping
from typing import Any

from ...errors import ReleaseError
from ...store.digests import readable_json

DIGITS = 6


def json_text(value: Any) -> str:
    """A value as the text of a file."""
    return readable_json(value).decode()


def claim(claims: Mapping[str, Any], *parts: str) -> Any:
    """The claim whose id is these parts joined by dots.

    Raises:
        ReleaseError: there is no such claim.
    """
    name = ".".join(parts)
    if name not in claims:
        raise ReleaseError(f"documents: claim {name!r} is missing; pack the release again")
    return claims[name]


def lower(value: float) -> str:
    """A lower bound with six decimals, rounded so that it still holds."""
    return f"{math.floor(value * 10**DIGITS) / 10**DIGITS:g}"


def upper(value: float) -> str:
    """An upper bound with six decimals, rounded so that it still holds."""
    return f"{math.ceil(value * 10**DIGITS) / 10**DIGITS:g}"


def decimal(value: float) -> str:
    """A number with six decimals."""
    return f"{round(value, DIGITS):g}"

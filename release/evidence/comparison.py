"""Claims as flat names and plain values, and how two sets of them are held against each other."""

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from ...store.records import Record

RELATIVE_TOLERANCE = 1e-9
MAX_SHOWN = 120
MAX_ROWS_NAMED = 5

Claims = dict[str, Any]


def compare_claims(stated: Mapping[str, Any], computed: Mapping[str, Any]) -> list[str]:
    """One sentence for every claim that is missing, unknown, or not what the evidence gives."""
    problems = []
    for name in sorted({*stated, *computed}):
        if name not in stated:
            problems.append(f"claim {name}: missing, the evidence gives {show(computed[name])}")
        elif name not in computed:
            problems.append(f"claim {name}: states {show(stated[name])}, no evidence gives it")
        elif not equal(stated[name], computed[name]):
            problems.append(f"claim {name}: states {show(stated[name])}, the evidence gives {show(computed[name])}")
    return problems


def equal(stated: Any, computed: Any) -> bool:
    """Whether two plain values agree; floats to 9 digits, as machines differ in the last bits of a bound."""
    if isinstance(stated, float) and isinstance(computed, float):
        return math.isclose(stated, computed, rel_tol=RELATIVE_TOLERANCE)
    if isinstance(stated, dict) and isinstance(computed, dict):
        return stated.keys() == computed.keys() and all(equal(stated[key], computed[key]) for key in stated)
    if isinstance(stated, list | tuple) and isinstance(computed, list | tuple):
        return len(stated) == len(computed) and all(equal(a, b) for a, b in zip(stated, computed, strict=True))
    return type(stated) is type(computed) and bool(stated == computed)


def show(value: Any) -> str:
    """A value for a message, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN - 3] + "..."


def flatten(prefix: str, value: Mapping[str, Any]) -> Claims:
    """Nested mappings as claims: `{"a": {"b": 1}}` becomes `{"prefix.a.b": 1}`; lists stay values."""
    claims: Claims = {}
    for key, inner in value.items():
        name = f"{prefix}.{key}"
        claims |= flatten(name, inner) if isinstance(inner, Mapping) else {name: inner}
    return claims


def stated_cuts(record: Record) -> Claims:
    """How many captions a stage read, and how many of them only in part, as its record states; none where it was not counted yet."""
    return {name: record.summary.get(name) for name in ("num_captions", "num_captions_cut")}


def shorten(problems: Sequence[str]) -> list[str]:
    """The first few problems, and how many more there are."""
    more = len(problems) - MAX_ROWS_NAMED
    return [*islice(problems, MAX_ROWS_NAMED), *([f"and {more} more rows"] if more > 0 else [])]

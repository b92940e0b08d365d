"""The pages' templates, and how numbers are written on them."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ...text import number_text as wording


@cache
def load_environment() -> Environment:
    """The templates of this room; everything is escaped unless it was made by `charts`."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent / "pages"), undefined=StrictUndefined, autoescape=True,
                              trim_blocks=True, lstrip_blocks=True)
    for function in (wording.count, wording.decimal, wording.significant, signed_percent, times):
        environment.filters[function.__name__] = function
    for write in (wording.percent, wording.at_least, wording.at_most, wording.asked):
        environment.filters[write.__name__] = unbroken(write)
    environment.filters["low"] = unbroken(lambda share: wording.at_least(share).removeprefix("at least "))
    environment.filters["high"] = unbroken(lambda share: wording.at_most(share).removeprefix("at most "))
    return environment


def load_template(name: str) -> Any:
    """A template of this room."""
    return load_environment().get_template(name)


def unbroken(write: Callable[[float | None], str]) -> Callable[[float | None], str]:
    """A filter whose percent sign stays with its number."""
    return lambda share: write(share).replace(" %", "\N{NO-BREAK SPACE}%")


def signed_percent(change: float | None) -> str:
    """A relative change: `-14.2 %`, `+3.0 %`."""
    return "not measured" if change is None else f"{100 * change:+.1f}\N{NO-BREAK SPACE}%".replace("-", "\N{MINUS SIGN}")


def times(ratio: float | None) -> str:
    """A ratio, with a multiplication sign; a dash where there is none."""
    return "\N{EN DASH}" if ratio is None else f"{ratio:.2f} \N{MULTIPLICATION SIGN}"

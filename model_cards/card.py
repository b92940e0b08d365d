"""The cards of a release: claims in, README.md and DATASET_CARD.md out. Every number is a claim; a missing claim is an error."""

import math
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError
from markupsafe import Markup

from ..errors import ReleaseError, printable
from ..recipe.components import NETWORKS
from ..store.digests import sha256_bytes
from ..store.vocabulary import OF_CATEGORY
from ..text import number_text as wording
from .metadata import Lookup, dataset_metadata, hub_metadata

TEMPLATES = Path(__file__).parent
MODEL_CARD, DATASET_CARD = "model_card.md.jinja", "dataset_card.md.jinja"
WEAK_LOWER_BOUND = 0.9
CHANCE = 0.5


def render_card(claims: Mapping[str, Any]) -> str:
    """Render the model card of a release.

    Args:
        claims: claim id -> value, as `release.claims.claims.claims_of` gives them.

    Returns:
        README.md: Hub metadata as YAML front matter, then Markdown. Equal claims give equal text.

    Raises:
        ReleaseError: a claim that the card needs is missing; the message names it.
    """
    return _render(claims, MODEL_CARD, hub_metadata)


def render_dataset_card(claims: Mapping[str, Any]) -> str:
    """Render the card of the data that a release was trained on; see `render_card`."""
    return _render(claims, DATASET_CARD, dataset_metadata)


def _render(claims: Mapping[str, Any], template: str, header: Callable[[Lookup], dict[str, Any]]) -> str:
    what, lookup = template.removesuffix(".md.jinja").replace("_", " "), ClaimLookup(claims)
    try:
        front_matter = Markup(yaml.safe_dump(plain(header(lookup)), sort_keys=False, allow_unicode=True, width=10_000))
        text = load_environment().get_template(template).render(front_matter=front_matter, claim=lookup)
    except UndefinedError as error:
        raise ReleaseError(f"{what}: {error.message}; pack the release again") from error
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise ReleaseError(f"{what}: a claim has an unexpected value ({error}); pack the release again") from error
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def plain(value: Any) -> Any:
    """The values of a header with their texts made printable; see `errors.printable`."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return printable(value, keep_lines=True) if isinstance(value, str) else value


def templates_sha256() -> str:
    """One digest of all templates: another digest may mean other cards from the same claims."""
    return sha256_bytes(b"".join(path.name.encode() + b"\0" + path.read_bytes() for path in sorted(TEMPLATES.glob("*.jinja"))))


@cache
def load_environment() -> Environment:
    """The templates with the wording of numbers as their filters."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, autoescape=True, finalize=disarm,
                              trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    filters: tuple[Callable[..., str], ...] = (
        wording.count, wording.percent, wording.at_least, wording.at_most, wording.at_most_precise, wording.asked, wording.decimal,
        wording.significant, wording.millions, wording.megabytes, wording.duration, title_of, first_upper, change, code, fenced, group_text,
        reason_text, link, file_name, rounded_down, rounded_up)
    environment.filters.update({function.__name__: function for function in filters})
    environment.tests |= {"weak": is_weak, "above_chance": is_above_chance}
    return environment


def is_weak(lower_bound: float) -> bool:
    """Whether a bound on a filter's recall is too low to rely on, so that the card must say so."""
    return lower_bound < WEAK_LOWER_BOUND


def is_above_chance(lower_bound: float) -> bool:
    """Whether a bound on the share of wins rules out that each pair was decided by a fair coin."""
    return lower_bound > CHANCE


def title_of(network: str) -> str:
    """What a network is called: `base model`, `noised CLIP`."""
    return NETWORKS[network].title


def first_upper(text: str) -> str:
    """Text with its first letter in upper case, the others as they are."""
    return text[:1].upper() + text[1:]


def change(value: float | None) -> str:
    """A relative change as words: `99 % rarer`, `3.10 times as frequent`, `gone`."""
    if value is None:
        return "not measured"
    if value <= -1:
        return "gone"
    if value < 0:
        return f"{wording.percent(-value)} rarer"
    return f"{1 + value:.2f} times as frequent" if value > 0 else "as frequent"


def rounded_down(value: float) -> str:
    """A lower bound with two decimals, rounded to the cautious side."""
    return f"{math.floor(round(100 * value, 6)) / 100:.2f}"


def rounded_up(value: float) -> str:
    """An upper bound with two decimals, rounded to the cautious side."""
    return f"{math.ceil(round(100 * value, 6)) / 100:.2f}"


def disarm(value: Any) -> Markup:
    """What a template puts out: text is escaped, unless its type says that it is Markdown already."""
    if isinstance(value, Markup):
        return value
    text = str(value)  # what should be a number or a name may be a list or a mapping, which shows the texts in it
    before, after = (" " if text[place].isspace() else "" for place in (0, -1)) if text.strip() else ("", text[:1] and " ")
    return Markup(f"{before}{wording.cell(text)}{after}")


def code(text: str) -> Markup:
    """A name in the type of code, which it cannot end, nor the cell of a table around it."""
    return Markup(wording.in_code(text))


def fenced(text: str) -> Markup:
    """Text from a recipe inside a block of code, which it cannot end."""
    return Markup(printable(str(text), keep_lines=True).strip().replace("```", "'''"))


def file_name(name: str) -> Markup:
    """A name as a part of a relative address."""
    return Markup(quote(printable(name), safe=""))


def link(address: str) -> Markup:
    """An address that can be followed; what could end it is written in its own code."""
    shown = "".join(f"%{ord(char):02X}" if char in "<>\"`\\ " else char for char in printable(address))
    return Markup(f"<{shown}>" if re.match(r"https?://\S+\Z", shown) else wording.cell(address))


def group_text(row: Mapping[str, Any]) -> str:
    """A group as a table names it: `skin tone: 5`, or `caption: woman` where the caption's words say so."""
    if row["kind"] == "caption":
        return f"caption: {row['group']}"
    return f"{row['group'].replace('_', ' ')}: {row['value'] or 'not specified'}"


def reason_text(reason: str) -> str:
    """A ledger's reason in words: `filter person`, `label person`."""
    return reason.replace(":", " ", 1) if reason.partition(":")[0] in OF_CATEGORY else reason


class ClaimLookup:
    """Claims by id, as the templates ask for them; a claim that is not there is an error that names it."""

    def __init__(self, claims: Mapping[str, Any]) -> None:
        """Remember the claims."""
        self._claims = claims

    def __call__(self, *parts: str) -> Any:
        """The value of the claim whose id is these parts joined by dots.

        Raises:
            ReleaseError: there is no such claim.
        """
        name = ".".join(parts)
        if name not in self._claims:
            raise ReleaseError(f"card: claim {name!r} is missing; pack the release again")
        return self._claims[name]

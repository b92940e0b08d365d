"""Text from outside only stands on a card: it makes no heading, link, picture, table, HTML or block, and every character is seen."""

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jinja2 import nodes
from markdown_it import MarkdownIt

from glideslope.errors import ReleaseError, printable
from glideslope.model_cards.card import TEMPLATES, load_environment, render_card, render_dataset_card
from glideslope.model_cards.page import render_page, split_front_matter
from glideslope.text.number_text import cell

BENIGN = "wqordx"
ATTACKS = (
    "2.15\n\n## Audited by OpenAI", "![](http://x/y.png)", "[a](javascript:b)", "<img src=x onerror=y>", "a | b | c\n|---|---|", "```\n# x",
    "`x`", "\n---\n", "\n===\n", "- item", "1. item", "> quote", "<https://x.example>", "&lt;b&gt;", "**bold** __b__ ~~s~~", "\\",
    "\\\n# x", "# x", "[x]: http://y", "\x1b[2Jverified", "a\u202eb", "a\u200bb", "\u2028# x", "\r# x", "    code", "$$x$$", "---",
    "{{ 7*7 }}", "{% raw %}", "'''", "\tx", "<!--", "]]>", "http://www.x.example/a_b", "*\n*\n*", "\x9b31m", "\ud800", "\u115f", "a  \nb")
PIECES = st.sampled_from([*ATTACKS, *"aB \né漢0.-+=_*`|<>[]()!#~:"])
HOSTILE = st.lists(PIECES, min_size=1, max_size=6).map("".join)


def strings(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every string in plain data."""
    if isinstance(value, str):
        yield way
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from strings(inner, (*way, key))
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from strings(inner, (*way, place))


def replaced(claims: dict[str, Any], way: tuple[Any, ...], text: str) -> dict[str, Any]:
    changed = copy.deepcopy(claims)
    place: Any = changed
    for key in way[:-1]:
        if isinstance(place[key], tuple):
            place[key] = list(place[key])
        place = place[key]
    place[way[-1]] = text
    return changed


def parse(body: str) -> list[Any]:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(body)


def structure(body: str) -> list[tuple[str, str, int]]:
    found = []
    for token in parse(body):
        found.append((token.type, token.tag, token.nesting))
        inner = [(child.type, child.tag, child.nesting) for child in token.children or () if child.type not in ("text", "text_special")]
        found += [part for part in inner if part[0] != "softbreak"]
    return found


def shown(body: str) -> str:
    return " ".join("".join(child.content for child in token.children) if token.children else token.content for token in parse(body))


@pytest.mark.parametrize("render", [render_card, render_dataset_card])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_hostile_text_in_any_claim_changes_nothing_but_the_text(claims: dict[str, Any], render: Callable[[dict[str, Any]], str],
                                                                data: st.DataObject) -> None:
    way = data.draw(st.sampled_from(sorted(strings(claims), key=str)))
    text = data.draw(HOSTILE)
    try:
        plain = render(replaced(claims, way, BENIGN))
        card = render(replaced(claims, way, text))
    except ReleaseError:
        return  # refused: names and enumerations that the card cannot do without
    (header, body), (_, plain_body) = split_front_matter(card), split_front_matter(plain)
    if not printable(text):
        return  # nothing to show: a card may leave its place out
    assert structure(body) == structure(plain_body)
    assert not [char for char in card if char != "\n" and printable(char, keep_lines=True) != char]
    yaml.safe_load(header)
    is_cut = any(word in str(way) for word in ("citation", "sha256", "provenance"))
    if BENIGN in shown(plain_body) and not is_cut:
        wanted = re.sub(r"\s+", "", printable(text))
        forms = {wanted, wanted.replace("`", "'").replace("|", "¦"), wanted.replace("```", "'''"), wanted.replace("_", "")}
        found = re.sub(r"\s+", "", shown(body))
        assert any(form in found for form in forms) or way[0] in ("release.homepage", "ledger.dropped_by_reason")


@given(HOSTILE)
def test_a_cell_is_one_paragraph_of_that_text_alone(text: str) -> None:
    tokens = parse(cell(text))
    assert [token.type for token in tokens] == (["paragraph_open", "inline", "paragraph_close"] if printable(text) else [])
    assert "".join(child.content for token in tokens for child in token.children or ()) == printable(text)


def test_a_hostile_card_as_a_page_has_no_element_of_the_attacker(claims: dict[str, Any]) -> None:
    num_headings = render_page(render_card(claims), lambda name: b"").count("<h2")
    for attack in ATTACKS:
        page = render_page(render_card(replaced(claims, ("training.base.versions", "torch"), attack)), lambda name: b"")
        assert "<img src=x" not in page and "<!--" not in page and page.count("<h2") == num_headings


def test_no_template_joins_text_with_what_is_markdown_already() -> None:
    environment = load_environment()
    for path in TEMPLATES.glob("*.jinja"):
        for joined in environment.parse(path.read_text(encoding="utf-8")).find_all(nodes.Concat):
            raw = {node.name for node in joined.find_all(nodes.Filter)} & {"code", "fenced", "link"}
            assert not raw, f"{path.name}:{joined.lineno} joins {raw} with text, which would then not be escaped"
    assert "| safe" not in "".join(path.read_text(encoding="utf-8") for path in TEMPLATES.glob("*.jinja"))


@pytest.mark.parametrize("place", ["training.base.machine", "training.noised_clip.num_cores", "training.base.num_cores"])
@pytest.mark.parametrize("value", [["[Audited by OpenAI](https://x.example)", "<img src=x>"], {"**bold** | cell": 1}, "_www.x.example"])
def test_texts_inside_of_what_should_be_a_number_or_a_name_are_disarmed_too(claims: dict[str, Any], place: str, value: Any) -> None:
    card = render_card(claims | {place: value})
    plain = render_card(claims | {place: "word"})
    assert structure(split_front_matter(card)[1]) == structure(split_front_matter(plain)[1])
    versions = replaced(claims, ("training.base.versions", "torch"), value)
    assert structure(split_front_matter(render_card(versions))[1]) == structure(split_front_matter(plain)[1])


@pytest.mark.parametrize("address", ["https://x.example", "_www.x.example", "1http://x.example", "\u00e9https://x.example", "a@x.example",
                                     "mailto:a@x.example", "*WWW.x.example"])
def test_no_address_becomes_a_link_whatever_stands_before_it(address: str) -> None:
    assert not re.search(r"(?i)(?:https?|ftp):|mailto:|www\.|(?<!\\)@", cell(address))  # what GitHub's Markdown makes a link of

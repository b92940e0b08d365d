"""Every pattern of the product takes time in proportion to the text, however the text was made."""

import ast
import importlib
import pkgutil
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import glideslope
from glideslope.text.secrets import KINDS, scan_lines

from .pattern_steps import MOST_STEPS, Matcher, pumps

ROOT = Path(glideslope.__file__).parents[1]
ROOMS = ("glideslope", "data_filter", "models", "model_cards", "release")
SEARCHING = r"\b{name}\.(?:search|finditer|findall|sub|split)\("
STEPS_PER_CHARACTER = 40
SHORT, LONG = 150, 600


def sources() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def named_patterns() -> dict[str, re.Pattern[str]]:
    """Every compiled pattern that a module holds by name."""
    found = {}
    for info in pkgutil.walk_packages(glideslope.__path__, "glideslope."):
        if "shim" in info.name or info.name.endswith("__main__"):
            continue
        module: Any = importlib.import_module(info.name)
        found |= {f"{info.name}.{name}": value for name, value in vars(module).items() if isinstance(value, re.Pattern)}
    return {name: pattern for name, pattern in found.items() if isinstance(pattern.pattern, str)}


def written_patterns() -> dict[str, tuple[re.Pattern[str], bool]]:
    """Every pattern that is written out in a call such as `re.sub("...", ...)`, and whether it is searched for anywhere in a text."""
    found = {}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "re"):
                continue
            if node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                found[f"{path.name}:{node.lineno}"] = re.compile(node.args[0].value), node.func.attr not in ("compile", "match", "fullmatch")
    return found


def cost(pattern: re.Pattern[str], text: str, *, is_searched: bool) -> int:
    matcher = Matcher(pattern, text)
    return matcher.search_all() if is_searched else matcher.match_at_start()


def find_slow_text(pattern: re.Pattern[str], *, is_searched: bool) -> str | None:
    """A text whose cost grows faster than its length, if one of those tried does."""
    for pump in sorted(pumps(pattern)):
        short, long = (pump * (size // len(pump) + 1) for size in (SHORT, LONG))
        num_steps = cost(pattern, long, is_searched=is_searched)
        if num_steps > STEPS_PER_CHARACTER * len(long) and (
                num_steps > MOST_STEPS or num_steps > 6 * cost(pattern, short, is_searched=is_searched)):
            return pump
    return None


@pytest.fixture(autouse=True)
def deep_stack() -> Any:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(50_000)
    yield
    sys.setrecursionlimit(limit)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_searching_for_a_secret_costs_in_proportion_to_the_text(kind: Any) -> None:
    assert find_slow_text(kind.pattern, is_searched=True) is None


def test_every_other_pattern_costs_in_proportion_to_the_text() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources())
    patterns = written_patterns() | {name: (pattern, bool(re.search(SEARCHING.format(name=name.rsplit(".", 1)[-1]), code)))
                                     for name, pattern in named_patterns().items()}
    assert len(patterns) > 40
    slow = {name: find_slow_text(pattern, is_searched=is_searched) for name, (pattern, is_searched) in patterns.items()}
    assert {name: pump for name, pump in slow.items() if pump} == {}


@pytest.mark.parametrize(("pattern", "is_searched"), [
    (r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}", True), (r"a+b", True), (r"~[^/]*/", True), (r"(?:a+)+b", False),
    (r"x.*y.*z", False)])
def test_the_counter_sees_what_grows_faster(pattern: str, is_searched: bool) -> None:
    assert find_slow_text(re.compile(pattern), is_searched=is_searched) is not None


@pytest.mark.parametrize("pattern", [r"[a-z]+@[a-z]{2}", r"(?:ab|a)*c", r"(?i)x{2,3}?\b", r"(?<=a)b+(?!c)", r"(?>a*)b|[^\W\d]++-"])
@pytest.mark.parametrize("text", ["abc", "aab@xy abb", "XXx ab abbc", "aaab--é-", "abab abac"])
def test_the_counter_finds_what_the_engine_finds(pattern: str, text: str) -> None:
    compiled = re.compile(pattern)
    for start in range(len(text) + 1):
        ends: list[int] = []
        matcher = Matcher(compiled, text)
        matcher.sequence(matcher.tree, 0, start, lambda end, ends=ends: not ends.append(end))  # type: ignore[misc]  # bound early
        match = compiled.match(text, start)
        assert ends[:1] == ([match.end()] if match else [])


def test_many_secrets_in_one_text_are_placed_without_counting_its_lines_again() -> None:
    text = "somebody@somewhere.org\n" * 20_000
    found = list(scan_lines(text, KINDS))
    assert [found[0].place, found[-1].place] == ["line 1", "line 20000"]


TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"


@pytest.mark.parametrize("text", [TOKEN, f"token={TOKEN}", f"a-{TOKEN}", f"({TOKEN})", f"x.{TOKEN}.y", f"_{TOKEN}"])
def test_a_json_web_token_is_found_wherever_it_stands(text: str) -> None:
    assert "a JSON web token" in {finding.kind for finding in scan_lines(text, KINDS)}


@pytest.mark.parametrize("text", ["eyJ.eyJ.x", "-eyJ" * 50, "a.eyJhbGciOiJI.dozjgNryP4J3", "words.and.more"])
def test_what_only_begins_like_a_token_is_none(text: str) -> None:
    assert "a JSON web token" not in {finding.kind for finding in scan_lines(text, KINDS)}

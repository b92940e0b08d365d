"""YAML from strangers: what is read, and what is refused before anything is built of it."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from glideslope.store.strict_yaml import MAX_DEPTH, load_yaml

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C"]))
PLAIN = st.recursive(st.none() | st.booleans() | st.integers(-2**62, 2**62) | WORDS,
                     lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcdefgh", min_size=1), inner, max_size=4))
BOMB = "\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x]",
                  *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))])


@given(PLAIN)
def test_plain_data_comes_back_as_it_was_written(value: object) -> None:
    assert load_yaml(yaml.safe_dump(value, allow_unicode=True)) == value
    assert load_yaml(yaml.safe_dump(value).encode()) == value


def test_a_short_text_that_stands_for_more_than_fits_any_memory_is_refused() -> None:
    assert len(BOMB) < 1_000
    with pytest.raises(yaml.YAMLError, match=r"\*a0: an alias; write the value out"):
        load_yaml(BOMB)


def test_lists_may_lie_as_deep_as_is_allowed_and_no_deeper() -> None:
    value = load_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    for _ in range(MAX_DEPTH - 1):
        value = value[0]
    assert value == []
    for text in ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "[" * 20_000, "{a: " * 20_000, "- " * 20_000,
                 "\n".join(" " * n + "a:" for n in range(500))):
        with pytest.raises(yaml.YAMLError, match=f"more than {MAX_DEPTH} deep"):
            load_yaml(text)


@pytest.mark.parametrize(("text", "told"), [
    ("a: 1\nb: 2\na: 3", "'a' stands twice"), ("a: !!python/object:os.system x", "a tag"), ("!!int ''", "a tag"), ("! x", "a tag"),
    ("[", "expected the node content"), (b"\xff", "not UTF-8: byte 0"), ("a: " + "9" * 5_000, "a number of 5000 characters"),
    ("2001-99-99", "cannot be read"),
    ("{[1]: 2}", "unhashable"), ("a\0", "is a zero byte"), ("a: 1\n---\nb: 2", "expected a single document")])
def test_what_is_not_plain_is_refused_as_yaml(text: str | bytes, told: str) -> None:
    with pytest.raises(yaml.YAMLError, match=told):
        load_yaml(text)


def test_a_long_text_is_refused_before_it_is_read() -> None:
    assert load_yaml("a" * 10, max_bytes=10) == "a" * 10
    with pytest.raises(yaml.YAMLError, match="11 bytes; at most 10 are read"):
        load_yaml("é" + "a" * 9, max_bytes=10)


@pytest.mark.parametrize("text", ["1:" + "1:" * 100_000 + "1", "0x" + "f" * 6_000, "1" * 5_000, "1:" * 60 + "1.5"])
def test_numbers_longer_than_any_setting_are_refused_at_once(text: str) -> None:
    with pytest.raises(yaml.YAMLError, match="a number of"):
        load_yaml(f"seed: {text}")
    assert load_yaml("seed: 1:30\nrate: 1.5e-3") == {"seed": 90, "rate": 0.0015}

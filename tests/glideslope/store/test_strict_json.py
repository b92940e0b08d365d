import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.errors import VerificationError
from glideslope.store.strict_json import parse_object, read_bounded, refuse_many

SIMPLE = st.none() | st.booleans() | st.integers(-10**15, 10**15) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SIMPLE, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=10)


def parse(data: bytes, **limits: int) -> dict[str, Any]:
    return parse_object(data, where="it", **({"max_bytes": 1_000_000} | limits))


def depth_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_plain_objects_are_read_as_they_were_written_and_no_deeper_than_allowed(value: dict[str, Any]) -> None:
    data = json.dumps(value).encode()
    assert parse(data) == value
    depth = depth_of(value)
    assert parse(data, max_depth=depth) == value
    with pytest.raises(VerificationError, match=f"lie {depth} deep, at most {depth - 1} are read"):
        parse(data, max_depth=depth - 1)


@pytest.mark.parametrize(("data", "told"), [
    (b"", "not readable as JSON"), (b"{", "not readable as JSON"), (b"\xff", "not readable as JSON"),
    (b"\xef\xbb\xbf{}", "not readable as JSON"),
    (b"[]", "expected a JSON object, got list"), (b"3", "got int"), (b'{"a": 1, "a": 1}', "key 'a' occurs twice"),
    (b'{"a": {"b": 1, "b": 2}}', "key 'b' occurs twice"), (b'{"a": NaN}', "NaN is not a JSON number"), (b'{"a": -Infinity}', "-Infinity is"),
    (b'{"a": ' + b"9" * 5000 + b"}", "an integer of 5000 digits"), (b'{"a": "\\ud800"}', "surrogates not allowed"),
    (b'{"a": ' + b"[" * 100_000, "lie 100001 deep, at most 32"), (b'{"a": ' + b'{"b": ' * 40 + b"1" + b"}" * 41, "lie 41 deep"),
    (b'{"a": "' + b'\\"' * 400_000, "not readable as JSON"), (b" " * 1_000_001, "1000001 bytes; at most 1000000 are read")])
def test_odd_json_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(VerificationError, match=f"it: 1 problem.*{told}"):
        parse(data)


def test_brackets_in_strings_are_no_depth() -> None:
    assert parse(json.dumps({"a": "[" * 100 + '\\"{{' * 50}).encode()) == {"a": "[" * 100 + '\\"{{' * 50}


def test_a_file_is_read_up_to_its_limit_only(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == b"12345"
    with pytest.raises(VerificationError, match="more than 4 bytes"):
        read_bounded(path, 4)
    with pytest.raises(VerificationError, match="No such file"):
        read_bounded(tmp_path / "none", 4)
    with pytest.raises(VerificationError, match="Is a directory"):
        read_bounded(tmp_path, 4)


def test_objects_and_lists_of_many_lines_are_counted_together() -> None:
    refuse_many('{"a": "[[["}\n[]\n', 2)
    with pytest.raises(ValueError, match="3 objects and lists, at most 2 are read"):
        refuse_many("[]\n[]\n[]\n", 2)

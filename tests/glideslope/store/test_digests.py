import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.store.digests import canonical_json, sha256_bytes, sha256_json

JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12)


@given(JSON)
def test_canonical_json_reads_back_and_is_written_again_the_same(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


@given(st.dictionaries(st.text(), st.integers(), max_size=6))
def test_the_order_of_keys_does_not_matter(value: dict[str, int]) -> None:
    assert sha256_json(dict(reversed(value.items()))) == sha256_json(value)


def test_canonical_json_has_no_spaces_keeps_letters_and_refuses_what_is_no_number() -> None:
    assert canonical_json({"b": [1, 2.5], "a": "é"}) == '{"a":"é","b":[1,2.5]}'
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match=r"not JSON compliant|Out of range"):
            canonical_json([value])


@given(st.binary(max_size=64))
def test_the_digest_of_a_file_is_that_of_its_bytes(data: bytes) -> None:
    assert len(sha256_bytes(data)) == 64
    assert sha256_bytes(data) != sha256_bytes(data + b"\0")

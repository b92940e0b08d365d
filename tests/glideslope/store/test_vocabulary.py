import json

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.store.vocabulary import OF_CATEGORY, Cause, Decision, Reason, Role, Status

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True)
PLAIN = st.sampled_from([cause for cause in Cause if cause not in OF_CATEGORY])
REASONS = st.one_of(PLAIN.map(Reason), st.builds(Reason, st.just(Cause.LABEL), NAMES), st.builds(Reason, st.just(Cause.FILTER), NAMES),
                    st.builds(Reason, st.just(Cause.FILTER), NAMES, st.one_of(NAMES, NAMES.map(lambda name: f"{name}:missing"))))


@given(REASONS)
def test_a_reason_is_read_as_it_was_written(reason: Reason) -> None:
    assert Reason.parse(str(reason)) == reason


@pytest.mark.parametrize("reason, text", [
    (Reason(Cause.NOTHING), ""), (Reason(Cause.DUPLICATE_KEY), "duplicate key"), (Reason(Cause.LABEL, "person"), "label:person"),
    (Reason(Cause.FILTER, "person"), "filter:person"), (Reason(Cause.FILTER, "person", "faces:missing"), "filter:person:faces:missing")])
def test_a_ledger_holds_reasons_as_short_text(reason: Reason, text: str) -> None:
    assert str(reason) == text


@pytest.mark.parametrize("text", ["filter", "label", "odd", "missing:person", "label:person:faces", "Filter:person", " "])
def test_what_is_no_reason_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no reason of a ledger|not a valid Cause"):
        Reason.parse(text)


def test_files_hold_the_words_as_plain_text() -> None:
    assert json.dumps({Role.TEST: [Decision.KEEP, Status.BAD]}) == '{"test": ["keep", "bad"]}'
    column = pa.array([Cause.TOO_LARGE, "", Cause.CAPTION])
    assert column.type == pa.string() and column.to_pylist() == ["too large", "", "caption"]
    assert pc.equal(column, Cause.CAPTION).to_pylist() == [False, False, True]

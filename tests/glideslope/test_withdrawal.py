"""WITHDRAWN.json: written in one form, and read strictly."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.errors import VerificationError
from glideslope.withdrawal import MAX_REASON_LENGTH, Withdrawal, Withdrawals

OLD = Withdrawal("a" * 64, "v1", "draws people")
NEW = Withdrawal("b" * 64, "", "the audit's labels were wrong")

withdrawals = st.lists(st.builds(Withdrawal, st.binary(min_size=32, max_size=32).map(bytes.hex), st.text(max_size=20),
                                 st.text(min_size=1, max_size=80).filter(lambda text: bool(text.strip()))),
                       min_size=1, max_size=5, unique_by=lambda withdrawal: withdrawal.root)


@given(withdrawals)
def test_what_is_written_is_read_back(entries: list[Withdrawal]) -> None:
    written = Withdrawals(tuple(entries))
    assert Withdrawals.from_bytes(written.to_bytes()) == written


def test_a_release_is_found_by_its_root_and_others_stand() -> None:
    found = Withdrawals().add(OLD)
    assert found.find(OLD.root) == OLD
    assert found.find(NEW.root) is None


def test_a_second_withdrawal_comes_after_the_first_and_a_repeated_one_gets_the_new_reason() -> None:
    assert Withdrawals().add(OLD).add(NEW).withdrawn == (OLD, NEW)
    again = Withdrawal(OLD.root, "v1", "draws people and weapons")
    assert Withdrawals().add(OLD).add(NEW).add(again).withdrawn == (again, NEW)
    assert Withdrawals().add(OLD).add(OLD).withdrawn == (OLD,)


@pytest.mark.parametrize("change", [
    lambda value: value.update(format="glideslope.withdrawn/2"), lambda value: value.update(withdrawn=[]), lambda value: value.pop("withdrawn"),
    lambda value: value.update(withdrawn={}), lambda value: value.update(more=1), lambda value: value["withdrawn"][0].update(root="A" * 64),
    lambda value: value["withdrawn"][0].update(reason="  "), lambda value: value["withdrawn"][0].update(reason="x" * (MAX_REASON_LENGTH + 1)),
    lambda value: value["withdrawn"][0].update(tag=None), lambda value: value["withdrawn"][0].pop("tag"),
    lambda value: value["withdrawn"].append(dict(value["withdrawn"][0])), lambda value: value["withdrawn"].append("all")])
def test_anything_else_is_refused(change: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(Withdrawals((OLD, NEW)).to_bytes())
    change(value)
    with pytest.raises(VerificationError):
        Withdrawals.from_bytes((json.dumps(value, sort_keys=True, indent=2) + "\n").encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"not JSON", Withdrawals((OLD,)).to_bytes() + b"\n", json.dumps(
    json.loads(Withdrawals((OLD,)).to_bytes())).encode(), b'{"format":"glideslope.withdrawn/1","format":"glideslope.withdrawn/1"}'])
def test_other_spellings_are_refused(data: bytes) -> None:
    with pytest.raises(VerificationError):
        Withdrawals.from_bytes(data)

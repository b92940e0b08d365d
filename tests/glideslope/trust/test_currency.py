"""Which releases a status lets through: older, withdrawn, replayed, expired and forged ones are refused."""

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from glideslope.errors import VerificationError
from glideslope.trust.currency import Asked, refuse_by_status
from glideslope.trust.keys import key_id_of
from glideslope.trust.status import SignedStatus, Status, times_from, with_current, with_withdrawn

OURS, THEIRS = Ed25519PrivateKey.from_private_bytes(bytes(range(32))), Ed25519PrivateKey.from_private_bytes(bytes(32))
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
TAKEN, OLD, NEW, STRANGE = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)
RELEASES = with_withdrawn(with_current(with_current(with_current((), TAKEN, "v0"), OLD, "v1"), NEW, "v2"), TAKEN, "v0", "draws people")
ASKED = Asked("org/name at 123", NEW, "org/name", None, is_pinned=False, keys=(key_id_of(OURS),), lowest=5, needs_status=True, now=NOW)


def status(*, key: Ed25519PrivateKey | None = OURS, number: int = 7, repository: str | None = "org/name", days: int = 30,
           issued: datetime = NOW, releases: Any = RELEASES) -> SignedStatus:
    times = times_from(issued, None if key is None else days)
    return SignedStatus.from_bytes(Status(repository, number, *times, releases).to_bytes(key))


def test_the_current_release_passes_and_a_pinned_older_one_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    refuse_by_status(status(), ASKED)
    refuse_by_status(status(number=5), ASKED)
    refuse_by_status(status(), replace(ASKED, repository="Org/Name"))
    assert caplog.messages == []
    with caplog.at_level(logging.WARNING, "glideslope.loading"):
        refuse_by_status(status(), replace(ASKED, root=OLD, revision="v1", is_pinned=True))
    assert "was superseded by v2" in caplog.messages[0]
    refuse_by_status(None, replace(ASKED, lowest=None, needs_status=False))


# What an attacker with a token, but no key, can put there; and whether unsafe_stale_status lets it through.
@pytest.mark.parametrize(("found", "asked", "message", "is_waived"), [
    (None, {}, "STATUS.json is missing, but status 5 of this repository was seen before", False),
    (None, {"lowest": None}, "has no STATUS.json, so nothing shows that this release is current", True),
    ({"number": 4}, {}, "has the number 4, but 5 was seen before", False),
    ({"repository": "org/other"}, {}, "is that of org/other, expected org/name", False),
    ({"repository": None}, {}, "is that of a directory, expected org/name", False),
    ({"key": THEIRS}, {}, "counts only when it is signed by", True),
    ({"key": None}, {}, "counts only when it is signed by", True),
    ({"issued": NOW - timedelta(days=30)}, {}, "expired at 2026-11-30T12:00:00Z", True),
    ({"issued": NOW + timedelta(hours=2)}, {}, "set the clock of this machine", True),
    ({}, {"root": STRANGE}, "does not name this release", True),
    ({}, {"root": OLD}, r"the default branch shows a release that was superseded by v2 .* revision='v2'", False),
    ({}, {"root": OLD, "revision": "v2", "is_pinned": True}, "somebody moved the tag", False),
    ({}, {"root": NEW, "revision": "v1", "is_pinned": True}, "somebody moved the tag", False),
    ({}, {"root": TAKEN, "revision": "v0", "is_pinned": True}, r"it was withdrawn: draws people \(status 7, signed by .*take v2", False),
    ({"key": None}, {"root": TAKEN, "is_pinned": True, "keys": ()}, r"it was withdrawn: draws people \(status 7, not signed\)", False),
    ({}, {"root": None}, "nobody can tell whether the release was withdrawn, as it has no manifest", False),
])
def test_a_status_refuses(found: dict[str, Any] | None, asked: dict[str, Any], message: str, is_waived: bool,
                          caplog: pytest.LogCaptureFixture) -> None:
    given, wish = None if found is None else status(**found), replace(ASKED, **asked)
    with pytest.raises(VerificationError, match=message):
        refuse_by_status(given, wish)
    wish = replace(wish, unsafe_stale_status=True)
    if not is_waived:
        with pytest.raises(VerificationError, match=message):
            refuse_by_status(given, wish)
        return
    with caplog.at_level(logging.WARNING, "glideslope.loading"):
        refuse_by_status(given, wish)
    assert "as unsafe_stale_status asks" in caplog.messages[0]


def test_a_clock_that_is_a_little_behind_does_not_count() -> None:
    refuse_by_status(status(issued=NOW + timedelta(minutes=59)), ASKED)
    refuse_by_status(status(issued=NOW - timedelta(days=30) + timedelta(seconds=1)), ASKED)


def test_what_is_withdrawn_is_loaded_only_when_that_is_asked_for_and_only_that_is_lifted() -> None:
    taken = replace(ASKED, root=TAKEN, revision="v0", is_pinned=True, allow_withdrawn=True)
    refuse_by_status(status(), taken)
    with pytest.raises(VerificationError, match="has the number 4"):
        refuse_by_status(status(number=4), taken)
    with pytest.raises(VerificationError, match="counts only when"):
        refuse_by_status(status(key=THEIRS), taken)


def test_two_statuses_of_one_number_do_not_both_count() -> None:
    known = status().status.sha256
    refuse_by_status(status(), replace(ASKED, lowest=7, seen=[known]))
    refuse_by_status(status(key=THEIRS), replace(ASKED, lowest=7, seen=[known], keys=(key_id_of(THEIRS),)))  # the same is said, whoever signed
    for seen in (["0" * 64], [known, "0" * 64]):
        for is_waived in (False, True):
            with pytest.raises(VerificationError, match="says something else than the one of the same number, 7"):
                refuse_by_status(status(), replace(ASKED, lowest=7, seen=seen, unsafe_stale_status=is_waived, allow_withdrawn=is_waived))
    refuse_by_status(status(), replace(ASKED, lowest=6, seen=["0" * 64]))

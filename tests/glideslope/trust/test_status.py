"""STATUS.json: one form, and nothing in it that contradicts itself."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from glideslope.errors import ReleaseError, VerificationError
from glideslope.store.file_lists import FileEntry
from glideslope.trust.envelopes import sign_statement
from glideslope.trust.keys import key_id_of
from glideslope.trust.release_manifest import ReleaseManifest
from glideslope.trust.signatures import Vouched, release_statement
from glideslope.trust.status import ReleaseStatus, SignedStatus, Status, times_from, with_current, with_withdrawn

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
OLD, NEW, THIRD = ("a" * 64, "b" * 64, "c" * 64)
RELEASES = with_withdrawn(with_current(with_current(with_current((), OLD, "v1"), NEW, "v2"), THIRD, "v3"), OLD, "v1", "draws people")
SIGNED = Status("org/name", 7, *times_from(NOW, 30), RELEASES).to_bytes(KEY)
UNSIGNED = Status("org/name", 7, *times_from(NOW, None), RELEASES).to_bytes()


def sealed(value: Any) -> bytes:
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode()


def test_a_status_is_read_back_with_who_signed_it() -> None:
    found = SignedStatus.from_bytes(SIGNED)
    assert found.key_ids == (key_id_of(KEY),)
    assert found.status == Status("org/name", 7, NOW, NOW + timedelta(days=30), RELEASES)
    assert [(one.state, one.successor) for one in RELEASES] == [("withdrawn", THIRD), ("superseded", THIRD), ("current", None)]
    assert SignedStatus.from_bytes(UNSIGNED) == SignedStatus(Status("org/name", 7, NOW, None, RELEASES), ())


@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_byte_changed_in_a_signed_status_is_refused(data: st.DataObject) -> None:
    place, value = data.draw(st.integers(0, len(SIGNED) - 1)), data.draw(st.integers(0, 255))
    assume(SIGNED[place] != value)
    with pytest.raises(VerificationError):
        SignedStatus.from_bytes(SIGNED[:place] + bytes([value]) + SIGNED[place + 1:])


ROOTS = st.sampled_from([OLD, NEW, THIRD, "d" * 64])
STEPS = st.lists(st.tuples(st.sampled_from(["publish", "withdraw"]), ROOTS), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(STEPS)
def test_whatever_is_published_and_withdrawn_gives_a_status_that_is_read_back(steps: list[tuple[str, str]]) -> None:
    releases: tuple[ReleaseStatus, ...] = ()
    for step, root in steps:
        releases = with_current(releases, root, "v") if step == "publish" else with_withdrawn(releases, root, "v", "why")
        status = Status(None, 1, *times_from(NOW, None), releases)
        assert SignedStatus.from_bytes(status.to_bytes()).status == status
        said = status.find(root)
        assert said is not None
        assert said.state == ("current" if step == "publish" else "withdrawn")
        assert {one.root for one in releases} == {done for _, done in steps[:steps.index((step, root)) + 1]} | {one.root for one in releases}


@pytest.mark.parametrize(("change", "message"), [
    (lambda v: v.update(format="glideslope.status/2"), "update glideslope"),
    (lambda v: v.update(more=1), "expected format, status and signatures"),
    (lambda v: v.update(signatures=[{"keyid": "a" * 64}]), "needs a keyid of 64 characters"),
    (lambda v: v["status"].update(more=1), "and nothing else"),
    (lambda v: v["status"].update(number=0), "number is 0"),
    (lambda v: v["status"].update(number=True), "each of its type"),
    (lambda v: v["status"].update(number=2**60), "number is"),
    (lambda v: v["status"].update(repository="name"), "repository is no org/name"),
    (lambda v: v["status"].update(issued="2026-13-30T12:00:00Z"), "is no time such as"),
    (lambda v: v["status"].update(issued="2026-11-30 12:00:00"), "is no time such as"),
    (lambda v: v["status"].update(expires="2027-11-30T12:00:00Z"), "a signed status expires, and an unsigned one does not"),
    (lambda v: v["status"].update(expires="2025-11-30T12:00:00Z"), "expires does not lie within"),
    (lambda v: v["status"].update(expires="2036-11-30T12:00:00Z"), "expires does not lie within"),
    (lambda v: v["status"].update(releases=[]), "names no release"),
    (lambda v: v["status"]["releases"].append(v["status"]["releases"][0]), "or one of them twice"),
    (lambda v: v["status"]["releases"][1].update(state="current", successor=None), "of two releases that they are current"),
    (lambda v: v["status"]["releases"][1].update(state="fine"), "update glideslope"),
    (lambda v: v["status"]["releases"][1].update(successor=None), "a superseded release names its successor"),
    (lambda v: v["status"]["releases"][1].update(successor="e" * 64), "that it does not list"),
    (lambda v: v["status"]["releases"][1].update(successor=NEW), "no other release's root"),
    (lambda v: v["status"]["releases"][2].update(successor=NEW), "the current one has none"),
    (lambda v: v["status"]["releases"][0].update(reason=" "), "a withdrawn release has a reason"),
    (lambda v: v["status"]["releases"][0].update(reason="x" * 2001), "a withdrawn release has a reason"),
    (lambda v: v["status"]["releases"][1].update(reason="why"), "and no other has one"),
    (lambda v: v["status"]["releases"][0].update(root="x"), "a root is no digest"),
    (lambda v: v["status"]["releases"][0].pop("tag"), "a release needs root, tag"),
])
def test_a_status_that_contradicts_itself_or_leaves_something_out_is_refused(change: Callable[[Any], Any], message: str) -> None:
    value = json.loads(UNSIGNED)
    change(value)
    with pytest.raises(VerificationError, match=message):
        SignedStatus.from_bytes(sealed(value))


def test_a_signature_cannot_be_taken_off_and_one_on_a_release_fits_no_status() -> None:
    value = json.loads(SIGNED)
    with pytest.raises(VerificationError, match="a signed status expires"):
        SignedStatus.from_bytes(sealed(value | {"signatures": []}))
    manifest = ReleaseManifest((FileEntry("README.md", 3, "a" * 64),), ()).to_bytes()
    release = json.loads(sign_statement(release_statement(manifest, Vouched("x", ("reload",), "b" * 64, {})), KEY))
    for other in (release["signatures"], [value["signatures"][0] | {"sig": release["signatures"][0]["sig"]}]):
        with pytest.raises(VerificationError, match="the signature is not one of"):
            SignedStatus.from_bytes(sealed(value | {"signatures": other}))
    with pytest.raises(VerificationError, match="not in the form"):
        SignedStatus.from_bytes(json.dumps(value).encode())


def test_without_the_extra_a_signature_is_told_as_unchecked_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = SignedStatus.from_bytes(SIGNED)
    assert (found.key_ids, found.is_checked) == ((), False)
    assert "its signature was not checked" in found.describe()
    with pytest.raises(ReleaseError, match="install it with"):
        SignedStatus.from_bytes(SIGNED, must_check=True)
    assert SignedStatus.from_bytes(UNSIGNED, must_check=True).is_checked


@pytest.mark.parametrize("days", [0, -1, 1001])
def test_a_time_that_is_no_time_or_too_long_is_refused(days: int) -> None:
    with pytest.raises(ReleaseError, match="expected 1 to 1000"):
        times_from(NOW, days)


def test_a_status_at_the_end_of_all_times_is_refused_like_any_other() -> None:
    text = UNSIGNED.decode().replace('"issued": "2026-11-30T12:00:00Z"', '"issued": "9999-12-31T00:00:00Z"')
    text = text.replace('"expires": null', '"expires": "9999-12-31T00:00:01Z"')
    with pytest.raises(VerificationError, match="a signed status expires, and an unsigned one does not"):
        SignedStatus.from_bytes(text.encode())

"""What a notice of withdrawal says, and how sure anybody can be of it."""

import logging

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from glideslope.envelopes import sign_statement
from glideslope.errors import VerificationError
from glideslope.notices import examine_withdrawal, refuse_withdrawn
from glideslope.signatures import withdrawal_statement
from glideslope.signers import SignerRule
from glideslope.signing_keys import key_id_of
from glideslope.withdrawal import WITHDRAWN_NAME, WITHDRAWN_SIGNATURE_NAME, Withdrawal, Withdrawals

KEY, OTHER = (Ed25519PrivateKey.from_private_bytes(seed) for seed in (bytes(range(32)), bytes(32)))
NAMED, STANDING = "a" * 64, "b" * 64
LIST = Withdrawals((Withdrawal(NAMED, "v1", "draws people"),)).to_bytes()
ENVELOPE = sign_statement(withdrawal_statement(LIST), KEY)
SIGNED = {WITHDRAWN_NAME: LIST, WITHDRAWN_SIGNATURE_NAME: ENVELOPE}
EDITED = {WITHDRAWN_NAME: Withdrawals((Withdrawal("c" * 64, "v1", "draws people"),)).to_bytes(), WITHDRAWN_SIGNATURE_NAME: ENVELOPE}


def said_of(files: dict[str, bytes], root: str | None = NAMED, trusted: SignerRule | None = None) -> str:
    with pytest.raises(VerificationError) as refused:
        refuse_withdrawn("org/name", files, root, trusted)
    return str(refused.value)


def test_a_withdrawal_is_told_with_the_whole_key_that_signed_it() -> None:
    said = said_of(SIGNED)
    assert "it was withdrawn: draws people (WITHDRAWN.json: signed by" in said
    assert f"signed by {key_id_of(KEY)})" in said
    assert said_of(SIGNED, trusted=SignerRule.of(key_id_of(KEY))) == said


def test_a_withdrawal_counts_unsigned_or_wrongly_signed_and_says_so() -> None:
    assert "it was withdrawn: draws people (WITHDRAWN.json: not signed)" in said_of({WITHDRAWN_NAME: LIST})
    for envelope in (b"\x80garbage", b"{}", ENVELOPE[:-3]):
        said = said_of({WITHDRAWN_NAME: LIST, WITHDRAWN_SIGNATURE_NAME: envelope})
        assert "it was withdrawn: draws people (WITHDRAWN.json: its signature does not fit: " in said


def test_a_withdrawal_by_somebody_else_than_the_trusted_signer_is_told_as_foreign() -> None:
    said = said_of(SIGNED, trusted=SignerRule.of(key_id_of(OTHER)))
    assert f"signed by {key_id_of(KEY)}, which is foreign: you trust {key_id_of(OTHER)[:16]}…" in said


def test_a_list_that_does_not_name_a_release_lets_it_stand(caplog: pytest.LogCaptureFixture) -> None:
    for files in ({}, SIGNED, {WITHDRAWN_NAME: LIST}):
        refuse_withdrawn("org/name", files, STANDING)
    refuse_withdrawn("org/name", SIGNED, STANDING, SignerRule.of(key_id_of(KEY)))
    assert caplog.messages == []


def test_a_list_that_the_trusted_signer_did_not_sign_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "glideslope.loading"):
        refuse_withdrawn("org/name", SIGNED, STANDING, SignerRule.of(key_id_of(OTHER)))
        refuse_withdrawn("org/name", {WITHDRAWN_NAME: LIST}, STANDING, SignerRule.of(key_id_of(OTHER)))
    assert ["which is foreign" in caplog.messages[0], caplog.messages[1].endswith("WITHDRAWN.json: not signed")] == [True, True]


def test_a_signed_list_that_was_edited_or_removed_counts_for_every_release() -> None:
    assert "its signature does not fit: the signature is about something else" in said_of(EDITED)
    assert "somebody changed the list of withdrawn releases" in said_of(EDITED, STANDING)
    assert "without the WITHDRAWN.json that it signs" in said_of({WITHDRAWN_SIGNATURE_NAME: ENVELOPE}, STANDING)


def test_a_release_without_a_manifest_may_be_any_of_those() -> None:
    assert f"nobody can tell whether it is one of them, as it has no manifest (WITHDRAWN.json: signed by {key_id_of(KEY)})" in \
        said_of(SIGNED, None)


def test_a_list_that_is_malformed_is_refused_whatever_its_signature_is() -> None:
    for files in ({WITHDRAWN_NAME: b"{}"}, {WITHDRAWN_NAME: b"{}", WITHDRAWN_SIGNATURE_NAME: ENVELOPE}):
        assert "WITHDRAWN.json of org/name" in said_of(files, STANDING)
    with pytest.raises(VerificationError):
        examine_withdrawal(None, b"{}")


def test_without_the_extra_a_signature_is_told_as_unchecked(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "draws people (WITHDRAWN.json: its signature was not checked" in said_of(SIGNED)
    with caplog.at_level(logging.WARNING, "glideslope.loading"):
        refuse_withdrawn("org/name", SIGNED, STANDING)
    assert "its signature was not checked, as the extra `sign` is not installed" in caplog.messages[0]

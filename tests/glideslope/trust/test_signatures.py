import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from glideslope.errors import ReleaseError, VerificationError
from glideslope.store.digests import canonical_json
from glideslope.store.file_lists import FileEntry
from glideslope.trust.envelopes import PAYLOAD_TYPE, add_signature, pre_authentication_encoding, sign_statement
from glideslope.trust.keys import FIELD_PRIME, generate_key, is_encrypted, is_signed_by, is_weak_key, key_id_of, read_key_id, read_private_key
from glideslope.trust.release_manifest import ReleaseManifest
from glideslope.trust.signatures import Vouched, read_guards, release_statement, verify_envelope, verify_guards
from glideslope.trust.signers import SignerRule

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
MANIFEST = ReleaseManifest((FileEntry("README.md", 3, "a" * 64),), ()).to_bytes()
VOUCHED = Vouched("Small model", ("reload", "intact"), "b" * 64, {"golden samples": "the reference machine is gone"})
ENVELOPE = sign_statement(release_statement(MANIFEST, VOUCHED), KEY)
RULE = SignerRule.of(key_id_of(KEY))


def test_the_encoding_that_is_signed_is_that_of_the_standard() -> None:
    assert pre_authentication_encoding("http://example.com/HelloWorld", b"hello world") == \
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_a_signature_names_its_key_and_what_it_vouches_for() -> None:
    signer = verify_envelope(ENVELOPE, MANIFEST)
    assert signer.key_ids == (key_id_of(KEY),) == (KEY.public_key().public_bytes_raw().hex(),)
    assert signer.gates == ("intact", "reload")
    assert signer.unsafe == {"golden samples": "the reference machine is gone"}
    assert [subject["name"] for subject in signer.statement["subject"]] == ["manifest.json", "files", "tensors"]
    assert verify_envelope(ENVELOPE, MANIFEST, RULE) == signer


def test_the_same_release_and_key_give_the_same_bytes() -> None:
    assert sign_statement(release_statement(MANIFEST, VOUCHED), KEY) == ENVELOPE


def test_somebody_elses_key_is_refused_when_one_is_trusted() -> None:
    forged = sign_statement(release_statement(MANIFEST, VOUCHED), OTHER)
    assert verify_envelope(forged, MANIFEST).key_ids == (key_id_of(OTHER),)
    with pytest.raises(VerificationError, match=f"signed by {key_id_of(OTHER)[:16]}…, expected {key_id_of(KEY)[:16]}…"):
        verify_envelope(forged, MANIFEST, RULE)


def test_a_signature_on_another_manifest_is_refused() -> None:
    other = ReleaseManifest((FileEntry("README.md", 3, "c" * 64),), ()).to_bytes()
    with pytest.raises(VerificationError, match="the signature is about another release"):
        verify_envelope(ENVELOPE, other)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_byte_changed_in_an_envelope_is_refused(data: st.DataObject) -> None:
    place, value = data.draw(st.integers(0, len(ENVELOPE) - 1)), data.draw(st.integers(0, 255))
    assume(ENVELOPE[place] != value)
    with pytest.raises(VerificationError):
        verify_envelope(ENVELOPE[:place] + bytes([value]) + ENVELOPE[place + 1:], MANIFEST)


def sealed(value: Any) -> bytes:
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode()


@pytest.mark.parametrize(("change", "message"), [
    (lambda e: e.update(signatures=[]), "expected payload, payloadType and at least one signature"),
    (lambda e: e["signatures"].append(e["signatures"][0]), "or a key signed twice"),
    (lambda e: e.pop("payloadType"), "expected payload, payloadType and at least one signature"),
    (lambda e: e.update(note=""), "expected payload, payloadType and at least one signature"),
    (lambda e: e.update(payloadType="text/plain"), "payloadType is 'text/plain'"),
    (lambda e: e["signatures"][0].pop("keyid"), "needs a keyid of 64 characters"),
    (lambda e: e["signatures"][0].update(keyid=""), "needs a keyid of 64 characters"),
    (lambda e: e["signatures"][0].update(keyid=e["signatures"][0]["keyid"].upper()), "needs a keyid of 64 characters"),
    (lambda e: e["signatures"][0].update(keyid=key_id_of(OTHER)), "the signature is not one of "),
    (lambda e: e["signatures"][0].update(sig=""), "the signature is not one of "),
    (lambda e: e["signatures"][0].update(sig="?"), "text that is not base64"),
    (lambda e: e["signatures"][0].update(cert="x"), "and nothing else"),
    (lambda e: e.update(payload=base64.b64encode(b"{}").decode()), "the signature is not one of "),
])
def test_an_edited_envelope_is_refused(change: Callable[[Any], Any], message: str) -> None:
    value = json.loads(ENVELOPE)
    change(value)
    with pytest.raises(VerificationError, match=message):
        verify_envelope(sealed(value), MANIFEST)


def test_an_envelope_with_a_key_twice_or_in_another_form_is_refused() -> None:
    twice = ENVELOPE.replace(b'"payloadType"', b'"payloadType": "text/plain",\n  "payloadType"', 1)
    with pytest.raises(VerificationError, match="'payloadType' occurs twice"):
        verify_envelope(twice, MANIFEST)
    with pytest.raises(VerificationError, match="not in the form that `glideslope sign` writes"):
        verify_envelope(json.dumps(json.loads(ENVELOPE)).encode(), MANIFEST)


@pytest.mark.parametrize(("change", "message"), [
    (lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"), "no in-toto statement of version 1"),
    (lambda s: s.pop("predicate"), "no in-toto statement of version 1"),
    (lambda s: s.update(predicateType="https://glideslope.dev/other/v1"), "expected 'https://glideslope.dev/release/v1'"),
    (lambda s: s.update(subject=[]), "about another release"),
    (lambda s: s["subject"].pop(), "about another release"),
    (lambda s: s["subject"].append({"name": "more", "digest": {}}), "about another release"),
    (lambda s: s["predicate"].pop("gates"), "does not say what the signature of a release says"),
    (lambda s: s["predicate"].update(gates=[]), "does not say what the signature of a release says"),
    (lambda s: s["predicate"].pop("unsafe"), "does not say what the signature of a release says"),
    (lambda s: s["predicate"].update(unsafe={"reload": ""}), "does not say what the signature of a release says"),
    (lambda s: s["predicate"].update(root="0" * 64), "does not say what the signature of a release says"),
    (lambda s: s["predicate"].update(policy_sha256=""), "does not say what the signature of a release says"),
    (lambda s: s["predicate"].update(glideslope=None), "does not say what the signature of a release says"),
    (lambda s: s["predicate"].update(more=1), "does not say what the signature of a release says"),
])
def test_a_statement_that_leaves_something_out_is_refused_though_it_is_signed(change: Callable[[Any], Any], message: str) -> None:
    statement = release_statement(MANIFEST, VOUCHED)
    change(statement)
    with pytest.raises(VerificationError, match=message):
        verify_envelope(sign_statement(statement, KEY), MANIFEST)


def test_a_signed_statement_in_another_form_is_refused() -> None:
    payload = canonical_json(release_statement(MANIFEST, VOUCHED)).encode() + b" "
    signature = base64.b64encode(KEY.sign(pre_authentication_encoding(PAYLOAD_TYPE, payload))).decode()
    envelope = sealed({"payload": base64.b64encode(payload).decode(), "payloadType": PAYLOAD_TYPE,
                       "signatures": [{"keyid": key_id_of(KEY), "sig": signature}]})
    with pytest.raises(VerificationError, match="the statement is not in canonical form"):
        verify_envelope(envelope, MANIFEST)


def read(directory: Path, rule: SignerRule | None = None) -> Any:
    return verify_guards(read_guards(directory), rule, name=str(directory))


def test_a_release_directory_is_read_with_its_signature(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(MANIFEST)
    assert read(tmp_path) is None
    with pytest.raises(VerificationError, match=r"manifest\.dsse\.json is missing: the release is not signed"):
        read(tmp_path, RULE)
    (tmp_path / "manifest.dsse.json").write_bytes(ENVELOPE)
    assert read(tmp_path, RULE).key_ids == RULE.keys
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(VerificationError, match=r"manifest\.json is missing, but manifest\.dsse\.json is there"):
        read(tmp_path)


KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)) for number in range(1, 5)]
IDS = [key_id_of(key) for key in KEYS]


@given(st.sets(st.integers(0, 3), min_size=1), st.lists(st.integers(0, 3), min_size=1, max_size=8), st.integers(1, 4))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_rule_is_met_by_enough_of_its_own_keys_and_no_other_keys_help(signing: set[int], named: list[int], threshold: int) -> None:
    envelope = sign_statement(release_statement(MANIFEST, VOUCHED), *(KEYS[number] for number in signing))
    if threshold > len(set(named)):
        with pytest.raises(ReleaseError, match=f"the threshold is {threshold}, but {len(set(named))} different keys are named"):
            SignerRule.of([IDS[number] for number in named], threshold)
        return
    rule = SignerRule.of([IDS[number] for number in named], threshold)
    if len(signing & set(named)) >= threshold:
        assert verify_envelope(envelope, MANIFEST, rule).key_ids == tuple(sorted(IDS[number] for number in signing))
    else:
        with pytest.raises(VerificationError, match="signed by"):
            verify_envelope(envelope, MANIFEST, rule)


@given(st.permutations(range(4)))
@settings(max_examples=24, deadline=None, derandomize=True)
def test_keys_are_added_in_any_order_and_give_the_same_envelope(order: list[int]) -> None:
    statement = release_statement(MANIFEST, VOUCHED)
    envelope = sign_statement(statement, KEYS[order[0]])
    for number in (*order[1:], order[0]):
        envelope = add_signature(envelope, KEYS[number], where="x")
    assert envelope == sign_statement(statement, *KEYS)


def test_one_wrong_signature_or_a_repeated_key_spoils_an_envelope() -> None:
    value = json.loads(sign_statement(release_statement(MANIFEST, VOUCHED), *KEYS[:2]))
    first, second = value["signatures"]
    for signatures, message in (([first, first], "a key signed twice"), ([second, first], "out of order"),
                                ([first, second | {"sig": first["sig"]}], "is not one of"), ([], "at least one signature"),
                                ([first] * 65, "65 signatures, at most 64")):
        with pytest.raises(VerificationError, match=message):
            verify_envelope(sealed(value | {"signatures": signatures}), MANIFEST, SignerRule.of(first["keyid"]))


def test_a_rule_without_keys_or_with_a_weak_one_is_refused() -> None:
    for keys, message in (([], "no key is named"), ([IDS[0], IDENTITY], "point of small order"), ([IDS[0], "alice"], "neither a whole key id")):
        with pytest.raises(ReleaseError, match=message):
            SignerRule.of(keys)
    assert SignerRule.of([IDS[0], IDS[0]]) == SignerRule((IDS[0],), 1)
    assert SignerRule.of(SignerRule.of(IDS), 2).threshold == 2
    for rule in (((), 0), ((), 1), ((IDS[0],), 0), ((IDS[0],), 2), ((IDS[0], IDS[0]), 2)):
        with pytest.raises(ReleaseError):
            SignerRule(*rule)


def test_a_key_in_a_second_spelling_is_no_other_key() -> None:
    for y in range(2, 19):  # y and y plus the prime are one point
        assert is_weak_key((y + FIELD_PRIME).to_bytes(32, "little").hex())


def test_a_key_pair_is_written_for_its_owner_alone_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "keys/release"
    key_id = generate_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert key_id == key_id_of(read_private_key(path)) == read_key_id(str(tmp_path / "keys/release.pub")) == read_key_id(key_id)
    before = path.read_bytes()
    with pytest.raises(ReleaseError, match="is there already, and a key is never overwritten"):
        generate_key(path)
    path.unlink()
    with pytest.raises(ReleaseError, match=r"release\.pub: is there already"):
        generate_key(path)
    assert not path.exists()
    assert b"PRIVATE" in before


def test_an_encrypted_key_opens_with_its_passphrase_alone(tmp_path: Path) -> None:
    generate_key(tmp_path / "key", passphrase="correct horse")
    generate_key(tmp_path / "plain")
    assert is_encrypted(tmp_path / "key")
    assert not is_encrypted(tmp_path / "plain")
    read_private_key(tmp_path / "key", passphrase="correct horse")
    for path, passphrase, message in (("key", None, "is encrypted; give its passphrase"), ("key", "wrong horse", "another passphrase"),
                                      ("plain", "correct horse", "is not encrypted; give no passphrase")):
        with pytest.raises(ReleaseError, match=message):
            read_private_key(tmp_path / path, passphrase=passphrase)
    with pytest.raises(ReleaseError, match="the passphrase has 5 characters; expected at least 8"):
        generate_key(tmp_path / "short", passphrase="horse")


def test_keys_that_others_may_read_or_that_are_none_are_refused(tmp_path: Path) -> None:
    generate_key(tmp_path / "key")
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(ReleaseError, match="others may read this private key"):
        read_private_key(tmp_path / "key")
    (tmp_path / "none").write_text("no key")
    (tmp_path / "none").chmod(0o600)
    with pytest.raises(ReleaseError, match="no private key in PEM form"):
        read_private_key(tmp_path / "none")
    with pytest.raises(ReleaseError, match="make a key with `glideslope keygen`"):
        read_private_key(tmp_path / "missing")
    for text in (key_id_of(KEY)[:16], key_id_of(KEY).upper(), str(tmp_path / "none"), str(tmp_path / "missing"), str(tmp_path / "key")):
        with pytest.raises(ReleaseError, match="neither a whole key id"):
            read_key_id(text)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    from glideslope.trust.keys import write_key_pair

    write_key_pair(tmp_path / "key", ec.generate_private_key(ec.SECP256R1()), None)
    with pytest.raises(ReleaseError, match="another kind of key than Ed25519"):
        read_private_key(tmp_path / "key")
    with pytest.raises(ReleaseError, match="another kind of key than Ed25519"):
        read_key_id(str(tmp_path / "key.pub"))


def test_without_the_extra_the_error_names_it(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = ("import sys; sys.modules['cryptography'] = None\n"
            "from glideslope.trust.keys import generate_key\nfrom pathlib import Path\n"
            "from glideslope.errors import ReleaseError\n"
            "try:\n    generate_key(Path(sys.argv[1]))\nexcept ReleaseError as error:\n    print(error)\n")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "key")], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "signatures need the package cryptography; install it with: pip install 'glideslope[sign]'"
    assert not (tmp_path / "key").exists()


# y of the eight points of small order: 1, -1, 0 and the two of order 8, and what 0 and 1 are when the prime is added.
ORDER_8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
SMALL_ORDER = [(y | sign << 255).to_bytes(32, "little").hex() for sign in (0, 1)
               for y in (0, 1, ORDER_8, FIELD_PRIME - ORDER_8, FIELD_PRIME - 1, FIELD_PRIME, FIELD_PRIME + 1)]
IDENTITY = "01" + "00" * 31


def test_anybody_can_sign_in_the_name_of_the_key_one_so_it_is_none() -> None:
    forged = bytes.fromhex(IDENTITY) + bytes(32)
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(IDENTITY)).verify(forged, b"anything at all")
    assert not is_signed_by(IDENTITY, forged, b"anything at all")
    value = json.loads(ENVELOPE)
    value["signatures"][0] = {"keyid": IDENTITY, "sig": base64.b64encode(forged).decode()}
    for trusted in (None, IDENTITY):
        with pytest.raises((VerificationError, ReleaseError), match="point of small order"):
            verify_envelope(sealed(value), MANIFEST, None if trusted is None else SignerRule.of(trusted))


@pytest.mark.parametrize("key_id", SMALL_ORDER)
def test_every_spelling_of_a_point_of_small_order_is_refused_as_a_key(key_id: str, tmp_path: Path) -> None:
    assert is_weak_key(key_id)
    with pytest.raises(ReleaseError, match="is a point of small order"):
        read_key_id(key_id)
    pem = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key_id)).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "weak.pub").write_bytes(pem)
    with pytest.raises(ReleaseError, match="is a point of small order"):
        read_key_id(str(tmp_path / "weak.pub"))


@given(st.binary(min_size=32, max_size=32))
def test_a_key_that_somebody_made_is_not_taken_for_one(seed: bytes) -> None:
    key_id = key_id_of(Ed25519PrivateKey.from_private_bytes(seed))
    assert not is_weak_key(key_id)
    assert read_key_id(key_id) == key_id


def test_no_key_is_made_in_a_release(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(MANIFEST)
    for path in (tmp_path / "key", tmp_path / "evidence/key"):
        with pytest.raises(ReleaseError, match="the private key would lie inside what is given to others"):
            generate_key(path)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]

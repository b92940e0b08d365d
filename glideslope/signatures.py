"""Signatures on releases: an in-toto statement in a DSSE envelope, signed with Ed25519.

The statement names what is signed by digest (manifest.json, the roots of its two lists, the rehearsal's transcript) and
what the signer vouches for: the gates that passed, the policy, and each gate that the policy bypassed, with its reason.
It holds no time and no machine: the same release, key and policy give the same bytes.

Sources: in-toto attestation framework, Statement v1; Dead Simple Signing Envelope (DSSE) v1.0.2, protocol and JSON
envelope; Ed25519 as in RFC 8032.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .errors import VerificationError
from .manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    REHEARSAL_NAME,
    SIGNATURE_NAME,
    ReleaseManifest,
    canonical_json,
    readable_json,
    sha256_bytes,
)
from .signing_keys import KEY_ID_PATTERN, SHORT_ID_LENGTH, is_signed_by, is_weak_key, key_id_of, read_key_id
from .strict_json import parse_object, read_bounded
from .withdrawal import WITHDRAWN_NAME, Withdrawals

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
RELEASE_PREDICATE = "https://glideslope.dev/release/v1"  # names of ours, not addresses
WITHDRAWAL_PREDICATE = "https://glideslope.dev/withdrawal/v1"
MERKLE_DIGEST = "merkleSha256"
MAX_ENVELOPE_BYTES = 1_000_000
MAX_REHEARSAL_BYTES = 16_000_000


@dataclass(frozen=True)
class Vouched:
    """What the signer of a release says beyond its digests.

    Attributes:
        title: of the release.
        gates: names of the gates that passed.
        policy_sha256: hex digest of the policy that they applied.
        unsafe: gate that the policy bypassed -> the reason it gives.
    """

    title: str
    gates: tuple[str, ...]
    policy_sha256: str
    unsafe: Mapping[str, str]


@dataclass(frozen=True)
class Signer:
    """Who signed, and what.

    Attributes:
        key_id: hex of the 32 bytes of the public key. That a signature is valid says only that the owner of this key made it.
        statement: the in-toto statement.
    """

    key_id: str
    statement: Mapping[str, Any]

    @property
    def short(self) -> str:
        """The start of the key's id, enough to be read aloud; never enough to trust."""
        return self.key_id[:SHORT_ID_LENGTH]

    @property
    def gates(self) -> tuple[str, ...]:
        """Names of the gates that the signer says were passed."""
        return tuple(self.statement["predicate"].get("gates", ()))

    @property
    def unsafe(self) -> dict[str, str]:
        """Gate that the policy bypassed -> reason."""
        return dict(self.statement["predicate"].get("unsafe", {}))


def release_statement(manifest_bytes: bytes, vouched: Vouched, *, rehearsal: bytes | None = None) -> dict[str, Any]:
    """What is signed for a release.

    Args:
        manifest_bytes: the release's manifest.json.
        vouched: what the signer says of it.
        rehearsal: the bytes of rehearsal.json, if there is one.

    Raises:
        VerificationError: the manifest is malformed.
    """
    manifest = ReleaseManifest.from_bytes(manifest_bytes)
    predicate = {"title": vouched.title, "glideslope": __version__, "root": manifest.root, "tensors_root": manifest.tensors_root,
                 "gates": sorted(vouched.gates), "policy_sha256": vouched.policy_sha256, "unsafe": dict(vouched.unsafe)}
    return {"_type": STATEMENT_TYPE, "subject": _subjects(manifest_bytes, manifest, rehearsal), "predicateType": RELEASE_PREDICATE,
            "predicate": predicate}


def withdrawal_statement(withdrawn_bytes: bytes) -> dict[str, Any]:
    """What is signed for a WITHDRAWN.json: which releases, named by root, are taken back and why.

    Raises:
        VerificationError: the file is malformed.
    """
    withdrawals = Withdrawals.from_bytes(withdrawn_bytes).withdrawn
    return {"_type": STATEMENT_TYPE, "subject": [{"name": WITHDRAWN_NAME, "digest": {"sha256": sha256_bytes(withdrawn_bytes)}}],
            "predicateType": WITHDRAWAL_PREDICATE,
            "predicate": {"withdrawn": [{"root": w.root, "tag": w.tag, "reason": w.reason} for w in withdrawals]}}


def sign_statement(statement: Mapping[str, Any], key: "Ed25519PrivateKey") -> bytes:
    """Sign a statement: the bytes of its envelope, the same whenever the same key signs the same."""
    payload = canonical_json(statement).encode()
    signature = {"keyid": key_id_of(key), "sig": _encode(key.sign(pre_authentication_encoding(PAYLOAD_TYPE, payload)))}
    return readable_json({"payload": _encode(payload), "payloadType": PAYLOAD_TYPE, "signatures": [signature]})


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """What an envelope's signature is over: type and payload, each with its length in bytes (DSSE, PAE)."""
    encoded = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(encoded), encoded, len(payload), payload)


def verify_envelope(envelope: bytes, manifest_bytes: bytes, public_key: str | None = None, *, rehearsal: bytes | None = None) -> Signer:
    """Check the signature on a release.

    Args:
        envelope: the bytes of manifest.dsse.json.
        manifest_bytes: the bytes of manifest.json.
        public_key: id or path of the one public key that is trusted; none checks that the signature is one of the key it names,
            which proves that the release is as this key's owner signed it, but not who that is.
        rehearsal: the bytes of rehearsal.json, if there is one.

    Returns:
        Who signed, and what.

    Raises:
        VerificationError: the envelope is malformed in any way, its signature is wrong or of another key than the trusted one,
            or it is about another manifest or rehearsal.
        ReleaseError: `cryptography` is not installed, or `public_key` is no key.
    """
    where = SIGNATURE_NAME
    signer = open_envelope(envelope, public_key, where=where)
    _check_predicate(signer.statement, RELEASE_PREDICATE, where)
    manifest = ReleaseManifest.from_bytes(manifest_bytes)
    if signer.statement["subject"] != _subjects(manifest_bytes, manifest, rehearsal):
        named = [subject.get("name") for subject in signer.statement["subject"] if isinstance(subject, dict)]
        about = "a release without this rehearsal" if rehearsal is not None and REHEARSAL_NAME not in named else "another release"
        raise VerificationError(where, [f"the signature is about {about}; sign the release again"])
    predicate = signer.statement["predicate"]
    vouched = Vouched(*(predicate.get(name) for name in ("title", "gates", "policy_sha256", "unsafe")))
    if not _is_sound(vouched) or predicate != _predicate_again(predicate, manifest, vouched):
        raise VerificationError(where, ["the statement does not say what the signature of a release says; sign the release again"])
    return signer


def verify_withdrawal(envelope: bytes, withdrawn_bytes: bytes, public_key: str | None = None) -> Signer:
    """Check the signature on a WITHDRAWN.json; see `verify_envelope`."""
    signer = open_envelope(envelope, public_key, where=f"signature of {WITHDRAWN_NAME}")
    if signer.statement != withdrawal_statement(withdrawn_bytes):
        raise VerificationError(f"signature of {WITHDRAWN_NAME}", ["the signature is about something else; sign the withdrawal again"])
    return signer


def read_signature(directory: Path, public_key: str | None = None) -> Signer | None:
    """Check the signature that lies in a release; its files are not hashed here.

    Args:
        directory: holds manifest.json, and manifest.dsse.json and rehearsal.json where the release has them.
        public_key: as in `verify_envelope`.

    Returns:
        Who signed; none when nobody did and no key is asked for.

    Raises:
        VerificationError: there is no signature though a key is asked for, or it is refused.
        ReleaseError: `cryptography` is not installed, or `public_key` is no key.
    """
    if not (directory / SIGNATURE_NAME).exists():
        if public_key is not None:
            raise VerificationError(str(directory), [f"{SIGNATURE_NAME} is missing: the release is not signed, and a signature of "
                                                     f"{read_key_id(public_key)[:SHORT_ID_LENGTH]}… is asked for"])
        return None
    rehearsal = directory / REHEARSAL_NAME
    return verify_envelope(read_bounded(directory / SIGNATURE_NAME, MAX_ENVELOPE_BYTES),
                           read_bounded(directory / MANIFEST_NAME, MAX_MANIFEST_BYTES), public_key,
                           rehearsal=read_bounded(rehearsal, MAX_REHEARSAL_BYTES) if rehearsal.exists() else None)


def open_envelope(envelope: bytes, public_key: str | None, *, where: str) -> Signer:
    """Check an envelope's form and signature, and parse its statement; see `verify_envelope`."""
    value = parse_object(envelope, where=where, max_bytes=MAX_ENVELOPE_BYTES, max_depth=4)
    _require(_has(value, {"payload": str, "payloadType": str, "signatures": list}) and len(value["signatures"]) == 1,
             where, "expected payload, payloadType and one signature")
    _require(value["payloadType"] == PAYLOAD_TYPE, where, f"payloadType is {value['payloadType']!r:.80}, expected {PAYLOAD_TYPE!r}")
    signature = value["signatures"][0]
    _require(_has(signature, {"keyid": str, "sig": str}) and KEY_ID_PATTERN.fullmatch(signature["keyid"]) is not None,
             where, "the signature needs a keyid of 64 characters (0-9, a-f) and a sig, and nothing else")
    _require(readable_json(value) == envelope, where, "is not in the form that `glideslope sign` writes")
    key_id, payload = signature["keyid"], _decode(value["payload"], where)
    _require(not is_weak_key(key_id), where, f"the key {key_id[:SHORT_ID_LENGTH]}… is a point of small order: anybody can sign in its name")
    if public_key is not None:
        trusted = read_key_id(public_key)
        _require(trusted == key_id, where, f"signed by {key_id[:SHORT_ID_LENGTH]}…, expected {trusted[:SHORT_ID_LENGTH]}…: "
                 "somebody else signed this release")
    valid = is_signed_by(key_id, _decode(signature["sig"], where), pre_authentication_encoding(PAYLOAD_TYPE, payload))
    _require(valid, where, f"the signature is not one of {key_id[:SHORT_ID_LENGTH]}… over this statement")
    statement = parse_object(payload, where=where, max_bytes=MAX_ENVELOPE_BYTES)
    _require(canonical_json(statement).encode() == payload, where, "the statement is not in canonical form")
    _require(_has(statement, {"_type": str, "subject": list, "predicateType": str, "predicate": dict})
             and statement["_type"] == STATEMENT_TYPE, where, "the statement is no in-toto statement of version 1")
    return Signer(key_id, statement)


def _subjects(manifest_bytes: bytes, manifest: ReleaseManifest, rehearsal: bytes | None) -> list[dict[str, Any]]:
    subjects = [{"name": MANIFEST_NAME, "digest": {"sha256": sha256_bytes(manifest_bytes)}},
                {"name": "files", "digest": {MERKLE_DIGEST: manifest.root}},
                {"name": "tensors", "digest": {MERKLE_DIGEST: manifest.tensors_root}}]
    return subjects if rehearsal is None else [*subjects, {"name": REHEARSAL_NAME, "digest": {"sha256": sha256_bytes(rehearsal)}}]


def _check_predicate(statement: Mapping[str, Any], expected: str, where: str) -> None:
    found = statement["predicateType"]
    _require(found == expected, where, f"the statement is a {found!r:.80}, expected {expected!r}")


def _predicate_again(predicate: Mapping[str, Any], manifest: ReleaseManifest, vouched: Vouched) -> dict[str, Any]:
    """The predicate as `release_statement` writes it, with the version that the signer had."""
    return {"title": vouched.title, "glideslope": str(predicate.get("glideslope")), "root": manifest.root,
            "tensors_root": manifest.tensors_root, "gates": sorted(vouched.gates), "policy_sha256": vouched.policy_sha256,
            "unsafe": dict(vouched.unsafe)}


def _is_sound(vouched: Vouched) -> bool:
    return (isinstance(vouched.title, str) and isinstance(vouched.gates, list) and bool(vouched.gates)
            and all(isinstance(gate, str) for gate in vouched.gates) and isinstance(vouched.policy_sha256, str)
            and KEY_ID_PATTERN.fullmatch(vouched.policy_sha256) is not None and isinstance(vouched.unsafe, dict)
            and all(isinstance(reason, str) and reason for reason in vouched.unsafe.values()))


def _has(value: Any, kinds: Mapping[str, type]) -> bool:
    return isinstance(value, dict) and set(value) == set(kinds) and all(isinstance(value[name], kind) for name, kind in kinds.items())


def _require(condition: bool, where: str, problem: str) -> None:
    if not condition:
        raise VerificationError(where, [problem])


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: str, where: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise VerificationError(where, [f"holds text that is not base64 ({error})"]) from error
    _require(_encode(data) == text, where, "holds base64 that is not in its one form")
    return data

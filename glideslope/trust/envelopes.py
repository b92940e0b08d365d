"""Signatures of one or several keys over one text: how they are made, and checked in one strict form.

A statement lies in a DSSE envelope, whose every signature is over the same payload. A key counts once: signatures are sorted
by key id, a repeated key is refused, and so is one in whose name anybody can sign.

Sources: in-toto attestation framework, Statement v1; Dead Simple Signing Envelope (DSSE) v1.0.2, protocol and JSON
envelope; Ed25519 as in RFC 8032.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import VerificationError
from ..store.digests import DIGEST_PATTERN, canonical_json, readable_json
from ..store.strict_json import parse_object
from .keys import SHORT_ID_LENGTH, is_signed_by, is_weak_key, key_id_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
MAX_ENVELOPE_BYTES = 1_000_000
MAX_SIGNATURES = 64


def sign_statement(statement: Mapping[str, Any], *keys: "Ed25519PrivateKey") -> bytes:
    """Sign a statement with each key: the bytes of its envelope, the same whenever the same keys sign the same."""
    payload = canonical_json(statement).encode()
    return _sealed(payload, [make_signature(key, PAYLOAD_TYPE, payload) for key in keys])


def add_signature(envelope: bytes, key: "Ed25519PrivateKey", *, where: str) -> bytes:
    """An envelope with one more signature over what it holds; a key that signed already is not added again.

    Raises:
        VerificationError: the envelope is malformed, or a signature in it is wrong.
    """
    key_ids, _ = open_envelope(envelope, where=where)
    if key_id_of(key) in key_ids:
        return envelope
    value = parse_object(envelope, where=where, max_bytes=MAX_ENVELOPE_BYTES, max_depth=4)
    payload = decode_base64(value["payload"], where)
    return _sealed(payload, [*value["signatures"], make_signature(key, PAYLOAD_TYPE, payload)])


def make_signature(key: "Ed25519PrivateKey", payload_type: str, payload: bytes) -> dict[str, str]:
    """One entry of a list of signatures."""
    return {"keyid": key_id_of(key), "sig": encode_base64(key.sign(pre_authentication_encoding(payload_type, payload)))}


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """What a signature is over: type and payload, each with its length in bytes (DSSE, PAE)."""
    encoded = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(encoded), encoded, len(payload), payload)


def open_envelope(envelope: bytes, *, where: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Check an envelope's form and every signature in it, and parse its statement.

    Returns:
        The ids of all keys that signed, sorted, at least one; and the in-toto statement.

    Raises:
        VerificationError: the envelope is malformed in any way, or one of its signatures is wrong.
        ReleaseError: `cryptography` is not installed.
    """
    value = parse_object(envelope, where=where, max_bytes=MAX_ENVELOPE_BYTES, max_depth=4)
    require(has_fields(value, {"payload": str, "payloadType": str, "signatures": list}) and bool(value["signatures"]),
            where, "expected payload, payloadType and at least one signature")
    require(value["payloadType"] == PAYLOAD_TYPE, where, f"payloadType is {value['payloadType']!r:.80}, expected {PAYLOAD_TYPE!r}")
    payload = decode_base64(value["payload"], where)
    key_ids = check_signatures(value["signatures"], PAYLOAD_TYPE, payload, where=where)
    require(readable_json(value) == envelope, where, "is not in the form that `glideslope sign` writes")
    statement = parse_object(payload, where=where, max_bytes=MAX_ENVELOPE_BYTES)
    require(canonical_json(statement).encode() == payload, where, "the statement is not in canonical form")
    require(has_fields(statement, {"_type": str, "subject": list, "predicateType": str, "predicate": dict})
            and statement["_type"] == STATEMENT_TYPE, where, "the statement is no in-toto statement of version 1")
    return key_ids, statement


def check_signatures(signatures: list[Any], payload_type: str, payload: bytes, *, where: str) -> tuple[str, ...]:
    """Check a list of signatures over one payload: each must be right.

    Returns:
        The ids of the keys, sorted, each once.

    Raises:
        VerificationError: an entry is malformed, a key is weak, out of order or repeated, or a signature is wrong.
        ReleaseError: `cryptography` is not installed.
    """
    key_ids = read_key_ids(signatures, where=where)
    message = pre_authentication_encoding(payload_type, payload)
    for key_id, signature in zip(key_ids, signatures, strict=True):
        require(is_signed_by(key_id, decode_base64(signature["sig"], where), message), where,
                f"the signature is not one of {key_id[:SHORT_ID_LENGTH]}… over this statement")
    return key_ids


def read_key_ids(signatures: list[Any], *, where: str) -> tuple[str, ...]:
    """The key ids that a list of signatures names, without a look at the signatures themselves; see `check_signatures`."""
    require(len(signatures) <= MAX_SIGNATURES, where, f"holds {len(signatures)} signatures, at most {MAX_SIGNATURES} are read")
    for signature in signatures:
        require(has_fields(signature, {"keyid": str, "sig": str}) and DIGEST_PATTERN.fullmatch(signature["keyid"]) is not None,
                where, "a signature needs a keyid of 64 characters (0-9, a-f) and a sig, and nothing else")
    key_ids = tuple(signature["keyid"] for signature in signatures)
    require(list(key_ids) == sorted(set(key_ids)), where, "the signatures are out of order, or a key signed twice; each key counts once")
    for key_id in key_ids:
        require(not is_weak_key(key_id), where, f"the key {key_id[:SHORT_ID_LENGTH]}… is a point of small order, or in a second spelling: "
                "anybody can sign in its name")
    return key_ids


def _sealed(payload: bytes, signatures: list[dict[str, str]]) -> bytes:
    ordered = sorted(signatures, key=lambda signature: signature["keyid"])
    return readable_json({"payload": encode_base64(payload), "payloadType": PAYLOAD_TYPE, "signatures": ordered})


def has_fields(value: Any, kinds: Mapping[str, type]) -> bool:
    """Whether a value is a mapping with just these keys, each of its type."""
    return isinstance(value, dict) and set(value) == set(kinds) and all(isinstance(value[name], kind) for name, kind in kinds.items())


def require(condition: bool, where: str, problem: str) -> None:
    """Raise a VerificationError unless a condition holds."""
    if not condition:
        raise VerificationError(where, [problem])


def encode_base64(data: bytes) -> str:
    """Bytes as base64 in its one form."""
    return base64.b64encode(data).decode()


def decode_base64(text: str, where: str) -> bytes:
    """The bytes of a base64 text.

    Raises:
        VerificationError: it is none, or not in its one form.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise VerificationError(where, [f"holds text that is not base64 ({error})"]) from error
    require(encode_base64(data) == text, where, "holds base64 that is not in its one form")
    return data

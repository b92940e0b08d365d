"""A release's files as an OpenSSF model-signing bundle, for those whose tools know that format.

The bundle holds one ECDSA signature (P-256, as the format knows no Ed25519) over an in-toto statement that lists every file's
digest. It is written beside the release, never into it, and replaces none of our own signature: it says nothing of gates or policy.

Source: OpenSSF Model Signing v1.0 (predicate `https://model_signing/signature/v1.0`, method `files`), inside a Sigstore bundle v0.3.
"""

import base64
import hashlib
from pathlib import Path
from typing import Any

from ...errors import ReleaseError
from ...store.digests import canonical_json
from ...store.protected_places import refuse_in_release
from ...store.stage_manifest import Manifest
from ...store.whole_files import write_bytes
from ...trust.envelopes import PAYLOAD_TYPE, STATEMENT_TYPE, pre_authentication_encoding
from ...trust.keys import NEEDS_EXTRA, read_pem_key, write_key_pair
from ...trust.opening import Trust, open_release

PREDICATE_TYPE = "https://model_signing/signature/v1.0"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
CURVE = "secp256r1"


def generate_bundle_key(path: Path, *, passphrase: str | None = None) -> str:
    """Make a P-256 key pair for bundles, as `signing_keys.generate_key` does for signatures; returns the bundle's hint for it.

    Raises:
        ReleaseError: `cryptography` is not installed, a file is there already, or the passphrase is too short.
        StorageError: the files cannot be written.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise ReleaseError(NEEDS_EXTRA) from error
    key = ec.generate_private_key(ec.SECP256R1())
    write_key_pair(path, key, passphrase)
    return _hint(key)


def export_bundle(release_dir: Path, key: Path, path: Path, *, passphrase: str | None = None) -> int:
    """Write a bundle over everything that lies in a release.

    Args:
        release_dir: the release; its files are compared with its manifest first.
        key: a private P-256 key.
        path: where the bundle goes, outside the release.
        passphrase: of the key, if it has one.

    Returns:
        Number of files that are signed.

    Raises:
        ReleaseError: the key cannot be used, the files are not those of the manifest, or `path` lies in the release.
        StorageError: the bundle cannot be written.
    """
    refuse_in_release(path, release_dir)
    private = _read_key(key, passphrase)
    release = open_release(release_dir, Trust("required", status="ignored"))
    release.refuse_download()
    problems = release.differences()
    if problems:
        raise ReleaseError(f"{release_dir}: {'; '.join(problems)}; pack the release again")
    statement = bundle_statement(release_dir)
    write_bytes(path, (canonical_json(_sign(statement, private)) + "\n").encode())
    return len(statement["predicate"]["resources"])


def bundle_statement(release_dir: Path) -> dict[str, Any]:
    """The statement that is signed: every file with its digest, and one digest over those digests."""
    files = Manifest.of_directory(release_dir, exclude=()).files
    whole = hashlib.sha256(b"".join(bytes.fromhex(entry.sha256) for entry in files)).hexdigest()
    return {"_type": STATEMENT_TYPE, "subject": [{"name": release_dir.resolve().name, "digest": {"sha256": whole}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": {"serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []},
                          "resources": [{"name": entry.path, "algorithm": "sha256", "digest": entry.sha256} for entry in files]}}


def _sign(statement: dict[str, Any], private: Any) -> dict[str, Any]:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    payload = canonical_json(statement).encode()
    signature = private.sign(pre_authentication_encoding(PAYLOAD_TYPE, payload), ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    envelope = {"payload": base64.b64encode(payload).decode(), "payloadType": PAYLOAD_TYPE,
                "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}]}
    return {"mediaType": BUNDLE_TYPE, "dsseEnvelope": envelope,
            "verificationMaterial": {"publicKey": {"hint": _hint(private)}, "tlogEntries": []}}


def _hint(private: Any) -> str:
    """What the bundle calls its key: SHA-256 of the public key's PEM text."""
    from cryptography.hazmat.primitives import serialization as pem

    return hashlib.sha256(private.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _read_key(path: Path, passphrase: str | None) -> Any:
    private = read_pem_key(path, passphrase)
    from cryptography.hazmat.primitives.asymmetric import ec

    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.curve.name != CURVE:
        raise ReleaseError(f"{path}: holds another kind of key than P-256; make one with `glideslope keygen --for-bundles {path.name}`")
    return private

"""Signatures on releases: an in-toto statement in a DSSE envelope, signed with Ed25519 by one key or several.

The statement names what is signed by digest (manifest.json and the roots of its two lists) and what the signers vouch for:
the gates that passed, the policy, and each gate that the policy bypassed, with its reason.
It holds no time and no machine: the same release, keys and policy give the same bytes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import VerificationError
from ..store.digests import DIGEST_PATTERN, sha256_bytes
from ..store.file_lists import MANIFEST_NAME, MAX_MANIFEST_BYTES
from ..store.strict_json import read_bounded
from .envelopes import MAX_ENVELOPE_BYTES, STATEMENT_TYPE, open_envelope, require
from .release_manifest import SIGNATURE_NAME, ReleaseManifest
from .signers import SignerRule

RELEASE_PREDICATE = "https://glideslope.dev/release/v1"  # a name of ours, no address
MERKLE_DIGEST = "merkleSha256"
LEFTOVER = re.compile(rf"{re.escape(SIGNATURE_NAME)}\.[0-9a-f]{{8}}\.tmp")
GUARDS = {MANIFEST_NAME: MAX_MANIFEST_BYTES, SIGNATURE_NAME: MAX_ENVELOPE_BYTES}


@dataclass(frozen=True)
class Vouched:
    """What the signers of a release say beyond its digests.

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
class Signers:
    """Who signed, and what.

    Attributes:
        key_ids: of each key, the hex of the 32 bytes of its public half; sorted, each once. That a signature is valid says only
            that the owner of this key made it.
        statement: the in-toto statement.
    """

    key_ids: tuple[str, ...]
    statement: Mapping[str, Any]

    def __str__(self) -> str:
        """The whole ids of the keys."""
        return ", ".join(self.key_ids)

    @property
    def gates(self) -> tuple[str, ...]:
        """Names of the gates that the signer says were passed."""
        return tuple(self.statement["predicate"].get("gates", ()))

    @property
    def unsafe(self) -> dict[str, str]:
        """Gate that the policy bypassed -> reason."""
        return dict(self.statement["predicate"].get("unsafe", {}))


def release_statement(manifest_bytes: bytes, vouched: Vouched) -> dict[str, Any]:
    """What is signed for a release.

    Args:
        manifest_bytes: the release's manifest.json.
        vouched: what the signer says of it.

    Raises:
        VerificationError: the manifest is malformed.
    """
    manifest = ReleaseManifest.from_bytes(manifest_bytes)
    predicate = {"title": vouched.title, "glideslope": __version__, "root": manifest.root, "tensors_root": manifest.tensors_root,
                 "gates": sorted(vouched.gates), "policy_sha256": vouched.policy_sha256, "unsafe": dict(vouched.unsafe)}
    return {"_type": STATEMENT_TYPE, "subject": _subjects(manifest_bytes, manifest), "predicateType": RELEASE_PREDICATE,
            "predicate": predicate}


def verify_envelope(envelope: bytes, manifest_bytes: bytes, rule: SignerRule | None = None) -> Signers:
    """Check the signatures on a release.

    Args:
        envelope: the bytes of manifest.dsse.json.
        manifest_bytes: the bytes of manifest.json.
        rule: the keys that are trusted, and how many of them must have signed. `None`: only that each signature was made by the key
            it names. That proves that the release is as the owners of these keys signed it, but not who they are.

    Returns:
        Who signed, and what.

    Raises:
        VerificationError: the envelope is malformed in any way, a signature is wrong, too few of the trusted keys signed, or it
            is about another manifest.
        ReleaseError: `cryptography` is not installed.
    """
    where = SIGNATURE_NAME
    signers = Signers(*open_envelope(envelope, where=where))
    if rule is not None:
        rule.refuse_lack(signers.key_ids, where=where)
    _check_predicate(signers.statement, RELEASE_PREDICATE, where)
    manifest = ReleaseManifest.from_bytes(manifest_bytes)
    if signers.statement["subject"] != _subjects(manifest_bytes, manifest):
        raise VerificationError(where, ["the signature is about another release; sign the release again"])
    predicate = signers.statement["predicate"]
    vouched = Vouched(*(predicate.get(name) for name in ("title", "gates", "policy_sha256", "unsafe")))
    if not _is_sound(vouched) or predicate != _predicate_again(predicate, manifest, vouched):
        raise VerificationError(where, ["the statement does not say what the signature of a release says; sign the release again"])
    return signers


def is_of_signature(path: str) -> bool:
    """Whether a relative path is that of the signature, or of one that was being written when its writer was killed."""
    return path == SIGNATURE_NAME or LEFTOVER.fullmatch(path) is not None


def read_guards(directory: Path) -> dict[str, bytes]:
    """The content of what guards a release (manifest and signature), of those that are there, each read once.

    Raises:
        VerificationError: one is larger than it may be, or cannot be read.
    """
    return {name: read_bounded(directory / name, max_bytes) for name, max_bytes in GUARDS.items() if (directory / name).exists()}


def verify_guards(guards: Mapping[str, bytes], rule: SignerRule | None = None, *, name: str) -> Signers | None:
    """Check the signature among a release's guards.

    Args:
        guards: from `read_guards`.
        rule: as in `verify_envelope`.
        name: how messages call the release.

    Returns:
        Who signed; none when nobody did and nobody is asked for.

    Raises:
        VerificationError: there is no signature or no manifest though one is needed, or the signature is refused.
        ReleaseError: `cryptography` is not installed.
    """
    if SIGNATURE_NAME not in guards:
        if rule is not None:
            raise VerificationError(name, [f"{SIGNATURE_NAME} is missing: {rule.find_lack(())}"])
        return None
    if MANIFEST_NAME not in guards:
        raise VerificationError(name, [f"{MANIFEST_NAME} is missing, but {SIGNATURE_NAME} is there; fetch or pack the release again"])
    return verify_envelope(guards[SIGNATURE_NAME], guards[MANIFEST_NAME], rule)


def _subjects(manifest_bytes: bytes, manifest: ReleaseManifest) -> list[dict[str, Any]]:
    return [{"name": MANIFEST_NAME, "digest": {"sha256": sha256_bytes(manifest_bytes)}},
            {"name": "files", "digest": {MERKLE_DIGEST: manifest.root}},
            {"name": "tensors", "digest": {MERKLE_DIGEST: manifest.tensors_root}}]


def _check_predicate(statement: Mapping[str, Any], expected: str, where: str) -> None:
    found = statement["predicateType"]
    require(found == expected, where, f"the statement is a {found!r:.80}, expected {expected!r}")


def _predicate_again(predicate: Mapping[str, Any], manifest: ReleaseManifest, vouched: Vouched) -> dict[str, Any]:
    """The predicate as `release_statement` writes it, with the version that the signer had."""
    return {"title": vouched.title, "glideslope": str(predicate.get("glideslope")), "root": manifest.root,
            "tensors_root": manifest.tensors_root, "gates": sorted(vouched.gates), "policy_sha256": vouched.policy_sha256,
            "unsafe": dict(vouched.unsafe)}


def _is_sound(vouched: Vouched) -> bool:
    return (isinstance(vouched.title, str) and isinstance(vouched.gates, list) and bool(vouched.gates)
            and all(isinstance(gate, str) for gate in vouched.gates) and isinstance(vouched.policy_sha256, str)
            and DIGEST_PATTERN.fullmatch(vouched.policy_sha256) is not None and isinstance(vouched.unsafe, dict)
            and all(isinstance(reason, str) and reason for reason in vouched.unsafe.values()))

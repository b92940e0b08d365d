"""Sign a release once every gate has passed."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import ReleaseError, VerificationError
from ..store.file_lists import MANIFEST_NAME
from ..store.whole_files import write_bytes
from ..trust.envelopes import add_signature, sign_statement
from ..trust.keys import key_id_of, read_private_key
from ..trust.release_manifest import SIGNATURE_NAME
from ..trust.signatures import Signers, is_of_signature, read_guards, release_statement, verify_envelope, verify_guards
from .vetting.check import run_policy

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

logger = logging.getLogger("glideslope.release")


def sign(release_dir: Path, key: Path, *, passphrase: str | None = None, policy: Path | None = None) -> Signers:
    """Run every gate on a release and, when all pass, add a signature to manifest.dsse.json.

    The file is written beside and then put in its place in one step: whoever is killed leaves the earlier file or the new one.

    Args:
        release_dir: the release. A signature by another key over the same statement stays beside the new one. One that no
            longer fits the release is replaced.
        key: the private key.
        passphrase: of the private key, if it has one.
        policy: a policy file to apply on top of the packed one.

    Returns:
        Who signed, and what.

    Raises:
        ReleaseError: the key cannot be used, a gate refuses, or other keys signed another statement about this very release; then
            what was signed stays.
        VerificationError: the release changed while it was checked.
        StorageError: the signature cannot be written.
    """
    private = read_private_key(key, passphrase=passphrase)
    before = read_guards(release_dir) if release_dir.is_dir() else {}
    if MANIFEST_NAME not in before:
        raise ReleaseError(f"{release_dir}: {MANIFEST_NAME} is missing; pack the release again")
    report = run_policy(release_dir, policy, is_to_be_signed=True)
    _remove_leftovers(release_dir)
    statement = release_statement(before[MANIFEST_NAME], report.vouched)
    envelope = _add(before, statement, private, release_dir)
    if dict(report.guards) | {SIGNATURE_NAME: b""} != before | {SIGNATURE_NAME: b""} or read_guards(release_dir) != before:
        raise VerificationError(f"release {release_dir}", ["was changed while it was checked; let nothing write there, then sign again"])
    signers = verify_envelope(envelope, before[MANIFEST_NAME])
    write_bytes(release_dir / SIGNATURE_NAME, envelope)
    return signers


def _add(before: Mapping[str, bytes], statement: Mapping[str, Any], private: "Ed25519PrivateKey", release_dir: Path) -> bytes:
    """The envelope to be written: the one that is there with one more signature, or a new one where there is none that counts."""
    earlier = _read_earlier(before, release_dir)
    if earlier is None:
        return sign_statement(statement, private)
    if earlier.statement == statement:
        return add_signature(before[SIGNATURE_NAME], private, where=SIGNATURE_NAME)
    if earlier.key_ids == (key_id_of(private),):  # nobody else's is lost
        return sign_statement(statement, private)
    signed_with = earlier.statement["predicate"]["glideslope"]
    raise ReleaseError(f"{release_dir}: {SIGNATURE_NAME} is by {earlier} over another statement about this release (glideslope {signed_with}, "
                       f"you run {__version__}); sign with the same version and --policy, or remove the file and let all sign again")


def _read_earlier(before: Mapping[str, bytes], release_dir: Path) -> Signers | None:
    """Who signed this very release before; none when nobody did, or when the signature does not fit it any more."""
    try:
        return verify_guards(before, name=str(release_dir))
    except VerificationError as error:
        logger.warning("%s: the earlier signature is replaced, as it does not count (%s)", release_dir, "; ".join(error.problems))
        return None


def _remove_leftovers(release_dir: Path) -> None:
    """Remove what somebody was writing who was killed."""
    for path in release_dir.iterdir():
        if path.name != SIGNATURE_NAME and is_of_signature(path.name):
            path.unlink()

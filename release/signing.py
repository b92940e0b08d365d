"""Sign a release once every gate has passed."""

from pathlib import Path

from ..errors import ReleaseError
from ..manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, REHEARSAL_NAME, SIGNATURE_NAME, write_bytes
from ..signatures import (
    MAX_ENVELOPE_BYTES,
    MAX_REHEARSAL_BYTES,
    Signer,
    Vouched,
    read_signature,
    release_statement,
    sign_statement,
    withdrawal_statement,
)
from ..signing_keys import key_id_of, read_private_key
from ..strict_json import read_bounded
from .contents import Release
from .gates import CheckReport, run_policy
from .policy import policy_of


def sign(release_dir: Path, key: Path, *, passphrase: str | None = None, policy: Path | None = None) -> Signer:
    """Run every gate on a release and, when all pass, write its signature as manifest.dsse.json.

    Args:
        release_dir: the release; an earlier signature is replaced, nothing else is changed.
        key: the private key.
        passphrase: of the private key, if it has one.
        policy: a policy file to apply on top of the packed one.

    Returns:
        Who signed, and what; read back from the release.

    Raises:
        ReleaseError: the key cannot be used, or a gate refuses; then an earlier signature stays.
        VerificationError: the release changed while it was checked.
        StorageError: the signature cannot be written.
    """
    private = read_private_key(key, passphrase=passphrase)
    release = Release(release_dir)
    manifest_bytes = _read(release_dir / MANIFEST_NAME, MAX_MANIFEST_BYTES)
    if manifest_bytes is None:
        raise ReleaseError(f"{release_dir}: {MANIFEST_NAME} is missing; pack the release again")
    rehearsal = _read(release_dir / REHEARSAL_NAME, MAX_REHEARSAL_BYTES)
    report = _check_unsigned(release_dir, policy)
    vouched = Vouched(release.recipe.release.title, report.passed, policy_of(release).sha256, report.unsafe)
    write_bytes(release_dir / SIGNATURE_NAME, sign_statement(release_statement(manifest_bytes, vouched, rehearsal=rehearsal), private))
    signer = read_signature(release_dir, key_id_of(private))
    assert signer is not None
    return signer


def sign_withdrawal(withdrawn_bytes: bytes, key: Path, *, passphrase: str | None = None) -> bytes:
    """The envelope of a signature on a WITHDRAWN.json, the content of WITHDRAWN.dsse.json.

    Raises:
        ReleaseError: the key cannot be used.
        VerificationError: the file is malformed.
    """
    return sign_statement(withdrawal_statement(withdrawn_bytes), read_private_key(key, passphrase=passphrase))


def _check_unsigned(release_dir: Path, policy: Path | None) -> CheckReport:
    """Run the gates without the signature that is to be replaced: it may be about an earlier state, and would be refused."""
    path = release_dir / SIGNATURE_NAME
    earlier = _read(path, MAX_ENVELOPE_BYTES)
    path.unlink(missing_ok=True)
    try:
        return run_policy(release_dir, policy)
    finally:
        if earlier is not None:
            write_bytes(path, earlier)


def _read(path: Path, max_bytes: int) -> bytes | None:
    return read_bounded(path, max_bytes) if path.exists() else None

"""Whether a release may go to a Hub: its gates, its signature and its rehearsal, as its policy asks."""

from dataclasses import dataclass
from pathlib import Path

from ..errors import ReleaseError
from ..manifest import REHEARSAL_NAME, SIGNATURE_NAME
from ..signatures import Signer, read_signature
from .gates import CheckReport, run_policy
from .rehearsal.transcript import check_rehearsal


@dataclass(frozen=True)
class Readiness:
    """What was found, with nothing in the way.

    Attributes:
        gates: what passed, and what the policy leaves out.
        signer: who signed; none when nobody did.
        is_rehearsed: whether the release holds a rehearsal, which then passed.
    """

    gates: CheckReport
    signer: Signer | None
    is_rehearsed: bool


def check_readiness(release_dir: Path, policy: Path | None = None, *, signer: str | None = None) -> Readiness:
    """Refuse a release that its policy does not let out.

    Args:
        release_dir: the release.
        policy: a policy file to apply on top of the packed one.
        signer: id or path of the public key that must have signed; none leaves it to the policy whether anybody must.

    Returns:
        What was found.

    Raises:
        ReleaseError: a gate refuses, or a signature or rehearsal is asked for and missing, or there is one that is wrong.
        VerificationError: the signature is refused.
    """
    gates = run_policy(release_dir, policy)
    asked, found = gates.policy.publish, read_signature(release_dir, signer)
    if asked.require_signature and found is None:
        raise ReleaseError(f"release {release_dir}: {SIGNATURE_NAME} is missing and its policy asks for it; sign it with `glideslope sign`")
    is_rehearsed = (release_dir / REHEARSAL_NAME).exists()
    if asked.require_rehearsal or is_rehearsed:
        problems = check_rehearsal(release_dir)
        if problems:
            raise ReleaseError(f"release {release_dir}: {'; '.join(problems)}")
    return Readiness(gates, found, is_rehearsed)

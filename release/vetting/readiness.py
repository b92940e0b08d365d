"""Whether a release may go to a Hub: its gates, its signature and its rehearsal, as its policy asks."""

from dataclasses import dataclass
from pathlib import Path

from ...errors import ReleaseError, VerificationError
from ...store.digests import sha256_bytes
from ...trust.release_manifest import REHEARSAL_NAME
from ...trust.signatures import Signers
from ..publishing.targets import LocalRelease
from ..rehearsal.transcript import check_rehearsal
from .check import CheckReport, run_policy


@dataclass(frozen=True)
class Readiness:
    """What was found, with nothing in the way.

    Attributes:
        gates: what passed, and what the policy leaves out.
        signers: who signed; none when nobody did.
        is_rehearsed: whether the release holds a rehearsal, which then passed.
    """

    gates: CheckReport
    signers: Signers | None
    is_rehearsed: bool


def check_readiness(release: LocalRelease, policy: Path | None = None) -> Readiness:
    """Refuse a release that its policy does not let out; the policy's signers are one of its gates.

    Args:
        release: the release as it is to be published.
        policy: a policy file to apply on top of the packed one.

    Returns:
        What was found.

    Raises:
        ReleaseError: a gate refuses, a rehearsal is asked for and missing, or there is one that is wrong.
        VerificationError: the signature is refused, or the release is not what it was when it was read for publication.
    """
    gates = run_policy(release.directory, policy)
    changed = [f"{name}: was changed since the plan was made; run the same command again" for name, data in gates.guards.items()
               if name not in release.files or release.files[name].sha256 != sha256_bytes(data)]
    if changed:
        raise VerificationError(f"release {release.directory}", changed)
    is_rehearsed = REHEARSAL_NAME in gates.guards
    if gates.policy.publish.require_rehearsal or is_rehearsed:
        problems = check_rehearsal(release.directory)
        if problems:
            raise ReleaseError(f"release {release.directory}: {'; '.join(problems)}")
    return Readiness(gates, gates.signers, is_rehearsed)

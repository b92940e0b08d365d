"""Whether a release may go to a Hub: its gates and its signature, as its policy asks."""

from dataclasses import dataclass
from pathlib import Path

from ...errors import VerificationError
from ...store.digests import sha256_bytes
from ...trust.signatures import Signers
from ..publishing.targets import LocalRelease
from .check import CheckReport, run_policy


@dataclass(frozen=True)
class Readiness:
    """What was found, with nothing in the way.

    Attributes:
        gates: what passed, and what the policy leaves out.
        signers: who signed; none when nobody did.
    """

    gates: CheckReport
    signers: Signers | None


def check_readiness(release: LocalRelease, policy: Path | None = None) -> Readiness:
    """Refuse a release that its policy does not let out; the policy's signers are one of its gates.

    Args:
        release: the release as it is to be published.
        policy: a policy file to apply on top of the packed one.

    Returns:
        What was found.

    Raises:
        ReleaseError: a gate refuses.
        VerificationError: the signature is refused, or the release is not what it was when it was read for publication.
    """
    gates = run_policy(release.directory, policy)
    changed = [f"{name}: was changed since the plan was made; run the same command again" for name, data in gates.guards.items()
               if name not in release.files or release.files[name].sha256 != sha256_bytes(data)]
    if changed:
        raise VerificationError(f"release {release.directory}", changed)
    return Readiness(gates, gates.signers)

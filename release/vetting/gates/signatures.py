"""What `verify` asks of a signature that lies in a release."""

import re

from ....trust.release_manifest import SIGNATURE_NAME
from ...evidence.contents import Release
from ..policy import ALWAYS_RUN, SKIPPABLE, policy_of

LEFTOVER = re.compile(rf"{re.escape(SIGNATURE_NAME)}\.[0-9a-f]{{8}}\.tmp")


def is_of_signature(path: str) -> bool:
    """Whether a relative path is that of the signature, or of one that was being written when its writer was killed."""
    return path == SIGNATURE_NAME or LEFTOVER.fullmatch(path) is not None


def check_signature(release: Release) -> list[str]:
    """A signature that is there is valid, and says of policy and gates what the release says; who signed is not judged.

    Raises:
        VerificationError: it is refused.
        ReleaseError: `cryptography` is not installed, or the policy cannot be read.
    """
    signers = release.signers
    if signers is None:
        return []
    packed, stated = policy_of(release), signers.statement["predicate"]
    problems = []
    if stated["policy_sha256"] != packed.sha256:
        problems.append("was made under another policy than the packed one")
    hidden = sorted(gate for gate, reason in signers.unsafe.items() if packed.unsafe_skip.get(gate) != reason)
    if hidden:
        problems.append(f"names bypasses that the packed policy does not have: {', '.join(hidden)}")
    unchecked = sorted({*ALWAYS_RUN, *SKIPPABLE} - set(signers.gates) - set(signers.unsafe))
    if unchecked:
        problems.append(f"vouches for no check of {', '.join(unchecked)}")
    if stated["title"] != release.recipe.release.title:
        problems.append(f"is for {stated['title']!r:.80}")
    return [f"{SIGNATURE_NAME}: {problem}; sign the release again" for problem in problems]

"""The gates on signatures: a signature that is there agrees with the release, and the keys that the policy names have signed."""

from collections.abc import Sequence

from ....trust.release_manifest import SIGNATURE_NAME
from ...evidence.contents import Release
from .gate import Asked, Gate


def signature_gate(vouched: Sequence[str]) -> Gate:
    """The gate on a signature that is there, which must vouch for these gates, or name their bypass."""
    return Gate("signature", "a signature is broken, of other bytes, or says something else of policy, gates and title than the release",
                checks={"signature": lambda release: check_signature(release, vouched)})


def check_signature(release: Release, vouched: Sequence[str]) -> list[str]:
    """A signature that is there is valid, and says of policy and gates what the release says; who signed is not judged.

    Raises:
        VerificationError: it is refused.
        ReleaseError: `cryptography` is not installed, or the policy cannot be read.
    """
    signers = release.signers
    if signers is None:
        return []
    packed, stated = release.policy, signers.statement["predicate"]
    problems = []
    if stated["policy_sha256"] != packed.sha256:
        problems.append("was made under another policy than the packed one")
    hidden = sorted(gate for gate, reason in signers.unsafe.items() if packed.unsafe_skip.get(gate) != reason)
    if hidden:
        problems.append(f"names bypasses that the packed policy does not have: {', '.join(hidden)}")
    unchecked = sorted(set(vouched) - set(signers.gates) - set(signers.unsafe))
    if unchecked:
        problems.append(f"vouches for no check of {', '.join(unchecked)}")
    if stated["title"] != release.recipe.release.title:
        problems.append(f"is for {stated['title']!r:.80}")
    return [f"{SIGNATURE_NAME}: {problem}; sign the release again" for problem in problems]


def find_lacking_signers(release: Release, asked: Asked) -> list[str]:
    """One sentence for each rule of the policy that the signatures do not meet."""
    key_ids = () if release.signers is None else release.signers.key_ids
    lacks = [lack for rule in asked.policy.signer_rules if (lack := rule.find_lack(key_ids)) is not None]
    return [f"{SIGNATURE_NAME}: {lack}; sign it with `glideslope sign` and such a key" for lack in lacks]


SIGNERS = Gate("signers", "fewer of the named keys signed than the policy asks for; `sign` itself leaves this gate out", key="signers",
               demand=find_lacking_signers, can_be_left_out=False, is_asked=lambda policy: bool(policy.signers))

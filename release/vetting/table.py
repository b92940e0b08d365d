"""The table of gates: what `verify` checks, and what `check`, `sign` and `publish` check and demand. Nothing else lists gates.

A new gate is a file in `gates` and a row here.
"""

from collections.abc import Mapping
from types import MappingProxyType

from ...errors import ReleaseError
from ...recipe.policy import Policy
from ..evidence.contents import POLICY_PATH, Release
from .gates.audits import AUDITS
from .gates.captions import CAPTIONS_COUNT
from .gates.card import CARD_COMPLETE
from .gates.companions import COMPANIONS
from .gates.files import ALLOWED_FILES, GENERATED_FILES, INTACT, SIZE
from .gates.filters import FILTER_EVIDENCE
from .gates.gate import Check, Gate
from .gates.golden import GOLDEN_SAMPLES
from .gates.labels import LABELS_NOT_REUSED
from .gates.licence import LICENCE
from .gates.provenance import PROVENANCE
from .gates.reload import RELOAD
from .gates.secrets import SECRETS
from .gates.signatures import SIGNERS, signature_gate
from .gates.weights import WEIGHTS


def check_policy(release: Release) -> list[str]:
    """The packed policy is sound, in its one form, and leaves out only what may be left out."""
    return find_false_bypasses(release.policy)


def find_false_bypasses(policy: Policy) -> list[str]:
    """One sentence for each entry of `unsafe_skip` that is no gate's whose demand may be left out."""
    skippable, names = [gate.name for gate in GATES if gate.is_skippable], {gate.name for gate in GATES}
    return [f"unsafe_skip names {name!r}; expected one of {', '.join(skippable)}{' (this gate always runs)' if name in names else ''}"
            for name in policy.unsafe_skip if name not in skippable]


def refuse_false_bypasses(policy: Policy, *, where: str) -> Policy:
    """The policy, when it leaves out only what may be left out.

    Raises:
        ReleaseError: an entry of `unsafe_skip` is no gate's, or is one's that always runs.
    """
    if problems := find_false_bypasses(policy):
        raise ReleaseError(f"{where}: {'; '.join(problems)}")
    return policy


# What a signature vouches for.
SIGNED_GATES: tuple[Gate, ...] = (
    INTACT, ALLOWED_FILES, WEIGHTS,
    Gate("policy", f"`{POLICY_PATH}` is missing, malformed, or leaves out what may not be left out", checks={"policy": check_policy}),
    GENERATED_FILES, PROVENANCE, FILTER_EVIDENCE, AUDITS, LABELS_NOT_REUSED, COMPANIONS, CAPTIONS_COUNT, GOLDEN_SAMPLES, LICENCE, SIZE,
    CARD_COMPLETE, SECRETS, RELOAD)
GATES: tuple[Gate, ...] = (*SIGNED_GATES, signature_gate([gate.name for gate in SIGNED_GATES]), SIGNERS)
CHECKS: Mapping[str, Check] = MappingProxyType({name: check for gate in GATES for name, check in gate.checks.items()})

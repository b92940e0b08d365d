"""Run the gates on a release: each check, and each demand of its policy.

All gates run and all failures are reported. A gate whose demand the policy leaves out, with its reason, is reported as such and never
as passed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import ReleaseError
from ...recipe.policy import Policy, load_policy
from ...trust.signatures import Signers, Vouched
from ..evidence.contents import POLICY_PATH, Release, open_evidence
from .gates.gate import Asked, Gate
from .table import GATES, SIGNED_GATES, refuse_false_bypasses


@dataclass(frozen=True)
class CheckReport:
    """What `run_policy` found, with no gate refusing.

    Attributes:
        passed: names of the gates that passed, in the order in which they ran.
        unsafe: gate that the policy leaves out -> the reason it gives.
        policy: what was asked for.
        vouched: what a signature on the release says.
        guards: manifest and signature as the gates read them, of those that are there.
        signers: who signed these; none when nobody did.
    """

    passed: tuple[str, ...]
    unsafe: Mapping[str, str]
    policy: Policy
    vouched: Vouched
    guards: Mapping[str, bytes]
    signers: Signers | None


def check(release_dir: Path, policy: Path | None = None) -> list[str]:
    """Run every gate on a release, see `run_policy`.

    Returns:
        The names of the gates that passed.
    """
    return list(run_policy(release_dir, policy).passed)


def run_policy(release_dir: Path, policy: Path | None = None, *, device: str = "cpu", is_to_be_signed: bool = False) -> CheckReport:
    """Run every gate on a release, with the demands of its policy.

    Args:
        release_dir: the release, packed or downloaded.
        policy: a policy file to apply on top of the packed one: the stricter of both counts, see `effective_policy`.
        device: where golden samples are drawn again: `cpu`, `cuda` or `mps`.
        is_to_be_signed: look at the release as if it had no signature yet, and ask for none.

    Returns:
        What passed, and what the policy leaves out.

    Raises:
        ReleaseError: a policy cannot be read, or at least one gate refuses; all failures are in the message.
        VerificationError: the release is not let in, see `open_release`.
    """
    release = open_evidence(release_dir, ignores_signature=is_to_be_signed)
    applied = effective_policy(release, policy)
    gates = [gate for gate in (SIGNED_GATES if is_to_be_signed else GATES) if gate.is_asked(applied)]
    passed = tuple(run_gates(release, gates, Asked(applied, device), shown=release_dir))
    vouched = Vouched(release.recipe.release.title, passed, release.policy.sha256, dict(applied.unsafe_skip))
    return CheckReport(passed, vouched.unsafe, applied, vouched, release.guards, release.signers)


def effective_policy(release: Release, path: Path | None) -> Policy:
    """The policy that a check applies: the packed one, and a given one on top of it.

    Raises:
        ReleaseError: either cannot be read, or the given one leaves a gate out that the packed one does not: a bypass counts
            only when it was packed, as only then card and signature can show it.
    """
    packed = refuse_false_bypasses(release.policy, where=POLICY_PATH)
    if path is None:
        return packed
    given = refuse_false_bypasses(load_policy(path), where=f"policy {path}")
    hidden = sorted(set(given.unsafe_skip) - set(packed.unsafe_skip))
    if hidden:
        raise ReleaseError(f"policy {path}: leaves out {', '.join(hidden)}, which the policy in the release does not; a bypass counts only "
                           "when it was packed and stands on the card: name the file as `policy` in the recipe and pack again")
    return packed.combine(given)


def run_gates(release: Release, gates: Sequence[Gate], asked: Asked, *, shown: Path) -> list[str]:
    """Run every gate, and return the names of those that passed whole: checks and demand.

    Args:
        release: the release.
        gates: no gate at all is a refusal.
        asked: the demands.
        shown: the release's name in messages.

    Raises:
        ReleaseError: at least one gate refuses.
    """
    if not gates:
        raise ReleaseError(f"release {shown}: there is no gate to pass, so nothing would be checked; name at least one gate")
    problems = {gate.name: gate.find_problems(release, asked) for gate in gates}
    failures = [f"gate {name}: {'; '.join(told)}" for name, told in problems.items() if told]
    if failures:
        raise ReleaseError(f"release {shown}: {len(failures)} of {len(gates)} gates refuse: " + "\n".join(failures))
    return [gate.name for gate in gates if not gate.is_left_out(asked.policy)]

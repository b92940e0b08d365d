"""Gates: each checks one thing that a release must fulfil, and says what to do when it does not.

A gate is an object with a name and `check(release)`, which returns nothing or raises `ReleaseError`. The policy that was
packed with a release says what each asks for; all gates run, all failures are reported, and without gates everything is
refused. A gate that the policy leaves out, with its reason, is reported as such and never as passed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from ...errors import ReleaseError
from ...text.secrets import private_words
from ...trust.release_manifest import SIGNATURE_NAME
from ...trust.signatures import Signers, Vouched
from ...trust.signers import SignerRule
from ..claims.audit_checks import check_audits
from ..documents.card_check import find_false_figures
from ..evidence.chain import CHAIN_CHECKS, run_check
from ..evidence.companions import find_unproven_companions
from ..evidence.contents import Release
from ..evidence.golden import find_drift
from ..publishing.snapshot import is_download, release_in
from ..verify import CHECKS, check_card, check_claims, check_files, check_manifest
from ..weights.architecture import check_finite
from .gates.filters import (
    find_excess,
    find_license_problems,
    find_reload_problems,
    find_reused_labels,
    find_weak_audits,
    find_weak_captions,
    find_weak_filters,
)
from .gates.signatures import is_of_signature
from .metadata import find_bad_metadata
from .policy import CategoryPolicy, GoldenPolicy, Policy, effective_policy, policy_of
from .secret_files import find_secrets


class Gate(Protocol):
    """What a gate has."""

    @property
    def name(self) -> str:
        """Short name, for the report and for `unsafe_skip`."""

    def check(self, release: Release) -> None:
        """Return nothing, or raise `ReleaseError` with what to do."""


@dataclass(frozen=True)
class Intact:
    """The files and tensors are those of the manifest."""

    name: str = "intact"

    def check(self, release: Release) -> None:
        """Hash every file."""
        refuse(self.name, check_manifest, release=release)


@dataclass(frozen=True)
class AllowedFiles:
    """Only files that a release holds, by path and by content: no pickle, archive, script or executable."""

    name: str = "allowed files"

    def check(self, release: Release) -> None:
        """Look at every file."""
        refuse(self.name, check_files, release=release)


@dataclass(frozen=True)
class FilterEvidence:
    """Evidence for every category of policy and recipe, recomputed from the scores and within both's limits."""

    categories: Mapping[str, CategoryPolicy] = field(default_factory=dict)
    name: str = "filter evidence"

    def check(self, release: Release) -> None:
        """Measure every filter again."""
        refuse(self.name, partial(find_weak_filters, policies=self.categories), release=release)


@dataclass(frozen=True)
class AuditsShow:
    """Every audit is of the released ledger and shows what policy and recipe ask for."""

    categories: Mapping[str, CategoryPolicy] = field(default_factory=dict)
    is_required: bool = False
    name: str = "audits"

    def check(self, release: Release) -> None:
        """Draw each sample and compute each bound again."""
        refuse(self.name, check_audits, partial(find_weak_audits, policies=self.categories, is_required=self.is_required), release=release)


@dataclass(frozen=True)
class LabelsNotReused:
    """Labels that show how good a filter is were used for nothing else."""

    name: str = "labels not reused"

    def check(self, release: Release) -> None:
        """Compare roles by key and by concept."""
        refuse(self.name, find_reused_labels, release=release)


@dataclass(frozen=True)
class ProvenanceChain:
    """Every stage used what the release holds, and training used exactly the images that curation kept."""

    name: str = "provenance chain"

    def check(self, release: Release) -> None:
        """Follow every digest and decide every ledger row again."""
        refuse(self.name, *CHAIN_CHECKS.values(), release=release)


@dataclass(frozen=True)
class Verified:
    """Whatever else `verify` looks at: tensors, weight files, variants, generated files."""

    name: str = "verified"

    def check(self, release: Release) -> None:
        """Run what no other gate runs."""
        elsewhere = {check_manifest, check_files, check_claims, check_card, *CHAIN_CHECKS.values()}
        refuse(self.name, *(check for check in CHECKS.values() if check not in elsewhere), release=release)


@dataclass(frozen=True)
class Size:
    """The release is not larger than the policy allows."""

    max_size_mb: int
    name: str = "size"

    def check(self, release: Release) -> None:
        """Add the sizes of all files."""
        refuse(self.name, partial(find_excess, max_size_mb=self.max_size_mb), release=release)


@dataclass(frozen=True)
class Licence:
    """The licence is an accepted one, and its text lies in the release."""

    accepted: tuple[str, ...]
    name: str = "licence"

    def check(self, release: Release) -> None:
        """Compare recipe, policy and LICENSE."""
        refuse(self.name, partial(find_license_problems, accepted=self.accepted), release=release)


@dataclass(frozen=True)
class CardComplete:
    """Claims and figures are what the evidence gives, cards what the claims give, and the Hub can read what it reads of them."""

    name: str = "card complete"

    def check(self, release: Release) -> None:
        """Compute the claims, render the cards and draw the figures again."""
        refuse(self.name, check_claims, check_card, find_false_figures, find_bad_metadata, release=release)


@dataclass(frozen=True)
class Secrets:
    """No token, private key, mail address, path of a machine or data hidden in a picture."""

    name: str = "secrets"

    def check(self, release: Release) -> None:
        """Search every file."""
        refuse(self.name, partial(find_secrets, words=private_words()), release=release)


@dataclass(frozen=True)
class CompanionsAllowed:
    """Networks without evidence of their data are there only where the policy allows them."""

    is_allowed: bool
    name: str = "companions"

    def check(self, release: Release) -> None:
        """Look for such networks."""
        if not self.is_allowed:
            refuse(self.name, find_unproven_companions, release=release)


@dataclass(frozen=True)
class CaptionsCount:
    """Pictures fit their own captions better than random ones, beyond what recipe and policy ask for."""

    limit: float = 0.0
    name: str = "captions count"

    def check(self, release: Release) -> None:
        """Count the wins again."""
        refuse(self.name, partial(find_weak_captions, policy_limit=self.limit), release=release)


@dataclass(frozen=True)
class Reload:
    """The release loads in a fresh process and draws a picture; its weights are finite.

    Attributes:
        timeout_s: the process is ended and the gate refuses after so many seconds.
    """

    name: str = "reload"
    timeout_s: float = 300.0

    def check(self, release: Release) -> None:
        """Load and draw."""
        refuse(self.name, check_finite, partial(find_reload_problems, timeout_s=self.timeout_s), release=release)


@dataclass(frozen=True)
class GoldenSamples:
    """The pictures that were drawn at release come out again, within the policy's tolerance for a device."""

    policy: GoldenPolicy
    device: str = "cpu"
    name: str = "golden samples"

    def check(self, release: Release) -> None:
        """Draw them again."""
        refuse(self.name, partial(find_drift, policy=self.policy, device=self.device), release=release)


@dataclass(frozen=True)
class SignersSigned:
    """Enough of the keys that the policy names have signed the release; a policy that names none has no such gate."""

    rules: tuple[SignerRule, ...]
    name: str = "signers"

    def check(self, release: Release) -> None:
        """Hold the signatures against each rule."""
        refuse(self.name, self._find_lacks, release=release)

    def _find_lacks(self, release: Release) -> list[str]:
        key_ids = () if release.signers is None else release.signers.key_ids
        lacks = [lack for rule in self.rules if (lack := rule.find_lack(key_ids)) is not None]
        return [f"{SIGNATURE_NAME}: {lack}; sign it with `glideslope sign` and such a key" for lack in lacks]


@dataclass(frozen=True)
class CheckReport:
    """What `run_policy` found, with no gate refusing.

    Attributes:
        passed: names of the gates that passed, in the order in which they ran.
        unsafe: gate that the policy leaves out -> the reason it gives.
        policy: what was asked for.
        vouched: what a signature on the release says.
        guards: manifest, signature and rehearsal as the gates read them, of those that are there.
        signers: who signed these; none when nobody did.
    """

    passed: tuple[str, ...]
    unsafe: Mapping[str, str]
    policy: Policy
    vouched: Vouched
    guards: Mapping[str, bytes]
    signers: Signers | None


def gates_of(policy: Policy, *, device: str = "cpu") -> tuple[Gate, ...]:
    """The gates, each with what a policy asks of it, in the order in which they run; `device` draws the golden samples."""
    return (Intact(), AllowedFiles(), FilterEvidence(policy.categories), AuditsShow(policy.categories, policy.require_audits),
            LabelsNotReused(), ProvenanceChain(), Verified(), Size(policy.max_size_mb), Licence(policy.licenses), CardComplete(), Secrets(),
            CompanionsAllowed(policy.allow_companions), CaptionsCount(policy.min_captions_share_lower_bound), Reload(),
            GoldenSamples(policy.golden, device), *([SignersSigned(policy.signer_rules)] if policy.signers else []))


def check(release_dir: Path, policy: Path | None = None) -> list[str]:
    """Run every gate on a release, see `run_policy`.

    Returns:
        The names of the gates that passed.
    """
    return list(run_policy(release_dir, policy).passed)


def run_policy(release_dir: Path, policy: Path | None = None, *, device: str = "cpu", is_to_be_signed: bool = False) -> CheckReport:
    """Run every gate that the release's policy names.

    Args:
        release_dir: the release, packed or downloaded.
        policy: a policy file to apply on top of the packed one: the stricter of both counts, see `effective_policy`.
        device: where golden samples are drawn again: `cpu`, `cuda` or `mps`.
        is_to_be_signed: look at the release as if it had no signature yet, and ask for none.

    Returns:
        What passed, and what the policy leaves out.

    Raises:
        ReleaseError: a policy cannot be read, or at least one gate refuses; all failures are in the message.
        VerificationError: what lies beside a downloaded release is not what may, see `release_in`.
    """
    with release_in(release_dir, without=is_of_signature if is_to_be_signed else None) as directory:
        release = Release(directory, origin=release_dir if is_download(release_dir) else directory)
        applied = effective_policy(release, policy)
        asked = applied.model_copy(update={"signers": ()}) if is_to_be_signed else applied
        gates = [gate for gate in gates_of(asked, device=device) if gate.name not in applied.unsafe_skip]
        passed = tuple(_pass(release, gates, shown=release_dir))
        vouched = Vouched(release.recipe.release.title, passed, policy_of(release).sha256, dict(applied.unsafe_skip))
        return CheckReport(passed, vouched.unsafe, applied, vouched, release.guards, release.signers)


def run_gates(release_dir: Path, gates: Sequence[Gate]) -> list[str]:
    """Run gates on a release and return their names; see `run_policy`. No gates at all is a refusal."""
    return _pass(Release(release_dir), gates, shown=release_dir)


def _pass(release: Release, gates: Sequence[Gate], *, shown: Path) -> list[str]:
    """Run every gate; `shown` is the release's name in messages."""
    if not gates:
        raise ReleaseError(f"release {shown}: there is no gate to pass, so nothing would be checked; name at least one gate")
    failures = []
    for gate in gates:
        try:
            gate.check(release)
        except ReleaseError as error:
            failures.append(str(error))
    if failures:
        raise ReleaseError(f"release {shown}: {len(failures)} of {len(gates)} gates refuse: " + "\n".join(failures))
    return [gate.name for gate in gates]


def refuse(name: str, *checks: Callable[[Release], list[str]], release: Release) -> None:
    """Raise what the checks of a gate find.

    Raises:
        ReleaseError: at least one problem.
    """
    problems = [problem for check in checks for problem in run_check(name, check, release)]
    if problems:
        raise ReleaseError(f"gate {name}: " + "; ".join(problems))

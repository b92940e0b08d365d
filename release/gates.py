"""Gates: each checks one thing that a release must fulfil, and says what to do when it does not.

A gate is an object with a name and `check(release)`, which returns nothing or raises `ReleaseError`. All gates run,
all failures are reported, and an empty list of gates refuses everything.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..config import Category
from ..data_filter.evidence import measure_filter
from ..data_filter.statistics import lower_bound
from ..errors import ReleaseError
from .architecture import check_finite
from .audit_checks import check_audits, find_weak_audits
from .chain import CHAIN_CHECKS, check_filter_reports, run_check
from .contents import Release, need
from .verify import check_card, check_claims, check_files, check_manifest

RELOAD_CODE = """
import sys
from glideslope import GlidePipeline
pipe = GlidePipeline.from_pretrained(sys.argv[1], device="cpu")
image = pipe("a red circle", num_images=1, num_steps=2, seed=0).images[0]
low, high = image.convert("L").getextrema()
if low == high:
    sys.exit(f"the picture is blank: every value is {low}")
"""


class Gate(Protocol):
    """What a gate has."""

    @property
    def name(self) -> str:
        """Short name, for the report."""

    def check(self, release: Release) -> None:
        """Return nothing, or raise `ReleaseError` with what to do."""


@dataclass(frozen=True)
class Intact:
    """The files are those of the manifest."""

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
    """Evidence for every category of the recipe, recomputed from the scores and within the category's limits."""

    name: str = "filter evidence"

    def check(self, release: Release) -> None:
        """Measure every filter again."""
        refuse(self.name, find_weak_filters, release=release)


@dataclass(frozen=True)
class AuditsShow:
    """Where the recipe limits what may be left, every audit of what is kept now shows that it keeps the limit."""

    name: str = "audits"

    def check(self, release: Release) -> None:
        """Draw each sample and compute each bound again."""
        refuse(self.name, check_audits, find_weak_audits, release=release)


@dataclass(frozen=True)
class ProvenanceChain:
    """Every stage used what the release holds, and training used exactly the images that curation kept."""

    name: str = "provenance chain"

    def check(self, release: Release) -> None:
        """Follow every digest and decide every ledger row again."""
        refuse(self.name, *CHAIN_CHECKS.values(), release=release)


@dataclass(frozen=True)
class CardComplete:
    """Every claim is what the evidence gives, and the card is what the claims give."""

    name: str = "card complete"

    def check(self, release: Release) -> None:
        """Compute the claims and render the card again."""
        refuse(self.name, check_claims, check_card, release=release)


@dataclass(frozen=True)
class CaptionsCount:
    """Pictures fit their own captions better than random ones, beyond what the recipe asks for."""

    name: str = "captions count"

    def check(self, release: Release) -> None:
        """Count the wins again."""
        refuse(self.name, find_weak_captions, release=release)


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
        refuse(self.name, check_finite, self._reload, release=release)

    def _reload(self, release: Release) -> list[str]:
        command = [sys.executable, "-P", "-c", RELOAD_CODE, str(release.directory.resolve())]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=self.timeout_s, check=False, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            return [f"loading and drawing took more than {self.timeout_s:.0f} s; try `glideslope sample` on the release"]
        if done.returncode == 0:
            return []
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        return [f"does not load or draw in a fresh process: {last}; try `glideslope sample` on the release"]


GATES: tuple[Gate, ...] = (Intact(), AllowedFiles(), FilterEvidence(), AuditsShow(), ProvenanceChain(), CardComplete(), CaptionsCount(),
                           Reload())


def check(release_dir: Path) -> list[str]:
    """Run every gate on a release.

    Returns:
        The names of the gates, all passed.

    Raises:
        ReleaseError: at least one gate refuses; all failures are in the message.
    """
    return run_gates(release_dir, GATES)


def run_gates(release_dir: Path, gates: Sequence[Gate]) -> list[str]:
    """Run gates on a release; see `check`. No gates at all is a refusal."""
    if not gates:
        raise ReleaseError(f"release {release_dir}: there is no gate to pass, so nothing would be checked; name at least one gate")
    release = Release(release_dir)
    failures = []
    for gate in gates:
        try:
            gate.check(release)
        except ReleaseError as error:
            failures.append(str(error))
    if failures:
        raise ReleaseError(f"release {release_dir}: {len(failures)} of {len(gates)} gates refuse: " + "\n".join(failures))
    return [gate.name for gate in gates]


def find_weak_filters(release: Release) -> list[str]:
    """One sentence for each category whose evidence is missing, edited, or outside the recipe's limits."""
    problems = check_filter_reports(release)
    for category in release.categories:
        problems += compare_with_limits(release, category)
    return problems


def compare_with_limits(release: Release, category: Category) -> list[str]:
    """One sentence for each limit of a category that its measured evidence does not keep."""
    where, limits = f"evidence/filters/{category.name}/filter.json", category.limits
    threshold = need(release.filter(category.name), "threshold", where=where)
    audit = measure_filter(release.scores(category.name), threshold)["audit"]
    asked = {"recall": limits.min_recall, "recall_lower_bound": limits.min_recall_lower_bound, "kept_share": limits.min_kept_share}
    problems = []
    for name, least in asked.items():
        found = audit[name]
        if found is None or not found >= least:
            problems.append(f"filter {category.name}: {name.replace('_', ' ')} on audit labels is "
                            f"{'not measured' if found is None else format(found, '.4f')}, the recipe asks for at least {least:.4f}; "
                            "label more images and fit again, or accept less in the recipe and say so on the card")
    return problems


def find_weak_captions(release: Release) -> list[str]:
    """One sentence when too few pictures fit their own caption."""
    where, least = "evidence/evaluation/pairs.jsonl", release.recipe.release.min_ranked_share_lower_bound
    num_wins = sum(need(pair, "own_score", where=where) > need(pair, "random_score", where=where) for pair in release.pairs)
    bound = lower_bound(num_wins, len(release.pairs))
    if bound > least:
        return []
    return [f"evaluation: {num_wins} of {len(release.pairs)} pictures fit their own caption better than a random one, which proves a share of "
            f"at least {bound:.3f}; the recipe asks for more than {least:.3f}; train longer, then evaluate and pack again"]


def refuse(name: str, *checks: Callable[[Release], list[str]], release: Release) -> None:
    """Raise what the checks of a gate find.

    Raises:
        ReleaseError: at least one problem.
    """
    problems = [problem for check in checks for problem in run_check(name, check, release)]
    if problems:
        raise ReleaseError(f"gate {name}: " + "; ".join(problems))

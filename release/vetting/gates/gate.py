"""What a gate is: checks that hold for every release, and a demand that the release's policy makes.

A check compares a release with itself: is it what it says? `verify` runs the checks alone, and nothing leaves them out. A demand
asks whether that is good enough; a policy may leave it out openly.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ....errors import GlideslopeError
from ....recipe.policy import Policy
from ....recipe.recipe import Recipe
from ...evidence.contents import Release

RELOAD_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Asked:
    """What one run of the gates asks of a release.

    Attributes:
        policy: the demands.
        device: where golden samples are drawn again: `cpu`, `cuda` or `mps`.
        reload_timeout_s: the release is refused when it takes longer to load and to draw.
    """

    policy: Policy
    device: str = "cpu"
    reload_timeout_s: float = RELOAD_TIMEOUT_S


Check = Callable[[Release], list[str]]
Demand = Callable[[Release, Asked], list[str]]
Foresight = Callable[[Recipe, Policy], Iterable[str]]


def is_always_asked(policy: Policy) -> bool:
    """Every policy makes the demand."""
    return True


@dataclass(frozen=True)
class Gate:
    """One row of the table of gates. Each function gives a sentence for each problem, with what to do.

    Attributes:
        name: short name, for reports, for `unsafe_skip` and for the signature.
        refuses: when it refuses a release, for docs/policy.md.
        key: where its demand stands in the policy.
        checks: name -> what a release that is what it says must pass.
        demand: what a release that is good enough must pass.
        foresee: the part of the demand that a recipe alone can miss, before anything is trained.
        can_be_left_out: whether a policy may leave its demand out. What makes a bypass visible may not be left out.
        is_asked: whether a policy makes the demand.
    """

    name: str
    refuses: str
    key: str = ""
    checks: Mapping[str, Check] = field(default_factory=dict)
    demand: Demand | None = None
    foresee: Foresight | None = None
    can_be_left_out: bool = True
    is_asked: Callable[[Policy], bool] = is_always_asked

    @property
    def is_skippable(self) -> bool:
        """Whether `unsafe_skip` may name it: checks are never left out."""
        return self.demand is not None and self.can_be_left_out

    def is_left_out(self, policy: Policy) -> bool:
        """Whether a policy leaves its demand out."""
        return self.is_skippable and self.name in policy.unsafe_skip

    def find_problems(self, release: Release, asked: Asked) -> list[str]:
        """What the checks and the demand find; the demand is not made where the policy leaves it out."""
        checks = [problem for name, check in self.checks.items() for problem in run_check(name, check, release)]
        if self.demand is None or self.is_left_out(asked.policy):
            return checks
        demand = self.demand
        return checks + run_check(self.name, lambda subject: demand(subject, asked), release)


def run_check(name: str, check: Check, release: Release) -> list[str]:
    """Run a check on files that somebody else wrote: whatever cannot be read or has an odd type is a problem, not a crash."""
    try:
        return check(release)
    except GlideslopeError as error:
        return [str(error)]
    except Exception as error:  # files made to do harm can make a parser raise anything: that is a refusal, never a pass
        return [f"{name}: cannot be checked, the evidence is malformed ({type(error).__name__}: {error}); pack the release again"]

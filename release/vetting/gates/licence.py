"""The gate on the licence of the weights."""

from collections.abc import Iterator

from ....recipe.policy import Policy
from ....recipe.recipe import Recipe
from ...documents.licences import HUB_LICENCES
from ...evidence.contents import Release
from .gate import Asked, Gate


def is_accepted(licence: str, policy: Policy) -> bool:
    """Whether a policy accepts a licence, in capitals or not."""
    return licence.casefold() in {name.casefold() for name in policy.licenses}


def find_refused_licence(release: Release, asked: Asked) -> list[str]:
    """One sentence when the policy does not accept the licence."""
    stated, policy = release.recipe.release.license, asked.policy
    return [] if is_accepted(stated, policy) else [
        f"licence: the recipe names {stated!r}, the policy accepts {', '.join(policy.licenses)}; choose one of them in release.license, or add "
        "yours to the policy"]


def foresee_refused_licence(recipe: Recipe, policy: Policy) -> Iterator[str]:
    """One sentence when the policy does not accept the licence, or the Hub does not know it."""
    stated = recipe.release.license
    if not is_accepted(stated, policy):
        yield f"release.license is {stated!r}, the policy accepts {', '.join(policy.licenses)}; choose one of them, or add yours to the policy"
    elif stated not in HUB_LICENCES:
        hint = f"; write it as {stated.lower()}" if stated.lower() in HUB_LICENCES else ", so that the card could not state it; choose another"
        yield f"release.license is {stated!r}, which the Hub does not know{hint}"


LICENCE = Gate("licence", "the licence is not accepted", key="licenses", demand=find_refused_licence, foresee=foresee_refused_licence)

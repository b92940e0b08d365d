"""The gate on networks that this run did not train."""

from collections.abc import Iterator

from ....recipe.policy import Policy
from ....recipe.recipe import Recipe
from ...evidence.companions import check_companions, find_unproven_companions
from ...evidence.contents import Release
from .gate import Asked, Gate


def find_refused_companions(release: Release, asked: Asked) -> list[str]:
    """One sentence for every network without evidence of its data, unless the policy allows them."""
    return [] if asked.policy.companions == "allow" else find_unproven_companions(release)


def foresee_refused_companions(recipe: Recipe, policy: Policy) -> Iterator[str]:
    """One sentence where the recipe names such networks and the policy allows none."""
    if recipe.release.companions is not None and policy.companions != "allow":
        yield "release.companions names networks that come without evidence, the policy allows none; remove the key, or allow them there"


COMPANIONS = Gate("companions", "a network came without evidence of what it was trained on", key="companions",
                  checks={"companions": check_companions}, demand=find_refused_companions, foresee=foresee_refused_companions)

"""The gate on golden samples: the pictures that were drawn at release come out again."""

from collections.abc import Iterator

from ....recipe.policy import Policy
from ....recipe.recipe import Recipe
from ...evidence.contents import Release
from ...evidence.golden import check_golden, find_drift
from .gate import Asked, Gate


def find_other_pictures(release: Release, asked: Asked) -> list[str]:
    """One sentence for every picture that comes out otherwise than the policy allows; see `find_drift`."""
    return find_drift(release, asked.policy.golden, device=asked.device)


def foresee_few_pictures(recipe: Recipe, policy: Policy) -> Iterator[str]:
    """One sentence where the recipe draws fewer pictures than the policy asks for."""
    num_pictures, least = recipe.release.golden_prompts, policy.golden.min_pictures
    if num_pictures < least:
        yield f"release.golden_prompts is {num_pictures}, the policy asks for at least {least}"


GOLDEN_SAMPLES = Gate("golden samples", "the pictures that were drawn at release do not come out again", key="golden",
                      checks={"golden samples": check_golden}, demand=find_other_pictures, foresee=foresee_few_pictures)

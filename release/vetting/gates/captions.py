"""The gate on captions: pictures fit their own captions better than others."""

from collections.abc import Iterator

from ....data_filter.deciding.statistics import lower_bound
from ....recipe.policy import Policy, reaches
from ....recipe.recipe import Recipe
from ...claims.evaluation import count_wins
from ...evidence.contents import Release
from .gate import Asked, Gate


def find_weak_captions(release: Release, asked: Asked) -> list[str]:
    """One sentence when too few pictures fit their own caption."""
    counted, least = count_wins(release.pairs), asked.policy.captions.bound
    bound = counted["share_lower_bound"]
    if reaches(bound, least):
        return []
    return [f"evaluation: for {counted['num_wins']} of {counted['num_pairs']} pictures the own caption is in the better half of the captions "
            f"that it was compared with, which proves a share of at least {bound:.3f}; the policy asks for at least {least:.3f}; train longer, "
            "then evaluate and pack again"]


def foresee_few_pairs(recipe: Recipe, policy: Policy) -> Iterator[str]:
    """One sentence where even an evaluation that wins every pair would prove less than is asked for."""
    num_pairs, least = recipe.evaluate.num_pairs, policy.captions.bound
    best = lower_bound(num_pairs, num_pairs)
    if not reaches(best, least):
        yield (f"evaluate.num_pairs is {num_pairs}: were all of them won, that proves a share of {best:.3f}, and the policy asks for at least "
               f"{least:.3f}; evaluate with more pairs")


CAPTIONS_COUNT = Gate("captions count", "too few pictures have their own caption in the better half of those compared "
                      "([how](evidence.md#whether-captions-count))", key="captions", demand=find_weak_captions, foresee=foresee_few_pairs)

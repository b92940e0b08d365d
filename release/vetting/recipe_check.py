"""Whether what a recipe trains could be packed and let out: all that the recipe and its files tell, before anything is trained."""

from collections.abc import Iterator
from pathlib import Path

from ...data_filter.deciding.statistics import lower_bound
from ...errors import ReleaseError
from ...recipe.recipe import Recipe
from ...text.secrets import KINDS, private_words, scan_tree, word_kind
from ..documents.licences import HUB_LICENCES
from ..documents.use_policy import use_policy_text
from ..evidence.companions import choose_parts, list_sources
from ..evidence.published_recipe import published_recipe
from .policy import Policy, load_policy


def check_recipe(recipe: Recipe) -> None:
    """Refuse a recipe whose release its own policy would refuse whatever is trained, or that could not be packed.

    Raises:
        ReleaseError: every reason in one sentence.
    """
    use_policy_text(recipe)  # refuses terms that cannot be used
    policy = load_policy(None if recipe.release.policy is None else Path(recipe.release.policy))
    problems = [*find_missing_files(recipe), *find_contradictions(recipe, policy), *find_secrets(recipe, policy)]
    if problems:
        raise ReleaseError(f"recipe {recipe.name}: what it trains could not be released: {'; '.join(problems)}")


def find_missing_files(recipe: Recipe) -> Iterator[str]:
    """One sentence where the companions that are to be packed are not there."""
    place = recipe.release.companions
    if place is not None and not Path(place).is_dir():
        yield f"release.companions: {place} is no directory; name one, or remove the key"
    elif place is not None:
        found, _ = choose_parts(Path(place), recipe.trainings, None)
        list_sources(Path(place), found, {})


def find_contradictions(recipe: Recipe, policy: Policy) -> Iterator[str]:
    """One sentence for each demand of the policy that the recipe alone already misses; gates that the policy leaves out ask for nothing."""
    stated = recipe.release.license
    if "licence" not in policy.unsafe_skip and stated.casefold() not in {name.casefold() for name in policy.licenses}:
        yield f"release.license is {stated!r}, the policy accepts {', '.join(policy.licenses)}; choose one of them, or add yours to the policy"
    elif stated not in HUB_LICENCES:
        hint = f"; write it as {stated.lower()}" if stated.lower() in HUB_LICENCES else ", so that the card could not state it; choose another"
        yield f"release.license is {stated!r}, which the Hub does not know{hint}"
    if recipe.release.companions is not None and not (policy.allow_companions or "companions" in policy.unsafe_skip):
        yield "release.companions names networks that come without evidence, the policy allows none; remove the key, or allow them there"
    if "captions count" not in policy.unsafe_skip:
        yield from find_too_few_pairs(recipe, policy)
    if "golden samples" not in policy.unsafe_skip and recipe.release.golden_prompts < policy.golden.min_pictures:
        yield f"release.golden_prompts is {recipe.release.golden_prompts}, the policy asks for at least {policy.golden.min_pictures}"
    names = [category.name for category in recipe.categories]
    unknown = [name for name in policy.categories if name not in names]
    if unknown and "filter evidence" not in policy.unsafe_skip:
        yield f"the policy names {', '.join(unknown)}, which the recipe does not filter ({', '.join(names)})"


def find_too_few_pairs(recipe: Recipe, policy: Policy) -> Iterator[str]:
    """One sentence where even an evaluation that wins every pair would prove less than is asked for."""
    num_pairs, asked = recipe.evaluate.num_pairs, (recipe.release.min_ranked_share_lower_bound, policy.min_captions_share_lower_bound)
    best = lower_bound(num_pairs, num_pairs)
    if not (best > asked[0] and best >= asked[1]):
        yield (f"evaluate.num_pairs is {num_pairs}: were all of them won, that proves a share of {best:.3f}, and {max(asked):.3f} is asked "
               "for; evaluate with more pairs")


def find_secrets(recipe: Recipe, policy: Policy) -> Iterator[str]:
    """One sentence for each key of the recipe, as it is published, that holds what must not be."""
    if "secrets" in policy.unsafe_skip:
        return
    kinds = (*KINDS, *map(word_kind, private_words()))
    for finding in scan_tree(published_recipe(recipe).model_dump(mode="json"), kinds):
        yield f"{finding.place} holds {finding.kind} ({finding.shown}), which would be published; write something else there"

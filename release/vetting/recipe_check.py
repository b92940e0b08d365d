"""Whether what a recipe trains could be packed and let out: all that the recipe and its files tell, before anything is trained."""

from collections.abc import Iterator
from pathlib import Path

from ...errors import ReleaseError
from ...recipe.policy import Policy
from ...recipe.recipe import Recipe
from ..documents.terms_of_use import terms_text
from ..evidence.companions import choose_parts, list_sources
from .table import GATES, refuse_false_bypasses


def check_recipe(recipe: Recipe, policy: Policy) -> None:
    """Refuse a recipe whose release its policy would refuse whatever is trained, or that could not be packed.

    Raises:
        ReleaseError: every reason in one sentence.
    """
    terms_text(recipe)  # refuses terms that cannot be used
    refuse_false_bypasses(policy, where=f"policy of recipe {recipe.name}")
    foreseen = [problem for gate in GATES if gate.foresee is not None and not gate.is_left_out(policy)
                for problem in gate.foresee(recipe, policy)]
    problems = [*find_missing_files(recipe), *find_missing_pictures(recipe), *foreseen]
    if problems:
        raise ReleaseError(f"recipe {recipe.name}: what it trains could not be released: {'; '.join(problems)}")


def find_missing_pictures(recipe: Recipe) -> Iterator[str]:
    """One sentence where an upsampler is trained and no picture is held back that could show what it does."""
    if recipe.upsampler is not None and recipe.curate.validation_share == 0:
        yield ("curate.validation_share is 0, so that no picture is held back to evaluate the upsampler on; set it to 0.05, say, or remove the "
               "key upsampler")


def find_missing_files(recipe: Recipe) -> Iterator[str]:
    """One sentence where the companions that are to be packed are not there."""
    place = recipe.release.companions
    if place is not None and not Path(place).is_dir():
        yield f"release.companions: {place} is no directory; name one, or remove the key"
    elif place is not None:
        names, _ = choose_parts(Path(place), recipe.trainings, None)
        list_sources(Path(place), names, {})

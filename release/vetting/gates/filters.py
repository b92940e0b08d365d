"""The gate on the filters: each category has evidence, the evidence is unedited, and it shows what the policy demands."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ....data_filter.deciding.filter_figures import measure_filter
from ....errors import ReleaseError
from ....recipe.policy import CategoryDemands, Policy, reaches
from ....recipe.recipe import Recipe
from ....store.run_layout import filter_stage
from ....store.whole_files import read_json
from ...evidence.chain import check_filter_reports
from ...evidence.contents import Release, need
from .gate import Asked, Gate


def find_weak_filters(release: Release, asked: Asked) -> list[str]:
    """One sentence for each category that policy or release lacks, and for each figure that is less than the policy demands."""
    names, policy = [category.name for category in release.categories], asked.policy
    problems = [f"filter {name}: the policy names this category, but the release has no evidence that it was filtered; add it to the "
                "recipe's categories, label, fit and curate again" for name in policy.categories if name not in names]
    problems += policy.find_unnamed(names)
    for name in names:
        if name in policy.categories:
            threshold = need(release.filter(name), "threshold", where=f"evidence/filters/{name}/filter.json")
            problems += find_missed_demands(name, measure_filter(release.scores(name), threshold)["test"], policy.categories[name])
    return problems


def find_missed_demands(category: str, figures: Mapping[str, Any], demands: CategoryDemands) -> list[str]:
    """One sentence for each figure of a filter, measured on the labels that tested it, that is less than is demanded."""
    asked = {"recall": demands.recall.at_least, "recall_lower_bound": demands.recall.bound, "kept_share": demands.kept_share.at_least}
    return [f"filter {category}: {name.replace('_', ' ')} on test labels is "
            f"{'not measured' if figures[name] is None else format(figures[name], '.4f')}, the policy asks for at least {least:.4f}; label "
            "more images and fit again, or ask for less in the policy: the card prints what it asks for"
            for name, least in asked.items() if not reaches(figures[name], least)]


def foresee_other_categories(recipe: Recipe, policy: Policy) -> Iterator[str]:
    """One sentence for each category that only one of recipe and policy names."""
    names = [category.name for category in recipe.categories]
    unknown = [name for name in policy.categories if name not in names]
    if unknown:
        yield f"the policy names {', '.join(unknown)}, which the recipe does not filter ({', '.join(names)})"
    yield from policy.find_unnamed(names)


def check_filters(recipe: Recipe, policy: Policy, run_dir: Path) -> None:
    """Refuse to go on where a run's filters show less than its policy demands.

    Raises:
        ReleaseError: every demand that is missed.
    """
    if FILTER_EVIDENCE.is_left_out(policy):
        return
    problems = [problem for name, demands in policy.categories.items()
                for problem in find_missed_demands(name, read_json(run_dir / filter_stage(name) / "filter.json")["test"], demands)]
    if problems:
        raise ReleaseError(f"recipe {recipe.name}: what it trains would not be let out: {'; '.join(problems)}. To train all the same, go stage "
                           "by stage: curate, train, evaluate, pack")


FILTER_EVIDENCE = Gate("filter evidence", "a category of the policy or the recipe has no evidence or no demand, the evidence was edited, or a "
                       "figure is less than is asked for", key="categories",
                       checks={"filter reports": check_filter_reports}, demand=find_weak_filters, foresee=foresee_other_categories)

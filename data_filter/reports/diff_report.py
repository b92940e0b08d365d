"""Compare two runs and tell it: as lines, as a list, as a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import RecipeError
from ...progress import Progress
from ...recipe.load import load_recipe
from ...recipe.recipe import Recipe
from ...store.run_layout import RunLayout
from ..sources.kind import open_source
from ..sources.kinds import read_source
from ..sources.source import Source
from .balance import WORD_GROUPS, word_groups
from .diff import Difference, check_ending, compare_runs, write_difference
from .diff_page import write_difference_page
from .galleries import Pictures

MAX_LINES = 12


def compare(run_a: Path, run_b: Path, out_file: Path | None, *, pictures: Pictures = "veiled", progress: Progress | None = None) -> Difference:
    """Compare two runs, and write the result where it is wanted.

    Args:
        run_a, run_b: run directories.
        out_file: `.csv`, `.json` or `.html`; none: nothing is written.
        pictures: of the page.
        progress: told how many inputs are compared.

    Raises:
        StageError: a run has no finished ledger, or `out_file` ends otherwise.
        RecipeError: run B's recipe cannot be read, and a page needs its source.
    """
    if out_file is not None:
        check_ending(out_file)
    difference = compare_runs(run_a, run_b, groups_of(RunLayout(run_b)), progress=progress)
    if out_file is not None and out_file.suffix == ".html":
        write_difference_page(difference, None if pictures == "none" else source_of(RunLayout(run_b)), out_file, pictures=pictures)
    elif out_file is not None:
        write_difference(difference, out_file)
    return difference


def source_of(layout: RunLayout) -> Source:
    """The source of a run, by its recipe."""
    recipe = load_recipe(layout.recipe, read_source)
    return open_source(recipe.source, shard_size=recipe.index.shard_size)


def groups_of(layout: RunLayout) -> Mapping[str, Sequence[str]]:
    """The caption groups of a run's recipe; the built-in ones where it was written for another version."""
    try:
        recipe: Recipe = load_recipe(layout.recipe, read_source)
    except RecipeError:
        return WORD_GROUPS
    return word_groups(recipe)


def describe_difference(difference: Difference) -> dict[str, Any]:
    """A difference in a few lines for the terminal."""
    both, only_a, only_b = difference.everyone, difference.only_in_a, difference.only_in_b
    lines: dict[str, Any] = {"compared": f"{both.num_inputs:,} inputs that both runs have seen", "kept": f"{both.num_kept_a:,} before, "
                             f"{both.num_kept_b:,} now: {both.num_entering:,} enter, {both.num_leaving:,} leave"}
    if only_a or only_b:
        lines["not in both"] = (f"{only_a.total():,} only in {difference.run_a} ({only_a['']:,} kept), "
                                f"{only_b.total():,} only in {difference.run_b} ({only_b['']:,} kept)")
    if difference.num_other_content:
        lines["other bytes under the same key"] = f"{difference.num_other_content:,}"
    if sum(difference.num_unmatched):
        lines["repeated keys, not compared"] = f"{difference.num_unmatched[0]:,} and {difference.num_unmatched[1]:,}"
    lines |= {f"changed: {row['what']}": f"{show(row['a'])} -> {show(row['b'])}" for row in difference.settings[:MAX_LINES]}
    for (reason_a, reason_b), number in difference.reasons.most_common(MAX_LINES):
        lines[f"{reason_a or 'kept'} -> {reason_b or 'kept'}"] = f"{number:,}"
    changed = {(f"{category}, labelled {label}"): change for (category, label), change in sorted(difference.labelled.items())}
    changed |= {f"captions: {name}": change for name, change in difference.groups.items()}
    changed |= {f"{group}: {value}": change for (group, value), change in sorted(difference.label_groups.items())}
    lines |= {name: f"{change.num_entering:,} enter, {change.num_leaving:,} leave, of {change.num_inputs:,}"
              for name, change in changed.items() if change.num_entering or change.num_leaving}
    return lines


def show(value: Any) -> str:
    """A setting, cut to a readable length."""
    text = "none" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else text[:39] + "\N{HORIZONTAL ELLIPSIS}"

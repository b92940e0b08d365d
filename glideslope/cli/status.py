"""The command that says how far a run has come."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import typer
from rich.table import Table
from rich.text import Text

from ..recipe.recipe import Recipe
from ..run import Run, Silent, find_recipe
from ..run_status import StageStatus, State
from ..trust.release_manifest import SIGNATURE_NAME
from .arguments import RUNS, JsonOption, RecipeArgument, RunsOption, out, started_as, tell
from .terminal import format_seconds

LEFT_TO_DO = 3  # exit code
MARKS: Mapping[State, tuple[str, str]] = {State.DONE: ("✓", "green"), State.STALE: ("!", "yellow"), State.STOPPED: ("…", "yellow"),
                                          State.MISSING: ("·", "dim"), State.DAMAGED: ("✗", "red")}


def status(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Say what is done, what is missing, and what to do next.

    Only records are read, so it takes a second and disturbs no run. Files that were edited since are found by the stages themselves. Exit
    code 0: all is done; 3: something is left to do.
    """
    resolved = find_recipe(recipe)
    directory = runs_dir / resolved.name
    stages = Run(resolved, directory, Silent()).status()
    commands = next_commands(stages, resolved, directory, [recipe, *([] if runs_dir == RUNS else ["--runs-dir", str(runs_dir)])])
    is_done = all(one.state is State.DONE for one in stages)
    if as_json:
        tell({"run": resolved.name, "directory": str(directory), "is_done": is_done, "stages": [one.to_json() for one in stages],
              "next": commands}, as_json=True)
    else:
        out.print(table_of(stages, title=f"{directory}: {sum(one.state is State.DONE for one in stages)} of {len(stages)} stages are done"))
        tell_next(commands)
    raise typer.Exit(0 if is_done else LEFT_TO_DO)


def tell_next(commands: Sequence[str]) -> None:
    """Print what to type next, a line for each command."""
    for position, command in enumerate(commands):
        out.print(f"{'then' if position else 'next'}: {command}", markup=False, highlight=False)


def table_of(stages: Sequence[StageStatus], *, title: str) -> Table:
    """A row for each stage: how it stands, when it ended, how long it took, what it found."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(no_wrap=True, justify="right")
    table.add_column(overflow="fold")
    for one in stages:
        mark, colour = MARKS[one.state]
        ended = "" if one.finished is None else f"{one.finished.astimezone():%Y-%m-%d %H:%M}"
        took = "" if one.seconds is None else format_seconds(one.seconds)
        told = one.figures if one.state is State.DONE else f"{one.state}: {one.why}" if one.why else str(one.state)
        table.add_row(Text(mark, colour), one.stage, ended, took, Text(told, "" if one.state is State.DONE else colour))
    return table


def next_commands(stages: Sequence[StageStatus], recipe: Recipe, directory: Path, arguments: Sequence[str]) -> list[str]:
    """What to type next, in order.

    Args:
        stages: how the stages stand, in their order.
        recipe: the run's recipe.
        directory: the run's directory.
        arguments: recipe and options as they were given.
    """
    def command(name: str, *more: str) -> str:
        return shlex.join([started_as(), *name.split(), *arguments, *more])

    left = [one for one in stages if one.state is not State.DONE]
    has_captions = recipe.curate.captions == "required"
    needs_labels = not recipe.source.LABELS_FROM and any(
        one.stage == "labels" and one.state in (State.MISSING, State.DAMAGED) for one in left)
    if not left:
        return release_commands(directory / "release") if has_captions else [command("audit"), command("filters report")]
    if has_captions and not needs_labels:
        return [command("run")]
    names = list(dict.fromkeys(one.command for one in left))
    if has_captions:
        names = [*names[:names.index("label") + 1], "run"]
    return [command(name, *(("--import", "labels.csv") if name == "label" and needs_labels else ())) for name in names]


def release_commands(release: Path) -> list[str]:
    """What to do with a packed release."""
    signing = [] if (release / SIGNATURE_NAME).exists() else [["sign", str(release), "--key", "KEY"]]
    return [shlex.join([started_as(), *words]) for words in
            (["check", str(release)], *signing, ["publish", str(release), "org/name", "--key", "KEY"])]

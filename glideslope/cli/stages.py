"""Commands that write a recipe and run its stages."""

import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..recipe.recipe import Recipe
from ..run import Engine, Run, Silent, find_recipe, open_run
from .arguments import (
    RUNS,
    EngineOption,
    JsonOption,
    RecipeArgument,
    RunsOption,
    WorkersOption,
    err,
    opened,
    out,
    started_as,
    tell,
)
from .status import next_commands, tell_next
from .terminal import TerminalReporter, format_seconds, summary_table

if TYPE_CHECKING:
    from ..device.processes import Processes


def init(path: Annotated[Path, typer.Argument(help="The recipe file to write.")] = Path("recipe.yaml"),
         images: Annotated[str | None, typer.Option("--images", metavar="PATH",
                                                    help="What to start from, with captions or without: a folder of images, tars, parquet or "
                                                         "Arrow files, or a pattern of such files.")] = None) -> None:
    """Write a recipe and a policy for your images, all keys explained."""
    from ..data_filter.sources.openmoji import OpenMojiSource
    from .starter import policy_beside, refuse_existing, write_starter

    if images is None:
        recipe, told = write_starter(path, OpenMojiSource()), []
    else:
        from ..data_filter.sources.kinds import look_at

        refuse_existing(path)
        found = look_at(images)
        recipe, told = write_starter(path, found.source, has_captions=found.has_captions), [found.told]
        told += [] if found.has_captions else ["no captions were found, so curate.captions is optional: the run ends with the curated set"]
    names = ", ".join(category.name for category in recipe.categories)
    for line in (*told, f"wrote {path} and {policy_beside(path)} with the categories {names}; edit them"):
        out.print(line, markup=False, highlight=False)
    directory = RUNS / recipe.name
    tell_next(next_commands(Run(recipe, directory, Silent()).status(), recipe, directory, [str(path)]))


def index(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, engine: EngineOption = "local", workers: WorkersOption = None,
          part: Annotated[int | None, typer.Option(
              "--part", min=0, help="Embed only every N-th shard, from this one (0 to N - 1), for jobs that share the work; "
                                    "the same command without it ends the stage.")] = None,
          num_parts: Annotated[int | None, typer.Option("--num-parts", metavar="N", min=1, help="How many jobs there are.")] = None,
          as_json: JsonOption = False) -> None:
    """Read every image and embed it with CLIP.

    An input that cannot be read becomes a row with its reason.
    """
    if (part is None) != (num_parts is None):
        raise typer.BadParameter("--part and --num-parts go together")
    with opened(recipe, runs_dir, Engine(engine, workers), is_part=part is not None) as run:
        if part is not None and num_parts is not None:
            tell({f"part {part} of {num_parts}": run.index_part(part, num_parts)}, as_json=as_json)
            return
        records = run.index()
    tell({record.stage: dict(record.summary) for record in records}, as_json=as_json)


def label(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, as_json: JsonOption = False,
          import_file: Annotated[Path | None, typer.Option(
              "--import", metavar="FILE.csv",
              help="Labels to append: columns key, category, label (1 counts, 0 does not, empty: ambiguous); if wanted who, how, concept, "
                   "sha256, group:NAME.",
          )] = None) -> None:
    """Add labels to the run.

    Each label gets its role (train, calibrate, audit) by hash of its concept.
    """
    with opened(recipe, runs_dir) as run:
        record, rows = run.label(import_file)
    tell({"rows": rows, record.stage: dict(record.summary)}, as_json=as_json)


def fit(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, engine: EngineOption = "local", workers: WorkersOption = None,
        as_json: JsonOption = False) -> None:
    """Fit a filter per category, and measure it on labels it never saw."""
    with opened(recipe, runs_dir, Engine(engine, workers)) as run:
        records = run.fit()
    tell({record.stage: dict(record.summary) for record in records}, as_json=as_json)


def curate(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Decide on every image, and copy what is kept.

    The ledger gets a row for every input; images are copied byte for byte.
    """
    with opened(recipe, runs_dir) as run:
        record = run.curate()
    tell({record.stage: dict(record.summary)}, as_json=as_json)


def train(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Train the base model and the noised CLIP on what is kept.

    Several processes train together where torchrun or accelerate starts them.
    """
    from ..device.processes import LostProcessError, joined

    try:
        with joined() as processes:
            if not processes.is_first:
                follow(find_recipe(recipe), runs_dir, processes)
                return
            with opened(recipe, runs_dir) as run:
                records = run.train(processes)
    except LostProcessError as error:
        if error.rank:  # the first tells
            raise SystemExit(1) from None
        raise
    tell({record.stage: dict(record.summary) for record in records}, as_json=as_json)


def follow(recipe: Recipe, runs_dir: Path, processes: "Processes") -> None:
    """Take part in what the first of several processes trains; that one alone tells."""
    logging.getLogger("glideslope").setLevel(logging.ERROR)
    Run(recipe, runs_dir / recipe.name, Silent()).follow(processes)


def evaluate(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Draw from captions, and test whether the pictures fit them.

    The captions are held back or trained on, as the recipe says. A picture passes when its own caption is in the better half of several.
    """
    with opened(recipe, runs_dir) as run:
        record = run.evaluate()
    tell({record.stage: dict(record.summary)}, as_json=as_json)


def run(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, engine: EngineOption = "local", workers: WorkersOption = None,
        as_json: JsonOption = False) -> None:
    """Do every stage that is not done, then check the release."""
    reporter = TerminalReporter(err)
    with open_run(find_recipe(recipe), runs_dir, reporter, engine=Engine(engine, workers)) as opened_run:
        tell_estimate(opened_run)
        opened_run.all()
    claims = read_claims(opened_run)
    if as_json:
        tell({"release": str(opened_run.directory / "release"), "claims": claims, "seconds": reporter.seconds}, as_json=True)
        return
    out.print(summary_table(claims, reporter.seconds))
    from ..release.evaluation import best_drawn

    release, prompt = opened_run.directory / "release", best_drawn(opened_run.directory / "evaluation")
    out.print(f"\nThe release is {release}: its card is {release / 'README.md'}, its pictures are in {release / 'figures'}.\n"
              f"Draw the caption that came out best: {started_as()} sample {release} {shlex.quote(prompt)} --num-images 8 --out grid.png\n"
              f"Check the release again: {started_as()} verify {release}", markup=False, highlight=False)


def tell_estimate(opened_run: Run) -> None:
    """Say at the start how long the whole run will take on this machine."""
    opened_run.check_recipe("run")
    found = opened_run.estimate()
    stages = ", ".join(f"{stage} {format_seconds(seconds)}" for stage, seconds in found.items() if seconds >= 1)
    if stages:
        err.print(f"about {format_seconds(sum(found.values()))} on this machine, measured just now ({stages})", markup=False, highlight=False)


def demo(runs_dir: RunsOption = RUNS) -> None:
    """Do the whole job on 4,460 drawings, in a quarter of an hour."""
    run("openmoji-demo", runs_dir, as_json=False)


def read_claims(finished: Run) -> dict[str, Any]:
    """The claims of a packed run."""
    from ..store.whole_files import read_json

    return dict(read_json(finished.directory / "release" / "evidence" / "claims.json"))

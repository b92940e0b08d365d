"""Commands that run the stages of a recipe."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from ..run import Engine, Run, Silent, find_recipe, open_run
from .arguments import (
    RUNS,
    STAGES,
    EngineOption,
    JsonOption,
    PicturesOption,
    RecipeArgument,
    RunsOption,
    WorkersOption,
    err,
    opened,
    out,
    started_as,
    tell,
)
from .terminal import TerminalReporter, format_seconds, summary_table

app = typer.Typer()


@app.command(rich_help_panel=STAGES)
def init(path: Annotated[Path, typer.Argument(help="The recipe file to write.")] = Path("recipe.yaml"),
         images: Annotated[str | None, typer.Option("--images", metavar="PATH",
                                                    help="What to start from, with captions or without: a folder of images, tars, parquet or "
                                                         "Arrow files, or a pattern of such files.")] = None) -> None:
    """Write a recipe with every key and what it means, to be edited."""
    from ..data_filter.sources.openmoji import OpenMojiSource
    from .starter import refuse_existing, write_starter

    if images is None:
        write_starter(path, OpenMojiSource())
        out.print(f"wrote {path}; edit it, then: glideslope run {path}", markup=False, highlight=False)
        return
    from ..data_filter.sources.kinds import look_at

    refuse_existing(path)
    found = look_at(images)
    recipe = write_starter(path, found.source, has_captions=found.has_captions)
    then = f"glideslope index {path}, then glideslope label {path} --import labels.csv, then glideslope run {path}"
    if not found.has_captions:
        then = f"glideslope index {path}, then label, fit, curate, audit and report (no captions were found: curate.captions is optional)"
    names = ", ".join(category.name for category in recipe.categories)
    out.print(f"{found.told}\nwrote {path} with the categories {names}; edit it, then: {then}", markup=False, highlight=False)


@app.command(rich_help_panel=STAGES)
def index(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, engine: EngineOption = "local", workers: WorkersOption = None,
          part: Annotated[int | None, typer.Option(
              "--part", min=0, help="Embed only every N-th shard, from this one (0 to N - 1), for jobs that share the work; "
                                    "the same command without it ends the stage.")] = None,
          num_parts: Annotated[int | None, typer.Option("--num-parts", metavar="N", min=1, help="How many jobs there are.")] = None,
          as_json: JsonOption = False) -> None:
    """Read every input and embed it with CLIP; bad inputs become rows with their reason."""
    if (part is None) != (num_parts is None):
        raise typer.BadParameter("--part and --num-parts go together")
    with opened(recipe, runs_dir, Engine(engine, workers), is_part=part is not None) as run:
        if part is not None and num_parts is not None:
            tell({f"part {part} of {num_parts}": run.index_part(part, num_parts)}, as_json=as_json)
            return
        records = run.index()
    tell({record.stage: dict(record.summary) for record in records}, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def label(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, as_json: JsonOption = False,
          import_file: Annotated[Path | None, typer.Option(
              "--import", metavar="FILE.csv",
              help="Labels to append: columns key, category, label (1 counts, 0 does not, empty: ambiguous); if wanted who, how, concept, "
                   "sha256, group:NAME.",
          )] = None) -> None:
    """Append labels to the run's store and give each its role by hash of the concept."""
    with opened(recipe, runs_dir) as run:
        record, rows = run.label(import_file)
    tell({"rows": rows, record.stage: dict(record.summary)}, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def fit(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, engine: EngineOption = "local", workers: WorkersOption = None,
        as_json: JsonOption = False) -> None:
    """Fit one filter per category, set its threshold, and measure it on labels it never saw."""
    with opened(recipe, runs_dir, Engine(engine, workers)) as run:
        records = run.fit()
    tell({record.stage: dict(record.summary) for record in records}, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def curate(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Decide on every input, write the ledger, and copy what is kept byte for byte."""
    with opened(recipe, runs_dir) as run:
        record = run.curate()
    tell({record.stage: dict(record.summary)}, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def audit(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, as_json: JsonOption = False,  # noqa: PLR0913, PLR0917 (its options)
          category: Annotated[str | None, typer.Option(metavar="NAME", help="What to audit; needed where the recipe has several.")] = None,
          claim: Annotated[float | None, typer.Option(help="Draw a sample to show that at most this share of the kept images shows it.",
                                                      show_default="the recipe's max_leak_rate, or 0.001")] = None,
          num: Annotated[int | None, typer.Option(help="Images to draw; more than were drawn before extends the sample.",
                                                  show_default="as many as show the claim when none is positive")] = None,
          confidence: Annotated[float, typer.Option(help="Of a first audit; later ones of other kept sets are held to more.")] = 0.95,
          design: Annotated[str, typer.Option(help="simple, or stratified: more of the images with high scores.")] = "simple",
          fixed: Annotated[bool, typer.Option("--fixed", help="Fix the number of labels: fewer are needed, but all of them.")] = False,
          seed: Annotated[str | None, typer.Option(metavar="TEXT", help="Words for this one audit, such as dice thrown now; never taken twice.",
                                                   show_default="random numbers of the operating system")] = None,
          seed_from_os: Annotated[bool, typer.Option("--seed-from-os", help="Draw from random numbers of the operating system.")] = False,
          again: Annotated[bool, typer.Option("--again", help="Draw a second sample beside the first; both have to show the claim.")] = False,
          blur: Annotated[bool, typer.Option("--blur", help="Blur the pictures on the contact sheets.")] = False,
          import_file: Annotated[Path | None, typer.Option("--import", metavar="FILE.csv", help="The filled-in sample.csv.")] = None,
          who: Annotated[str, typer.Option(metavar="NAME", help="Who gave the imported labels, where the file does not say.")] = "") -> None:
    """Show with labels how little of a category is left: plan, draw a sample that anybody can redraw, import labels, report.

    Without options it says how many labels show which claims, or how the audits stand.
    """
    from ..data_filter.audits.population import AuditRequest

    if seed is not None and seed_from_os:
        raise typer.BadParameter("give either --seed or --seed-from-os", param_hint="--seed")
    request = AuditRequest(category=category, claim=claim, num=num, seed=seed, confidence=confidence, design=design, fixed=fixed,
                           draw=seed_from_os, again=again, blur=blur)
    with opened(recipe, runs_dir) as run:
        report = run.audit(request, import_file=import_file, who=who)
    if as_json:
        tell(report.to_json(), as_json=True)
    else:
        out.print(report.describe(), markup=False, highlight=False)


@app.command(rich_help_panel=STAGES)
def mutate(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, as_json: JsonOption = False,
           num_positives: Annotated[int, typer.Option(min=1, help="Held-out positives to plant in each shape.")] = 100,
           num_others: Annotated[int, typer.Option(min=1, help="Other images to change in the same ways, for comparison.")] = 40) -> None:
    """Plant known positives cropped, tiny in a scene, turned, in a collage, as a sticker: how many does the filter still find?"""
    with opened(recipe, runs_dir) as opened_run:
        records = opened_run.mutate(num_positives=num_positives, num_others=num_others)
    tell({record.stage: dict(record.summary) for record in records}, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def report(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, as_json: JsonOption = False,
           out_file: Annotated[Path | None, typer.Option("--out", metavar="FILE.html", help="Where to write it.",
                                                         show_default="report.html in the run's directory")] = None,
           pictures: PicturesOption = "veiled") -> None:
    """Write one HTML page that says what the filters did and how sure that is: figures, pictures, groups, captions, audits."""
    with opened(recipe, runs_dir) as opened_run:
        written = opened_run.report(out_file, pictures=pictures)
        path = out_file or opened_run.directory / "report.html"
    tell({"report": str(path), **(written.figures if as_json else {"size": f"{path.stat().st_size / 1e6:.1f} MB"})}, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def diff(run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="A run's directory, for example runs/first.")],
         run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="The run to compare with it.")],
         out_file: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Also write .csv (the images that enter or leave), "
                                                       ".json (everything) or .html (a page with pictures).")] = None,
         pictures: PicturesOption = "veiled", as_json: JsonOption = False) -> None:
    """Say which images enter and which leave from one run to another, why, and which groups that concerns; nothing is scored again."""
    from ..data_filter.reports.diff_report import compare, describe_difference

    with (Silent() if as_json else TerminalReporter(err)).stage("diff") as progress:
        difference = compare(run_a, run_b, out_file, pictures=pictures, progress=progress)
    if as_json:
        return tell(difference.to_json(), as_json=True)
    tell(describe_difference(difference), as_json=False)
    if out_file is not None:
        out.print(f"wrote {out_file}", markup=False, highlight=False)


@app.command(rich_help_panel=STAGES)
def train(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Train the base model and the noised CLIP on the curated set."""
    with opened(recipe, runs_dir) as run:
        records = run.train()
    tell({record.stage: dict(record.summary) for record in records}, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def evaluate(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Draw from captions, held back or trained on as the recipe says, and count how often the own one is in the better half of several."""
    with opened(recipe, runs_dir) as run:
        record = run.evaluate()
    tell({record.stage: dict(record.summary)}, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def run(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, engine: EngineOption = "local", workers: WorkersOption = None,
        as_json: JsonOption = False) -> None:
    """Do every stage that is not done yet, then pack, check and verify the release."""
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


@app.command()
def demo(runs_dir: RunsOption = RUNS) -> None:
    """The whole job on 4,460 real drawings (OpenMoji), in about a quarter of an hour on two cores."""
    run("openmoji-demo", runs_dir, as_json=False)


def read_claims(finished: Run) -> dict[str, Any]:
    """The claims of a packed run."""
    from ..store.whole_files import read_json

    return dict(read_json(finished.directory / "release" / "evidence" / "claims.json"))

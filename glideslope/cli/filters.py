"""Commands that look at what the filters did: audits, planted positives, a page, two runs side by side."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..run import Silent
from .arguments import RUNS, JsonOption, PicturesOption, RecipeArgument, RunsOption, err, flag, opened, out, tell
from .terminal import TerminalReporter

SAMPLE, LABELS = "Drawing a sample", "Taking labels back"


def audit(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, as_json: JsonOption = False,  # noqa: PLR0913, PLR0917 (its options)
          category: Annotated[str | None, typer.Option(metavar="NAME", help="What to audit; needed where the recipe has several.")] = None,
          claim: Annotated[float | None, typer.Option(help="Largest share of the kept images that may show it. A sample is drawn.",
                                                      rich_help_panel=SAMPLE, show_default="the policy's leak, or 0.001")] = None,
          num_images: Annotated[int | None, typer.Option(help="Images to draw; more than were drawn before extends the sample.",
                                                         rich_help_panel=SAMPLE,
                                                         show_default="as many as show the claim when none is positive")] = None,
          confidence: Annotated[float, typer.Option(help="Of a first audit; later ones of other kept sets are held to more.",
                                                    rich_help_panel=SAMPLE)] = 0.95,
          design: Annotated[str, typer.Option(help="simple, or stratified: more of the images with high scores.",
                                              rich_help_panel=SAMPLE)] = "simple",
          fixed: Annotated[bool, flag("--fixed", help="Fix the number of labels: fewer are needed, but all of them.",
                                              panel=SAMPLE)] = False,
          seed: Annotated[str | None, typer.Option(metavar="TEXT", help="Words for this one audit, such as dice thrown now; never taken twice.",
                                                   rich_help_panel=SAMPLE, show_default="random numbers of the operating system")] = None,
          seed_from_os: Annotated[bool, flag("--seed-from-os", help="Draw from random numbers of the operating system.",
                                                     panel=SAMPLE)] = False,
          again: Annotated[bool, flag("--again", help="Draw a second sample beside the first; both have to show the claim.",
                                              panel=SAMPLE)] = False,
          pictures: Annotated[Literal["clear", "blurred"], typer.Option(help="How the contact sheets show the images.",
                                                                        rich_help_panel=SAMPLE)] = "clear",
          import_file: Annotated[Path | None, typer.Option("--import", metavar="FILE.csv", help="The filled-in sample.csv.",
                                                           rich_help_panel=LABELS)] = None,
          who: Annotated[str, typer.Option(metavar="NAME", help="Who gave the imported labels, where the file does not say.",
                                           rich_help_panel=LABELS)] = "") -> None:
    """Show with new labels how little of a category is left.

    Without options it says how many labels are needed, or how the audits stand. With --claim it draws a sample; with --import it takes
    your labels back.
    """
    from ..data_filter.audits.population import AuditRequest

    if seed is not None and seed_from_os:
        raise typer.BadParameter("give either --seed or --seed-from-os", param_hint="--seed")
    request = AuditRequest(category=category, claim=claim, num=num_images, seed=seed, confidence=confidence, design=design, fixed=fixed,
                           draw=seed_from_os, again=again, blur=pictures == "blurred")
    with opened(recipe, runs_dir) as run:
        report = run.audit(request, import_file=import_file, who=who)
    if as_json:
        tell(report.to_json(), as_json=True)
    else:
        out.print(report.describe(), markup=False, highlight=False)


def mutate(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, as_json: JsonOption = False,
           num_positives: Annotated[int, typer.Option(min=1, help="Held-out positives to plant in each shape.")] = 100,
           num_others: Annotated[int, typer.Option(min=1, help="Other images to change in the same ways, for comparison.")] = 40) -> None:
    """Plant known positives in other shapes, and count the misses.

    Shapes: cropped, tiny in a scene, turned, in grey, in a collage, as a sticker.
    """
    with opened(recipe, runs_dir) as opened_run:
        records = opened_run.mutate(num_positives=num_positives, num_others=num_others)
    tell({record.stage: dict(record.summary) for record in records}, as_json=as_json)


def report(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, as_json: JsonOption = False,
           out_file: Annotated[Path | None, typer.Option("--out", metavar="FILE.html", help="Where to write it.",
                                                         show_default="report.html in the run's directory")] = None,
           pictures: PicturesOption = "veiled") -> None:
    """Write one HTML page about what the filters did and how sure that is."""
    with opened(recipe, runs_dir) as opened_run:
        written = opened_run.report(out_file, pictures=pictures)
        path = out_file or opened_run.directory / "report.html"
    tell({"report": str(path), **(written.figures if as_json else {"size": f"{path.stat().st_size / 1e6:.1f} MB"})}, as_json=as_json)


def diff(run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="A run's directory, for example runs/first.")],
         run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="The run to compare with it.")],
         out_file: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Also write .csv (the images that enter or leave), "
                                                       ".json (everything) or .html (a page with pictures).")] = None,
         pictures: PicturesOption = "veiled", as_json: JsonOption = False) -> None:
    """Say which images enter and leave from one run to another, and why.

    Nothing is scored again.
    """
    from ..data_filter.reports.diff_report import compare, describe_difference

    with (Silent() if as_json else TerminalReporter(err)).stage("diff") as progress:
        difference = compare(run_a, run_b, out_file, pictures=pictures, progress=progress)
    if as_json:
        return tell(difference.to_json(), as_json=True)
    tell(describe_difference(difference), as_json=False)
    if out_file is not None:
        out.print(f"wrote {out_file}", markup=False, highlight=False)

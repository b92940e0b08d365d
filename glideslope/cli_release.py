"""Commands that pack, check and verify a release."""

import typer

from .cli_shared import RELEASES, RUNS, JsonOption, RecipeArgument, ReleaseArgument, RunsOption, opened, tell

app = typer.Typer()


@app.command(rich_help_panel=RELEASES)
def pack(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Write the release directory of a finished run: weights, card, evidence, manifest."""
    with opened(recipe, runs_dir, as_json=as_json) as opened_run:
        record = opened_run.pack()
    tell({"release": str(opened_run.directory / "release"), **record.summary}, as_json=as_json)


@app.command(rich_help_panel=RELEASES)
def check(release: ReleaseArgument, as_json: JsonOption = False) -> None:
    """Run every gate on a release: all failures are listed, and one is enough to refuse it."""
    from .release.gates import check as run_gates

    passed = run_gates(release)
    tell({"release": str(release), "gates": passed if as_json else "passed: " + ", ".join(passed)}, as_json=as_json)


@app.command(rich_help_panel=RELEASES)
def verify(release: ReleaseArgument, as_json: JsonOption = False) -> None:
    """Recompute every digest and every number on the card, offline, and name what differs."""
    from .release.verify import verify as verify_release

    report = verify_release(release)
    tell(report.to_json(), as_json=as_json)

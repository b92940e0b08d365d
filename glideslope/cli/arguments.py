"""What the commands share: consoles, arguments, how a result is told."""

import json
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..run import Engine, find_recipe, open_run
from ..trust.signatures import Signers
from ..trust.signers import SignerRule
from .terminal import PlainConsole, TerminalReporter

STAGES, RELEASES = "Stages of a run", "Releases"

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a ready-made one: openmoji-demo, openmoji.")]
RunsOption = Annotated[Path, typer.Option("--runs-dir", help="Where runs live; each has a directory of its recipe's name.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines instead of text.")]
EngineOption = Annotated[Literal["local", "ray"], typer.Option(
    "--engine", help="Where images are embedded and scored: this machine, or a Ray cluster (RAY_ADDRESS, else one started here).")]
WorkersOption = Annotated[int | None, typer.Option(
    "--workers", min=1, help="Worker processes; without it one, or with Ray one per GPU or else per CPU. The result is the same.")]
ReleaseArgument = Annotated[Path, typer.Argument(metavar="RELEASE", help="A release directory, for example runs/openmoji-demo/release.")]
PicturesOption = Annotated[Literal["veiled", "clear", "blurred", "none"], typer.Option(
    help="veiled: what the filters look for is blurred until the reader asks; clear: all is shown; blurred: nothing can be made out; "
         "none: no pictures.")]
PolicyOption = Annotated[Path | None, typer.Option(
    "--policy", metavar="FILE", help="A policy to apply on top of the one that was packed: of each demand the stricter one counts.")]
ThresholdOption = Annotated[int | None, typer.Option("--threshold", min=1, metavar="N", help="How many of the named keys must have signed; "
                                                     "without it all of them.")]
RUNS = Path("runs")

out, err = PlainConsole(), PlainConsole(stderr=True)


def started_as() -> str:
    """How this command is to be typed again: by its name where the shell finds it, else by its path."""
    return "glideslope" if shutil.which("glideslope") else sys.argv[0]


def tell(value: dict[str, Any], *, as_json: bool) -> None:
    """Print a result as `key: value` lines or as JSON."""
    if as_json:
        sys.stdout.write(json.dumps(value, sort_keys=True) + "\n")
        return
    for key, item in value.items():
        text = ", ".join(f"{name} {figure}" for name, figure in item.items()) if isinstance(item, dict) else item
        out.print(f"{key}: {text}", markup=False, highlight=False)


def signer_rule(keys: list[str] | None, threshold: int | None, *, option: str) -> SignerRule | None:
    """The rule that the options for keys and threshold give; none when no key is named."""
    if not keys:
        if threshold is not None:
            raise typer.BadParameter(f"--threshold says how many of the keys must have signed; name them with {option}")
        return None
    return SignerRule.of(keys, threshold)


def told_signers(signers: Signers | None, *, as_json: bool) -> list[str] | str:
    """Who signed, for people or for machines."""
    if as_json:
        return [] if signers is None else list(signers.key_ids)
    return "nobody" if signers is None else str(signers)


def opened(recipe: str, runs_dir: Path, engine: Engine | None = None, *, is_part: bool = False) -> Any:
    """A run opened with progress on the terminal's error stream, which leaves the output to the result."""
    return open_run(find_recipe(recipe), runs_dir, TerminalReporter(err), engine=engine, is_part=is_part)

"""What the commands share: consoles, arguments, option objects, how a result is printed."""

import functools
import inspect
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

from ..run import Engine, find_recipe, open_run
from ..trust.signatures import Signers
from ..trust.signers import SignerRule
from .terminal import PlainConsole, TerminalReporter


def flag(*names: str, help: str, panel: str | None = None,
         callback: Callable[[bool], None] | None = None) -> Any:
    """An option without a value; the help shows no type beside it."""
    return typer.Option(*names, metavar="", help=help, rich_help_panel=panel, callback=callback, is_eager=callback is not None)


RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a ready-made one: openmoji-demo, openmoji.")]
RunsOption = Annotated[Path, typer.Option("--runs-dir", help="Where runs live; each has a directory of its recipe's name.")]
JsonOption = Annotated[bool, flag("--json", help="Print one JSON object for machines instead of text.")]
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
TRUST = "Whom you trust"
SignerOption = Annotated[list[str] | None, typer.Option("--signer", metavar="KEY", rich_help_panel=TRUST, help=(
    "Who must have signed the release: a key id, or the file of a public key. May be given several times."))]
ThresholdOption = Annotated[int | None, typer.Option("--threshold", min=1, metavar="N", rich_help_panel=TRUST, help=(
    "How many of the named signers are needed; without it all of them."))]
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


def signer_rule(signer: list[str] | None, threshold: int | None) -> SignerRule | None:
    """The rule that `--signer` and `--threshold` give; `None` when no signer is named."""
    if not signer:
        if threshold is not None:
            raise typer.BadParameter("--threshold says how many of the signers are needed; name them with --signer")
        return None
    return SignerRule.of(signer, threshold)


def told_signers(signers: Signers | None, *, as_json: bool) -> list[str] | str:
    """Who signed, for people or for machines."""
    if as_json:
        return [] if signers is None else list(signers.key_ids)
    return "nobody" if signers is None else str(signers)


def opened(recipe: str, runs_dir: Path, engine: Engine | None = None, *, is_part: bool = False) -> Any:
    """A run opened with progress on the terminal's error stream, which leaves the output to the result."""
    return open_run(find_recipe(recipe), runs_dir, TerminalReporter(err), engine=engine, is_part=is_part)


def spell_out(command: Callable[..., None]) -> Callable[..., None]:
    """A command for typer: each parameter that is a dataclass becomes one option per field, and the command gets the object back.

    Typer reads a command's signature, and calls it with one keyword argument per option.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    if not groups:
        return command
    flat: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name not in groups:
            flat.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name]))
            continue
        field_hints = get_type_hints(groups[name], include_extras=True)
        flat += [inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field_hints[field.name])
                 for field in fields(groups[name])]

    @functools.wraps(command)
    def call(**values: Any) -> None:  # one keyword per option, as typer calls it
        objects = {name: kind(**{field.name: values.pop(field.name) for field in fields(kind)}) for name, kind in groups.items()}
        command(**values, **objects)

    call.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]  # read by inspect.signature
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return call

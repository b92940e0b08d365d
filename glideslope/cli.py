"""The command line. A command parses, calls one library function, prints; errors of ours become one line and exit code 1.

The commands lie beside: `cli_stages`, `cli_release`, `cli_signing`, `cli_hub`, `cli_drawing`.
"""

import logging
from typing import Annotated

import typer
from rich.text import Text

from . import __version__, cli_drawing, cli_hub, cli_release, cli_signing, cli_stages
from .cli_shared import err, out
from .errors import GlideslopeError
from .terminal import TerminalReporter, start_logging

# Commands that hash, draw or transfer for long without a stage of their own: a line every 20 seconds says that they are at work.
WITHOUT_STAGES = frozenset({"verify", "check", "card", "sign", "export-diffusers", "publish", "rollback", "withdraw", "rehearse"})

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False,
                  help="Curate image-text data, train a small GLIDE and a noised CLIP on what is left, and pack a release whose "
                       "every claim can be recomputed.\n\nStart with `glideslope demo`, or write a recipe with `glideslope init` and "
                       "run it with `glideslope run`. Every stage resumes where it stopped and is skipped when nothing changed.")
for part in (cli_stages, cli_release, cli_signing, cli_hub, cli_drawing):
    app.add_typer(part.app)


def main() -> None:
    """Entry point of the `glideslope` command."""
    start_logging()
    try:
        app()
    except GlideslopeError as error:
        err.print(Text.assemble(("glideslope:", "bold red"), " " + " ".join(str(error).splitlines())))
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        err.print("glideslope: stopped; run the same command again to go on where it was")
        raise SystemExit(130) from None


def show_version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        out.print(__version__, highlight=False)
        raise typer.Exit


@app.callback()
def settings(
        context: typer.Context,
        verbose: Annotated[bool, typer.Option("--verbose", help="Also say which stages are skipped, and why others run again.")] = False,
        version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")] = False) -> None:
    """Set what holds for every command."""
    logging.getLogger("glideslope").setLevel(logging.INFO if verbose else logging.WARNING)
    if context.invoked_subcommand in WITHOUT_STAGES:
        context.with_resource(TerminalReporter(err).lines(context.invoked_subcommand))


if __name__ == "__main__":
    main()

"""The command line. A command parses, calls one library function, prints; errors of ours become one line and exit code 1.

The commands lie beside: `cli_stages`, `cli_release`, `cli_signing`, `cli_hub`, `cli_drawing`.
"""

import io
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.text import Text

from .. import __version__
from ..errors import GlideslopeError, StorageError
from ..store.whole_files import UNWRITABLE, storage_error
from . import drawing as cli_drawing
from . import hub as cli_hub
from . import release as cli_release
from . import signing as cli_signing
from . import stages as cli_stages
from .arguments import err, out
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
    prepare_streams()
    start_logging()
    try:
        check_working_directory()
        app()
    except GlideslopeError as error:
        refuse(str(error))
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        refuse(str(storage_error(Path(str(error.filename or "a file")), error)))
    except KeyboardInterrupt:
        err.print("glideslope: stopped; run the same command again to go on where it was")
        raise SystemExit(130) from None


def refuse(message: str) -> NoReturn:
    """Print an error as one line, and exit with 1."""
    err.print(Text.assemble(("glideslope:", "bold red"), " " + " ".join(message.splitlines())))
    raise SystemExit(1) from None


def prepare_streams() -> None:
    """Make the standard streams safe to use: one that is closed leads nowhere, and a character that cannot be printed comes as its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in this order, in which the system gives out the free numbers
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  (open as long as the process lives)
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def check_working_directory() -> None:
    """Refuse to work where no directory is any more: libraries end the process without a word there.

    Raises:
        StorageError: it was removed.
    """
    try:
        Path.cwd()
    except OSError as error:
        raise StorageError(f"the current directory cannot be used ({error.strerror}); it may have been removed: go to another") from error


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

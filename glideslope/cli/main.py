"""The command line. A command parses, calls one library function, prints; errors of ours become one line and exit code 1.

The commands lie beside; `PANELS` lists them in the order of the help.
"""

import io
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.text import Text

from .. import __version__
from ..errors import GlideslopeError, StorageError
from ..store.whole_files import UNWRITABLE, storage_error
from . import drawing, filters, hub, release, signing, stages, status
from .arguments import err, flag, out, spell_out
from .terminal import TerminalReporter, start_logging

Commands = tuple[Callable[..., None], ...]
START, STAGES, RELEASES = "Start here", "One stage at a time", "Releases"
PANELS: Mapping[str, Commands] = {
    START: (stages.demo, stages.init, stages.run, status.status, drawing.sample),
    STAGES: (stages.index, stages.label, stages.fit, stages.curate, filters.audit, stages.train, stages.evaluate, release.pack),
    RELEASES: (release.check, release.verify, signing.keygen, signing.sign, hub.publish, drawing.edit)}
OF_FILTERS: Commands = (filters.report, filters.mutate, filters.diff)
OF_RELEASES: Commands = (release.card, hub.status, hub.rollback, hub.withdraw, release.export_diffusers, drawing.import_openai)

# Commands that hash, draw or transfer for long without a stage of their own.
WITHOUT_STAGES = frozenset({"verify", "check", "card", "sign", "export-diffusers", "publish", "rollback", "withdraw"})


def make_app(commands: Commands, *, text: str, panel: str | None = None) -> typer.Typer:
    """A group of commands, under the text that its help begins with."""
    group = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False, help=text)
    add_commands(group, commands, panel)
    return group


def add_commands(group: typer.Typer, commands: Commands, panel: str | None) -> None:
    """Add commands to a group; each is called as its function."""
    for command in commands:
        group.command(rich_help_panel=panel)(spell_out(command))


app = make_app((), text="From a pile of captioned images to a published text-to-image model that somebody can sign off. Every stage can be "
               "stopped and started again.")
for title, listed in PANELS.items():
    add_commands(app, listed, title)
app.add_typer(make_app(OF_FILTERS, text="Look at what the filters of a run did."), name="filters", rich_help_panel=STAGES,
              short_help="More on the filters: a page, planted positives, two runs.")
of_releases = make_app(OF_RELEASES, text="Cards, exports and imports, and the status of what was published.")
app.add_typer(of_releases, name="release", rich_help_panel=RELEASES, short_help="More on releases: cards, exports, imports, withdrawal.")


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
        verbose: Annotated[bool, flag("--verbose", help="Also say which stages are skipped or run, and why.")] = False,
        version: Annotated[bool, flag("--version", callback=show_version, help="Print the version.")] = False) -> None:
    """Set what holds for every command."""
    logging.getLogger("glideslope").setLevel(logging.INFO if verbose else logging.WARNING)
    say_at_work(context)


@of_releases.callback()
def say_at_work(context: typer.Context) -> None:
    """While a command without stages runs, print a line every 20 seconds."""
    if context.invoked_subcommand in WITHOUT_STAGES:
        context.with_resource(TerminalReporter(err).lines(context.invoked_subcommand))


if __name__ == "__main__":
    main()

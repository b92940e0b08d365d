"""What the command line shows: bars on a terminal that can draw them, a line every 20 seconds elsewhere, and the closing summary."""

import importlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from traceback import format_exception
from types import TracebackType
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ..errors import printable
from ..text.number_text import asked, at_least, percent

LINE_EVERY_S = 20.0


class PlainConsole(Console):
    """A console on which text from outside only stands: no markup unless it is asked for, and nothing that steers the terminal.

    Whatever is shown passes here, tables and progress bars too; only what rich itself puts in to colour and move stays as it is.
    """

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        """Write to the output or the error stream."""
        super().__init__(stderr=stderr, width=width, soft_wrap=True, emoji=False, markup=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does, with every text made printable; see `errors.printable`."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text, keep_lines=True), segment.style)


class PlainFormatter(logging.Formatter):
    """Log lines of one line each, with nothing in them that steers the terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """As logging does, made printable."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        """A traceback as logging writes it, made printable line by line."""
        return printable(super().formatException(ei), keep_lines=True)


def start_logging() -> None:
    """Show warnings of the libraries, and the traceback of what nobody expected, on the error stream, with nothing that steers it."""
    sys.excepthook = show_traceback
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def show_traceback(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Write a traceback as Python does; what an error quotes may come from anywhere."""
    text = "".join(format_exception(kind, error, traceback))
    sys.stderr.write(printable(text.rstrip("\n"), keep_lines=True) + "\n")


@dataclass
class Pace:
    """How far some work is, and how long the rest takes at the rate since it first told.

    Attributes:
        started: when it began, by the monotonic clock.
        done, total, text: what it told last.
        first: when it told first, and what was done by then: a stage that goes on starts far from nothing.
    """

    started: float = field(default_factory=time.monotonic)
    done: int = 0
    total: int = 0
    text: str = ""
    first: tuple[float, int] | None = None

    def advance(self, done: int, total: int, text: str) -> None:
        """Take in what a stage tells."""
        self.done, self.total, self.text = done, total, text
        self.first = self.first or (time.monotonic(), done)

    def seconds_left(self) -> float | None:
        """How long the rest takes, or none where nothing tells."""
        if self.first is None or self.done <= self.first[1]:
            return None
        return (time.monotonic() - self.first[0]) / (self.done - self.first[1]) * max(0, self.total - self.done)

    def describe(self) -> str:
        """What was told last, with the time that is left."""
        left = self.seconds_left()
        return self.text if left is None or self.text.endswith(" left") else ", ".join(filter(None, [self.text, f"{clock(left)} left"]))

    def line(self) -> str:
        """All in one line; of work that tells nothing, how long it has been at it."""
        return f"{self.done} of {self.total} {self.describe()}" if self.total else f"at work for {clock(time.monotonic() - self.started)}"


class TerminalReporter:
    """Shows each stage with a bar where a terminal can draw one; in a file, pipe or CI log a line every 20 seconds.

    Attributes:
        console: where to.
        seconds: stage -> how long it took in this process.
        describe_rest: given a stage's name and its seconds left, or none, says what comes after it; ends each line. None: nothing is said.
    """

    def __init__(self, console: Console, describe_rest: Callable[[str, float | None], str] | None = None) -> None:
        """Report to a console."""
        self.console, self.describe_rest = console, describe_rest
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[int, int, str], None]]:
        """A stage begins."""
        pace = Pace()
        if draws_bars(self.console):
            with self._bar(name, pace) as callback:
                yield callback
        else:
            self.console.print(f"{name} …", highlight=False)
            with self.lines(name, pace):
                yield pace.advance
        self.seconds[name] = time.monotonic() - pace.started
        self.console.print(Text.assemble(("✓", "green"), f" {name}  ", (format_seconds(self.seconds[name]), "dim")))

    @contextmanager
    def lines(self, name: str, pace: Pace | None = None) -> Iterator[None]:
        """Print a line every 20 seconds, whether the work tells anything or not."""
        shown, ended = pace or Pace(), threading.Event()

        def beat() -> None:
            while not ended.wait(LINE_EVERY_S):
                try:
                    self.console.print(f"  {name}: {shown.line()}{self._rest(name, shown)}", markup=False, highlight=False)
                except (OSError, ValueError):  # whoever read the lines has gone
                    return

        thread = threading.Thread(target=beat, name=f"progress of {name}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @contextmanager
    def _bar(self, name: str, pace: Pace) -> Iterator[Callable[[int, int, str], None]]:
        columns = (TextColumn("{task.fields[stage]}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                   TextColumn("{task.description}", markup=False))
        with Progress(*columns, console=self.console, transient=True) as bars:
            task = bars.add_task("", total=None, stage=name)

            def show(done: int, total: int, text: str) -> None:
                pace.advance(done, total, text)
                bars.update(task, completed=done, total=total, description=pace.describe() + self._rest(name, pace))

            yield show

    def _rest(self, name: str, pace: Pace) -> str:
        text = "" if self.describe_rest is None else self.describe_rest(name, pace.seconds_left())
        return f"; {text}" if text else ""


def draws_bars(console: Console) -> bool:
    """Whether a console is a terminal that can draw over what it drew: no file made to look like one, no dumb one, no log of a CI."""
    return console.is_terminal and console.file.isatty() and not console.is_dumb_terminal and not is_ci()


def is_ci() -> bool:
    """Whether the process runs in a CI, which sets CI to anything that is not no."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false", "no")


def summary_table(claims: Mapping[str, Any], seconds: Mapping[str, float]) -> Table:
    """The closing summary of a run: what was removed, how sure that is, what was trained, how long it took.

    Args:
        claims: the release's claims.
        seconds: stage -> duration.
    """
    table = Table(title="What this run did", title_justify="left", show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in summary_rows(claims):
        table.add_row(label, text)
    stages = ", ".join(f"{name} {format_seconds(s)}" for name, s in seconds.items() if s >= 1)
    table.add_row("time", f"{format_seconds(sum(seconds.values()))}  ({stages})")
    peak = peak_memory_bytes()
    if peak is not None:
        table.add_row("peak memory", f"{peak / 1024**3:.1f} GiB")
    return table


def peak_memory_bytes() -> int | None:
    """The most memory that this process has had; none on a system that does not tell (Windows)."""
    try:
        resource = importlib.import_module("resource")
    except ModuleNotFoundError:
        return None
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def summary_rows(claims: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The summary's figures as (label, sentence)."""
    rows = [("images", f"{claims['ledger.num_seen']:,} seen, {claims['ledger.num_kept']:,} kept")]
    for name in claims["recipe.categories"]:
        test = f"filters.{name}.test"
        recall, bound = claims[f"{test}.recall"], claims[f"{test}.recall_lower_bound"]
        demanded = asked(claims[f"filters.{name}.demands.recall.bound"])
        caught = f"{claims[f'{test}.num_caught']} of {claims[f'{test}.num_positive']}"
        rows.append((f"{name} filter", f"caught {caught} never-seen positives ({percent(recall)}, {at_least(bound)} with 95 % confidence, "
                                       f"{demanded}), "
                                       f"kept {percent(claims[f'{test}.kept_share'])} of the other images"))
    for network in (row["name"] for row in claims["components"] if row["is_trained"]):
        key = f"training.{network}"
        size, seen = claims[f"{key}.num_parameters"] / 1e6, claims[f"{key}.num_images"]
        losses = f"loss {claims[f'{key}.first_loss']:.3f} to {claims[f'{key}.final_loss']:.3f}"
        rows.append((network.replace("_", " "), f"{size:.1f} M parameters, {seen:,} images seen, {losses}"))
    wins, bound = f"{claims['evaluation.num_wins']} of {claims['evaluation.num_pairs']}", claims["evaluation.share_lower_bound"]
    rows.append(("captions count", f"{wins} pictures fit their own caption better than the middle one of others "
                                   f"({at_least(bound)} with 95 % confidence, {asked(claims['evaluation.demand.bound'])})"))
    return rows


def format_seconds(seconds: float) -> str:
    """A duration as `1:02:03`, `2:03` or `4.5 s`."""
    return f"{seconds:.1f} s" if seconds < 60 else clock(seconds)


def clock(seconds: float) -> str:
    """A duration as `1:02:03` or `0:04`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

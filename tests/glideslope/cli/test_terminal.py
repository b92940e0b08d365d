import io
import os
import pty
import re
import subprocess
import sys
import time
from typing import Any

import pytest
from rich.console import Console

from glideslope.cli import terminal
from glideslope.cli.terminal import Pace, TerminalReporter, format_seconds, summary_rows, summary_table

CLAIMS: dict[str, Any] = {
    "ledger.num_seen": 4460, "ledger.num_kept": 2001, "recipe.categories": ["person"],
    "components": [{"name": name, "is_trained": name != "upsampler"} for name in ("base", "noised_clip", "upsampler")],
    "filters.person.test.recall": 0.995, "filters.person.test.recall_lower_bound": 0.98, "filters.person.test.num_caught": 199,
    "filters.person.test.num_positive": 200, "filters.person.test.kept_share": 0.8, "filters.person.demands.recall.bound": 0.97,
    **{f"training.{model}.{key}": value for model in ("base", "noised_clip")
       for key, value in {"num_parameters": 7_000_000, "num_images": 20_000, "first_loss": 1.0, "final_loss": 0.25}.items()},
    "evaluation.num_wins": 48, "evaluation.num_pairs": 64, "evaluation.share_lower_bound": 0.645,
    "evaluation.demand.bound": None}


class Screen(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def console(*, is_terminal: bool = False) -> tuple[Console, io.StringIO]:
    file = Screen() if is_terminal else io.StringIO()
    return Console(file=file, force_terminal=is_terminal, width=120, soft_wrap=not is_terminal), file


@pytest.mark.parametrize(("seconds", "text"), [
    (0.04, "0.0 s"), (4.46, "4.5 s"), (60, "1:00"), (125.4, "2:05"), (3599.7, "1:00:00"), (7325, "2:02:05")])
def test_durations_read_like_a_clock(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_in_a_file_a_stage_is_a_line_when_it_begins_and_one_when_it_ends() -> None:
    target, file = console()
    reporter = TerminalReporter(target)
    with reporter.stage("index") as progress:
        progress(1, 10, "images")
    assert [line.split("  ")[0] for line in file.getvalue().splitlines()] == ["index …", "✓ index"]
    assert set(reporter.seconds) == {"index"}


def test_in_a_file_long_work_tells_its_progress_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "LINE_EVERY_S", 0.01)
    target, file = console()
    with TerminalReporter(target, lambda name, left: f"{left is not None} then the rest").stage("training/base") as progress:
        progress(640, 20_000, "loss 0.5000")
        wait_for(file, "  training/base: 640 of 20000 loss 0.5000; False then the rest\n")
        progress(1280, 20_000, "[loss] 0.4000")
        wait_for(file, "  training/base: 1280 of 20000 [loss] 0.4000, 0:0")
    assert " left; True then the rest\n" in file.getvalue()


def test_in_a_file_work_that_tells_nothing_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "LINE_EVERY_S", 0.01)
    target, file = console()
    with TerminalReporter(target).stage("labels"):
        wait_for(file, "  labels: at work for 0:00\n")


def test_the_time_left_is_that_of_the_rate_since_the_first_word_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pace = Pace(started=100.0)
    assert pace.line() == "at work for 0:00"
    pace.advance(5_000, 10_000, "images")  # goes on from half
    assert (pace.seconds_left(), pace.line()) == (None, "5000 of 10000 images")
    now[0] += 60
    pace.advance(6_000, 10_000, "images")
    assert (pace.seconds_left(), pace.line()) == (240, "6000 of 10000 images, 4:00 left")
    pace.advance(6_000, 10_000, "loss 0.1, 3:59 left")
    assert pace.line() == "6000 of 10000 loss 0.1, 3:59 left"
    pace.advance(11_000, 10_000, "")
    assert pace.describe() == "0:00 left"


def wait_for(file: io.StringIO, text: str) -> None:
    for _ in range(1000):
        if text in file.getvalue():
            return
        time.sleep(0.01)
    pytest.fail(f"{text!r} is not in {file.getvalue()!r}")


STAGE = """
import sys, time
import glideslope.cli.terminal as terminal
from glideslope.cli.arguments import err
terminal.LINE_EVERY_S = 0.1
with terminal.TerminalReporter(err).stage("training/base") as progress:
    for done in range(1, 9):
        progress(done, 8, "steps")
        time.sleep(0.05)
"""
QUIET = {name: value for name, value in os.environ.items() if name not in ("CI", "TERM", "FORCE_COLOR", "NO_COLOR", "COLORTERM")}


def show_on_terminal(surroundings: dict[str, str]) -> str:
    """What a stage writes to a pseudo-terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", STAGE], stdin=theirs, stdout=theirs, stderr=theirs, env=QUIET | surroundings) as process:
        os.close(theirs)
        told = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux says so when the other side is closed
                break
            if not piece:
                break
            told += piece
        process.wait()
    os.close(ours)
    assert process.returncode == 0
    return told.decode()


@pytest.mark.parametrize("surroundings", [{"TERM": "dumb"}, {"TERM": "xterm-256color", "CI": "true"}, {"TERM": "unknown"}])
def test_a_terminal_that_cannot_draw_over_itself_and_a_log_get_lines(surroundings: dict[str, str]) -> None:
    told = show_on_terminal(surroundings)
    assert re.search(r"training/base: \d of 8 steps, 0:00 left", told)
    assert "\x1b[2K" not in told
    assert "\x1b[1A" not in told


@pytest.mark.parametrize("surroundings", [{}, {"CI": "false"}, {"CI": ""}, {"COLUMNS": "200"}])
def test_a_terminal_that_can_gets_a_bar_with_the_time_left(surroundings: dict[str, str]) -> None:
    told = show_on_terminal({"TERM": "xterm-256color"} | surroundings)
    assert "\x1b[2K" in told
    assert "8/8" in told
    assert re.search(r"steps, 0:00 left", told)


@pytest.mark.parametrize("surroundings", [{}, {"FORCE_COLOR": "1"}, {"FORCE_COLOR": "1", "TERM": "xterm-256color"}, {"NO_COLOR": "1"},
                                          {"TTY_COMPATIBLE": "1", "TERM": "xterm"}])
def test_a_pipe_gets_lines_whatever_colours_are_asked_for(surroundings: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-c", STAGE], capture_output=True, text=True, env=QUIET | surroundings, check=True)
    told = re.sub("\x1b\\[[0-9;]*m", "", done.stderr)
    assert told.startswith("training/base …\n")
    assert re.search(r"\n  training/base: \d of 8 steps, 0:00 left\n", told)
    assert "\x1b" not in told
    assert ("\x1b" in done.stderr) is ("FORCE_COLOR" in surroundings or "TTY_COMPATIBLE" in surroundings)


def test_a_command_without_stages_says_that_it_is_at_work() -> None:
    program = """
import sys, time
import glideslope.cli.terminal as terminal
import glideslope.release.verify
from glideslope.cli.main import main
from glideslope.errors import ReleaseError
terminal.LINE_EVERY_S = 0.05
def slow(*_):
    time.sleep(0.5)
    raise ReleaseError("seen")
sys.modules['glideslope.release.verify'].verify = slow
sys.argv = ["glideslope", "verify", "somewhere"]
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=QUIET, check=False)
    assert done.returncode == 1
    assert "  verify: at work for 0:00\n" in done.stderr
    assert done.stderr.endswith("glideslope: seen\n")


def test_a_stage_that_fails_is_not_ticked_off() -> None:
    target, file = console()
    reporter = TerminalReporter(target)
    with pytest.raises(ZeroDivisionError), reporter.stage("fit"):
        raise ZeroDivisionError
    assert "✓" not in file.getvalue()
    assert reporter.seconds == {}


def test_on_a_terminal_a_bar_is_shown_and_removed() -> None:
    target, file = console(is_terminal=True)
    with TerminalReporter(target).stage("index") as progress:
        progress(3, 7, "images")
    assert "3/7" in file.getvalue()
    assert file.getvalue().rstrip().endswith("s\x1b[0m")


def test_the_summary_tells_what_was_removed_how_sure_that_is_and_what_was_trained() -> None:
    rows = dict(summary_rows(CLAIMS))
    assert rows["images"] == "4,460 seen, 2,001 kept"
    assert rows["person filter"] == ("caught 199 of 200 never-seen positives (99.5 %, at least 98.0 % with 95 % confidence, "
                                     "asked for: 97 %), kept 80.0 % of the other images")
    assert rows["noised clip"] == "7.0 M parameters, 20,000 images seen, loss 1.000 to 0.250"
    assert rows["captions count"] == ("48 of 64 pictures fit their own caption better than the middle one of others (at least 64.5 % with "
                                      "95 % confidence, nothing is asked for)")


def test_the_table_adds_time_and_memory() -> None:
    target, file = console()
    target.print(summary_table(CLAIMS, {"index": 61.0, "labels": 0.2}))
    assert "1:01  (index 1:01)" in file.getvalue()
    assert "GiB" in file.getvalue()

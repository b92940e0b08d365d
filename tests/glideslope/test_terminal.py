import io
from typing import Any

import pytest
from rich.console import Console

from glideslope import terminal
from glideslope.terminal import TerminalReporter, format_seconds, summary_rows, summary_table

CLAIMS: dict[str, Any] = {
    "ledger.num_seen": 4460, "ledger.num_kept": 2001, "recipe.categories": ["person"],
    "filters.person.audit.recall": 0.995, "filters.person.audit.recall_lower_bound": 0.98, "filters.person.audit.num_caught": 199,
    "filters.person.audit.num_positive": 200, "filters.person.audit.kept_share": 0.8,
    **{f"training.{model}.{key}": value for model in ("base", "noised_clip")
       for key, value in {"num_parameters": 7_000_000, "num_images": 20_000, "first_loss": 1.0, "final_loss": 0.25}.items()},
    "evaluation.num_wins": 48, "evaluation.num_pairs": 64, "evaluation.share_lower_bound": 0.645}


def console(*, is_terminal: bool = False) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
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
    monkeypatch.setattr(terminal, "LINE_EVERY_S", 0.0)
    target, file = console()
    with TerminalReporter(target).stage("training/base") as progress:
        progress(640, 20_000, "loss 0.5000")
    assert "  training/base: 640 of 20000 loss 0.5000\n" in file.getvalue()


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
    assert rows["person filter"] == ("caught 199 of 200 never-seen positives (99.5 %, at least 98.0 % with 95 % confidence), "
                                     "kept 80.0 % of the other images")
    assert rows["noised clip"] == "7.0 M parameters, 20,000 images seen, loss 1.000 to 0.250"
    assert rows["captions count"] == ("48 of 64 pictures fit their own caption better than the middle one of others (at least 64.5 % with "
                                      "95 % confidence)")


def test_the_table_adds_time_and_memory() -> None:
    target, file = console()
    target.print(summary_table(CLAIMS, {"index": 61.0, "labels": 0.2}))
    assert "1:01  (index 1:01)" in file.getvalue()
    assert "GiB" in file.getvalue()

"""A release's cards held against its evidence: each line that is missing, stale or edited by hand, with what it should say."""

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from ...model_cards.card import render_card, render_dataset_card
from ..evidence.contents import CARD_PATH, DATASET_CARD_PATH, Release

CARDS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {CARD_PATH: render_card, DATASET_CARD_PATH: render_dataset_card}
MAX_SHOWN = 160


@dataclass(frozen=True)
class Difference:
    """One line of a card that is not what the evidence gives.

    Attributes:
        path: of the card.
        line: its number in the card as it is, from 1; for a missing line, where it belongs.
        found: the line as it is; None: it is missing.
        expected: the line that the evidence gives; None: no such line.
    """

    path: str
    line: int
    found: str | None
    expected: str | None

    def __str__(self) -> str:
        """The difference as a sentence that shows where the lines part."""
        if self.found is None:
            return f"{self.path}: line {self.line}: missing, the evidence gives {_cut(self.expected or '', 0)}"
        if self.expected is None:
            return f"{self.path}: line {self.line}: found {_cut(self.found, 0)}, the evidence gives no such line"
        start = next((i for i, (a, b) in enumerate(zip(self.found, self.expected, strict=False)) if a != b),
                     min(len(self.found), len(self.expected)))
        return f"{self.path}: line {self.line}: found {_cut(self.found, start)}, expected {_cut(self.expected, start)}"

    def to_json(self) -> dict[str, Any]:
        """The difference as plain data."""
        return {"path": self.path, "line": self.line, "found": self.found, "expected": self.expected}


def compare_texts(path: str, found: str, expected: str) -> Iterator[Difference]:
    """The lines in which a card differs from what it should be, in order; a line that was put in shifts no other.

    Args:
        path: names the card.
        found, expected: its text as it is and as the evidence gives it.
    """
    ours, theirs = found.split("\n"), expected.split("\n")
    for kind, start, end, first, last in difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes():
        if kind != "equal":
            for offset, (line, wanted) in enumerate(zip_longest(ours[start:end], theirs[first:last])):
                yield Difference(path, min(start + offset, end) + 1, line, wanted)


def check_cards(release: Release, claims: Mapping[str, Any]) -> list[Difference]:
    """Every line in which a release's cards differ from what claims give.

    Raises:
        ReleaseError: a card is missing or not readable, or a claim is missing.
    """
    return [difference for path, render in CARDS.items()
            for difference in compare_texts(path, release.read(path, bytes.decode), render(claims))]


def find_false_figures(release: Release) -> list[str]:
    """Compare the figures of stages with the stages' records, and draw all others again from the evidence.

    Raises:
        ReleaseError: evidence or a figure is missing or malformed.
    """
    from ..evidence.chain import check_copies
    from ..evidence.figures import find_stale_figures

    return [problem for problem in check_copies(release) if problem.startswith("figures/")] + find_stale_figures(release)


def _cut(line: str, start: int) -> str:
    """A line for a message; of a long one, the part around a place."""
    if len(line) <= MAX_SHOWN:
        return repr(line)
    begin = max(0, min(start - MAX_SHOWN // 4, len(line) - MAX_SHOWN))
    return ("…" if begin else "") + repr(line[begin:begin + MAX_SHOWN]) + ("…" if begin + MAX_SHOWN < len(line) else "")

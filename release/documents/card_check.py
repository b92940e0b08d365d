"""A release's cards held against its evidence: each line that is missing, stale or edited by hand, with what it should say."""

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ...errors import ReleaseError
from ...model_cards.card import render_card, render_dataset_card
from ..claims.claims import claims_of
from ..evidence.contents import CARD_PATH, DATASET_CARD_PATH, Release, open_evidence

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


def check_card(release_dir: Path) -> list[Difference]:
    """Compute a release's claims from its evidence and compare its cards with them, line by line.

    Args:
        release_dir: the release; nothing is written, and its claims.json is not read.

    Returns:
        What differs, in order; nothing when every line is what the evidence gives.

    Raises:
        ReleaseError: evidence or a card is missing or malformed.
    """
    release = open_evidence(release_dir)
    return check_cards(release, claims_of(release))


def check_figures(release_dir: Path) -> list[str]:
    """One sentence for each figure of a release that shows something else than its evidence gives; see `find_false_figures`.

    Raises:
        ReleaseError: evidence or a figure is missing or malformed.
    """
    return find_false_figures(open_evidence(release_dir))


def find_false_figures(release: Release) -> list[str]:
    """Compare the figures of stages with the stages' records, and draw all others again from the evidence.

    Raises:
        ReleaseError: evidence or a figure is missing or malformed.
    """
    from ..evidence.chain import check_copies
    from ..evidence.figures import find_stale_figures

    return [problem for problem in check_copies(release) if problem.startswith("figures/")] + find_stale_figures(release)


def render_again(release_dir: Path, *, of_data: bool = False) -> str:
    """The model card, or the dataset card, as the evidence gives it now."""
    return CARDS[DATASET_CARD_PATH if of_data else CARD_PATH](claims_of(open_evidence(release_dir)))


def card_page(release_dir: Path, *, of_data: bool = False) -> str:
    """A release's card as one HTML page that needs nothing else: its text as it is, its figures inside.

    Raises:
        ReleaseError: the card or one of its figures is missing.
    """
    from ...model_cards.page import render_page

    path = DATASET_CARD_PATH if of_data else CARD_PATH
    release = open_evidence(release_dir)

    def read_figure(name: str) -> bytes:
        if name not in release.figures:
            raise ReleaseError(f"{path}: shows figures/{name}.png, which is missing; pack the release again")
        return release.path(f"figures/{name}.png").read_bytes()

    return render_page(release.read(path, bytes.decode), read_figure)


def _cut(line: str, start: int) -> str:
    """A line for a message; of a long one, the part around a place."""
    if len(line) <= MAX_SHOWN:
        return repr(line)
    begin = max(0, min(start - MAX_SHOWN // 4, len(line) - MAX_SHOWN))
    return ("…" if begin else "") + repr(line[begin:begin + MAX_SHOWN]) + ("…" if begin + MAX_SHOWN < len(line) else "")

"""A release's cards from outside: held against the evidence, rendered again, or shown as a page."""

from pathlib import Path

from ...errors import ReleaseError
from ..claims.claims import claims_of
from ..evidence.contents import CARD_PATH, DATASET_CARD_PATH, open_evidence
from .card_check import CARDS, Difference, check_cards, find_false_figures


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

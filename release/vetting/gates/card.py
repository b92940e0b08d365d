"""The gate on the cards: claims, figures and text are what the evidence gives, and the Hub can read what it reads of them."""

from ....errors import ReleaseError
from ...claims.claims import claims_of
from ...documents.card_check import check_cards, find_false_figures
from ...evidence.comparison import compare_claims, shorten
from ...evidence.contents import CARD_PATH, Release
from ...evidence.packing import packing_facts, read_packing
from ..metadata import find_bad_metadata
from .gate import Asked, Gate


def check_claims(release: Release) -> list[str]:
    """Each claim is what the evidence gives."""
    return compare_claims(release.claims, claims_of(release))


def check_card(release: Release) -> list[str]:
    """The cards are what their claims give, letter by letter; where they are not, whether another version may have worded them."""
    try:
        problems = shorten([str(difference) for difference in check_cards(release, release.claims)])
    except ReleaseError as error:
        problems = [str(error)]
    packer, here = read_packing(release), packing_facts()
    if problems and packer != here:
        told = "differ" if compare_claims(release.claims, claims_of(release)) else "agree"
        problems.insert(0, f"{CARD_PATH}: packed with other card templates (glideslope {packer['glideslope']}, you run {here['glideslope']}): "
                           f"the numbers {told}; verify with glideslope {packer['glideslope']} for the wording")
    return problems


def find_false_or_unreadable(release: Release, asked: Asked) -> list[str]:
    """Draw the figures again, and read the headers as the Hub does. `verify` draws the figures itself, once all else is sound."""
    return find_false_figures(release) + find_bad_metadata(release)


CARD_COMPLETE = Gate("card complete", "a claim or figure is not what the evidence gives, a card not what the claims give, or the Hub could "
                     "not read its header",
                     checks={"claims": check_claims, "card": check_card}, demand=find_false_or_unreadable, can_be_left_out=False)

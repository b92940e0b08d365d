"""Who packed a release: which glideslope, with which card templates. Another version may put the same numbers in other words."""

import re
from typing import Any

from ... import __version__
from ...errors import ReleaseError
from ...model_cards.card import templates_sha256
from ...store.digests import DIGEST_PATTERN
from ...store.strict_json import load_object
from .contents import Release

PACKING_PATH = "evidence/packing.json"
PACKING_FORMAT = "glideslope.packing/1"
VERSION = re.compile(r"[0-9][A-Za-z0-9.+!_-]{0,63}")  # the card tells readers to install it: no option or address may follow


def packing_facts() -> dict[str, Any]:
    """What this installation writes when it packs."""
    return {"format": PACKING_FORMAT, "glideslope": __version__, "card_templates": templates_sha256()}


def read_packing(release: Release) -> dict[str, Any]:
    """What the installation that packed a release wrote.

    Raises:
        ReleaseError: missing or malformed.
    """
    facts = release.read(PACKING_PATH, load_object)
    is_whole = set(facts) == set(packing_facts()) and facts["format"] == PACKING_FORMAT and all(isinstance(one, str) for one in facts.values())
    if not is_whole or not VERSION.fullmatch(facts["glideslope"]) or not DIGEST_PATTERN.fullmatch(facts["card_templates"]):
        raise ReleaseError(f"{PACKING_PATH}: is malformed; pack the release again")
    return facts


def packing_claims(release: Release) -> dict[str, Any]:
    """The version that packed the release, for the cards."""
    return {"packing.glideslope": read_packing(release)["glideslope"]}

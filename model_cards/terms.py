"""What the card's header says of use: the terms that the Hub shows before access to a gated copy, the licence, the data on the Hub."""

from collections.abc import Callable
from typing import Any

Lookup = Callable[..., Any]

AGREEMENT = "I have read these terms and use the weights by them"


def gated_fields(claim: Lookup) -> dict[str, Any]:
    """The texts of a gated repository, from USE_POLICY.md. They take effect only where the repository is set to gated.

    Args:
        claim: gives a claim's value by its id.

    Returns:
        `extra_gated_heading`, `extra_gated_prompt` (Markdown: the terms without their title), `extra_gated_fields` (one box to tick; nothing
        is asked about a person) and `extra_gated_button_content`.
    """
    _, _, terms = claim("terms.text").strip().partition("\n")
    return {"extra_gated_heading": f"Terms of use: {claim('release.title')}", "extra_gated_prompt": terms.strip(),
            "extra_gated_fields": {AGREEMENT: "checkbox"}, "extra_gated_button_content": "Agree"}


def licence_fields(claim: Lookup) -> dict[str, Any]:
    """`license`, and for one that the Hub does not know (`other`) the name and where its text lies."""
    known = {"license": claim("release.license")}
    return known | ({"license_name": "see-license", "license_link": "LICENSE"} if known["license"] == "other" else {})


def data_fields(claim: Lookup) -> dict[str, Any]:
    """`datasets`, where the recipe names a data set of the Hub and its revision."""
    name = claim("source.dataset_id")
    return {} if name is None else {"datasets": [name]}

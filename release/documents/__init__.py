"""Documents of a release that machines read: environment, ML-BOM, Croissant, evaluation results, terms of use.

Each is a function of the evidence and of the claims computed from it: equal evidence gives equal bytes, and `verify` writes each again.
"""

from collections.abc import Mapping
from typing import Any

from ..evidence.contents import Release
from .bom import BOM_PATH, bom_text
from .croissant import CROISSANT_PATH, croissant_text
from .environment import ENVIRONMENT_PATH, environment_text
from .eval_results import EVAL_RESULTS_PATH, eval_results_text

DOCUMENT_PATHS = (ENVIRONMENT_PATH, BOM_PATH, CROISSANT_PATH, EVAL_RESULTS_PATH)


def documents_of(release: Release, claims: Mapping[str, Any]) -> dict[str, str]:
    """The documents of a release.

    Args:
        release: its evidence and weights.
        claims: computed from that evidence by `claims.claims_of`.

    Returns:
        path in the release -> text, for each of `DOCUMENT_PATHS`.

    Raises:
        ReleaseError: evidence or a claim is missing.
    """
    return {ENVIRONMENT_PATH: environment_text(release), BOM_PATH: bom_text(release, claims),
            CROISSANT_PATH: croissant_text(release, claims), EVAL_RESULTS_PATH: eval_results_text(claims)}

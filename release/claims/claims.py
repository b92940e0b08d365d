"""Every number of the cards, computed from the raw evidence in a release.

Nothing here reads what the release claims of itself: counts come from the ledger, recalls from the scores, losses
from the metrics, parameters from the headers of the weight files. `verify` computes the claims again and compares.
What each topic says lies beside: `data`, `filters`, `audits`, `mutations`, `training`, `evaluation`, `components`.
"""


from ..documents.environment import energy_claims
from ..documents.terms_of_use import terms_claims
from ..evidence.companions import companion_claims
from ..evidence.comparison import Claims
from ..evidence.contents import Release
from ..evidence.packing import packing_claims
from .audits import audit_claims
from .components import component_claims
from .data import balance_claims, ledger_claims, recipe_claims, unsafe_claims
from .evaluation import evaluation_claims
from .filters import filter_claims
from .mutations import mutation_claims
from .training import cost_claims, training_claims


def claims_of(release: Release) -> Claims:
    """Compute every claim of a release's cards; its claims.json, README.md and DATASET_CARD.md are not read.

    Returns:
        claim id, parts joined by dots -> value, plain data.

    Raises:
        ReleaseError: evidence is missing, malformed, or contradicts itself.
    """
    claims = recipe_claims(release) | unsafe_claims(release) | ledger_claims(release) | balance_claims(release)
    for category in release.categories:
        claims |= filter_claims(release, category) | audit_claims(release, category) | mutation_claims(release, category.name)
    for network in release.trained_networks:
        claims |= training_claims(release, network)
    claims |= evaluation_claims(release) | component_claims(release) | companion_claims(release) | cost_claims(release)
    claims |= terms_claims(release) | energy_claims(release) | packing_claims(release)
    claims |= {f"provenance.{stage}": record.digest for stage, record in release.records.items()}
    return claims | {"stages": sorted(release.records), "figures": release.figures}

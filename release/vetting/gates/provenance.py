"""The gate on the chain from the released weights back to the inputs."""

from ...claims.mutation_checks import check_mutations
from ...evidence.chain import (
    check_consumed,
    check_copies,
    check_evaluation,
    check_label_roles,
    check_ledger,
    check_records,
    check_settings,
    check_summaries,
    check_weights,
)
from .gate import Gate

PROVENANCE = Gate(
    "provenance chain", "a stage used something else than lies in the release, or training saw other images than curation kept",
    checks={"records": check_records, "copied files": check_copies, "origin of the weights": check_weights, "settings": check_settings,
            "label roles": check_label_roles, "consumed images": check_consumed, "training summaries": check_summaries,
            "evaluation": check_evaluation, "ledger": check_ledger, "mutations": check_mutations})

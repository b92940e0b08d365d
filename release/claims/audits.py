"""The audits in a release, and what the card says of them, measured from their labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...config import Category
from ...data_filter.audits.plan import Plan, measure_audit
from ...errors import ReleaseError
from ...records import Record
from ..contents import Release
from ..layout import parse_json_object
from ..plan import audit_stages


@dataclass(frozen=True)
class ReleasedAudit:
    """An audit as a release holds it.

    Attributes:
        stage: `audits/<category>/<id>`.
        record: of the stage.
        commitment, sample, report: the files' content.
        plan: of the commitment.
    """

    stage: str
    record: Record
    commitment: Mapping[str, Any]
    sample: Mapping[str, Any]
    report: Mapping[str, Any]
    plan: Plan

    @property
    def id(self) -> str:
        """Its id: category and number."""
        return self.stage.split("/")[-1]

    def measure(self) -> dict[str, Any]:
        """What its labels prove."""
        return measure_audit(self.plan, self.report["labels"])


def read_audits(release: Release, category: str) -> list[ReleasedAudit]:
    """The audits of a category, in order.

    Raises:
        ReleaseError: one is missing or malformed.
    """
    found = []
    for stage in audit_stages(release.records, category):
        commitment, sample, report = (release.read(f"evidence/{stage}/{name}.json", parse_json_object)
                                      for name in ("commitment", "sample", "audit"))
        try:
            plan = Plan.from_json(commitment["plan"])
        except (KeyError, TypeError, ValueError) as error:
            raise ReleaseError(f"evidence/{stage}/commitment.json: malformed plan ({error!r}); pack the release again") from error
        found.append(ReleasedAudit(stage, release.record(stage), commitment, sample, report, plan))
    return found


def audit_claims(release: Release, category: Category) -> dict[str, Any]:
    """The claims about a category's audits, measured from their labels; the weakest audit speaks for all."""
    prefix = f"audits.{category.name}"
    rows: list[dict[str, Any]] = []
    for audit in read_audits(release, category.name):
        plan, result = audit.plan, audit.measure()
        bound = result["rate_upper_bound"]
        rows.append({"id": audit.id, "claim": plan.claim, "confidence": plan.confidence, "design": plan.design, "stopping": plan.stopping,
                     "num_kept": plan.num_kept, "num_images": plan.num_images, "num_unknown": plan.num_unknown,
                     "rate_upper_bound": 1.0 if bound is None else bound,
                     **{name: result[name] for name in ("num_drawn", "num_labelled", "num_positive", "num_ambiguous", "status")},
                     "max_positive_images": plan.num_kept if bound is None else result["max_positive_images"] + plan.num_unknown})
    claims = {f"{prefix}.list": rows, f"filters.{category.name}.limits.max_leak_rate": category.limits.max_leak_rate}
    if rows:
        worst = max(rows, key=lambda row: row["rate_upper_bound"])
        claims |= {f"{prefix}.{name}": worst[name] for name in ("rate_upper_bound", "max_positive_images")}
    return claims

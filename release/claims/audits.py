"""The audits in a release, and what the card says of them, measured from their labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...data_filter.audits.plan import FORMAT, Plan, bind_seed, measure_audit
from ...data_filter.audits.series import OtherAudit, count_elsewhere, number_of, spend_confidence
from ...errors import ReleaseError
from ...recipe.filters import Category
from ...store.records import Record
from ...store.strict_json import load_object
from ..evidence.comparison import show
from ..evidence.contents import Release
from ..evidence.plan import audit_stages

MIN_CONFIDENCE = 0.95


@dataclass(frozen=True)
class ReleasedAudit:
    """An audit as a release holds it.

    Attributes:
        stage: `audits/<category>/<id>`.
        record: of the stage.
        commitment, sample, report: the files' content.
        plan: of the commitment.
        others: the audits of the same category and other kept sets, as it tells of them.
    """

    stage: str
    record: Record
    commitment: Mapping[str, Any]
    sample: Mapping[str, Any]
    report: Mapping[str, Any]
    plan: Plan
    others: tuple[OtherAudit, ...]

    @property
    def id(self) -> str:
        """Its id: category and number."""
        return self.stage.split("/")[-1]

    @property
    def number(self) -> int:
        """Which audit of its category in the run it is, from 1."""
        return number_of(self.commitment)

    @property
    def num_elsewhere(self) -> int:
        """How many audits of other kept sets came before it."""
        return count_elsewhere(self.commitment["earlier"], self.commitment["ledger_sha256"])

    @property
    def required_confidence(self) -> float:
        """The least confidence on which a release may rest: more for a later audit, as `data_filter.audits.series` says."""
        return spend_confidence(MIN_CONFIDENCE, self.num_elsewhere)

    @property
    def draw_key(self) -> bytes:
        """What its images are drawn with."""
        return bind_seed(self.sample["seed"], self.commitment["population"]["sha256"])

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
        commitment, sample, report = (release.read(f"evidence/{stage}/{name}.json", load_object)
                                      for name in ("commitment", "sample", "audit"))
        if formats := {show(value.get("format")) for value in (commitment, sample, report)} - {show(FORMAT)}:
            raise ReleaseError(f"evidence/{stage}: format is {sorted(formats)[0]:.60}, expected {show(FORMAT)}: other versions draw otherwise; "
                               "audit and pack with one version of glideslope")
        try:
            plan = Plan.from_json(commitment["plan"])
        except (KeyError, TypeError, ValueError) as error:
            raise ReleaseError(f"evidence/{stage}/commitment.json: malformed plan ({error!r}); pack the release again") from error
        try:
            others = tuple(OtherAudit.from_json(other) for other in report["others"])
        except (KeyError, TypeError, ValueError) as error:
            raise ReleaseError(f"evidence/{stage}/audit.json: malformed account of other audits ({error!r}); pack the release again") from error
        found.append(ReleasedAudit(stage, release.record(stage), commitment, sample, report, plan, others))
    return found


def audit_claims(release: Release, category: Category) -> dict[str, Any]:
    """The claims about a category's audits, measured from their labels; the weakest audit speaks for all."""
    prefix = f"audits.{category.name}"
    rows: list[dict[str, Any]] = []
    audits = read_audits(release, category.name)
    for audit in audits:
        plan, result = audit.plan, audit.measure()
        bound = result["rate_upper_bound"]
        rows.append({"id": audit.id, "number": audit.number, "num_elsewhere": audit.num_elsewhere, "claim": plan.claim,
                     "confidence": plan.confidence, "design": plan.design, "stopping": plan.stopping,
                     "num_kept": plan.num_kept, "num_images": plan.num_images, "num_unknown": plan.num_unknown,
                     "rate_upper_bound": 1.0 if bound is None else bound,
                     **{name: result[name] for name in ("num_drawn", "num_labelled", "num_positive", "num_ambiguous", "status")},
                     "max_positive_images": plan.num_kept if bound is None else result["max_positive_images"] + plan.num_unknown})
    others = audits[-1].others if audits else ()
    claims = {f"{prefix}.list": rows, f"{prefix}.others": [other.summarize() for other in others],
              f"{prefix}.are_confident": all(audit.plan.confidence >= audit.required_confidence for audit in audits)}
    if rows:
        worst = max(rows, key=lambda row: row["rate_upper_bound"])
        claims |= {f"{prefix}.{name}": worst[name] for name in ("rate_upper_bound", "max_positive_images")}
    return claims

"""What an audit is drawn from: the images that the filters kept, and the plan for a claim about them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import FilterError, StageError
from ...recipe.filters import Category
from ...store.digests import sha256_json
from ...store.records import Record
from ...store.run_layout import RunLayout
from ...store.vocabulary import FITTING_ROLES, Decision
from ...store.whole_files import read_json
from ..deciding.ledger import Ledger, open_ledger
from ..deciding.threshold import FILTER_NAME, SCORES_NAME
from ..index.parquet import read_table
from ..index.read import read_index
from ..labels.concepts import find_fitted
from ..labels.store import read_labels
from .plan import (
    Candidate,
    Design,
    Plan,
    Stopping,
    check_claim,
    digest_population,
    plan_simple,
    plan_strata,
    required_labels,
)
from .series import spend_confidence

DEFAULT_CLAIM = 0.001
TABLE_CLAIMS = (0.01, 0.001, 0.0001)
TABLE_HITS = (0, 1, 2, 3)
STOPPINGS: tuple[Stopping, ...] = ("anytime", "fixed")
DESIGNS: tuple[Design, ...] = ("simple", "stratified")


@dataclass(frozen=True)
class AuditRequest:
    """What somebody asks of an audit.

    Attributes:
        category: name of the category; None: every category, for reports alone.
        claim: at most this share of the kept images shows the category; None: what is demanded of the category, or 0.001.
        num: images to label; None: as many as prove the claim when none is positive.
        seed: text that the seed is made of, new for each audit; None: the operating system's random numbers.
        confidence: of the statement, where it is the first; one after audits of other kept sets is held to more
            (`series.spend_confidence`).
        design: `simple` or `stratified`, as in `plan.Plan`.
        fixed: fix the number of labels; no statement before all are there.
        draw: draw a sample even if nothing else asks for one.
        again: draw a new sample although one was drawn from the same images.
        blur: blur the pictures on the contact sheets.
        demanded: category -> the leak that the policy allows.

    Raises:
        FilterError: a design that there is not.
    """

    category: str | None = None
    claim: float | None = None
    num: int | None = None
    seed: str | None = None
    confidence: float = 0.95
    design: str = "simple"
    fixed: bool = False
    draw: bool = False
    again: bool = False
    blur: bool = False
    demanded: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a design that there is not."""
        if self.design not in DESIGNS:
            raise FilterError(f"audit: design is {self.design!r}, expected {' or '.join(DESIGNS)}")
        if self.design == "stratified" and self.fixed:
            raise FilterError("audit: a stratified sample has no fixed size; leave out one of --design stratified and --fixed")

    @property
    def draws(self) -> bool:
        """Whether a sample is wanted."""
        return self.draw or self.again or self.claim is not None or self.num is not None or self.seed is not None

    def claim_of(self, category: str) -> float:
        """What an audit of a category is to show. A policy that allows any leak asks for an audit, but for no figure."""
        if self.claim is not None:
            return self.claim
        demanded = self.demanded.get(category, DEFAULT_CLAIM)
        return demanded if 0 < demanded < 1 else DEFAULT_CLAIM

    @property
    def stopping(self) -> Stopping:
        """The rule of stopping."""
        return "fixed" if self.fixed else "anytime"


@dataclass(frozen=True)
class Kept:
    """What the filters kept, as an audit of one category sees it; shards are read again each time.

    Attributes:
        category: the category.
        layout: of the run.
        ledger: its ledger.
        fitted: concepts with train or calibrate labels of the category: they can't be audited.
        negative: keys whose own train or calibrate label says that they do not count.
        threshold: of the category's filter.
    """

    category: Category
    layout: RunLayout
    ledger: Ledger
    fitted: frozenset[str]
    negative: frozenset[str]
    threshold: float

    @property
    def root(self) -> str:
        """One digest of the whole ledger."""
        return digest_ledger(self.ledger.record)

    def rows(self) -> Iterator[tuple[Candidate, bool]]:
        """Each kept image, in the ledger's order, and whether it may be drawn."""
        score = f"score_{self.category.name}"
        for name, index in read_index(self.layout.index, columns=["key", "concept"]):
            table = self.ledger.read(name, columns=["key", "sha256", "decision", score])
            if table["key"].to_pylist() != index["key"].to_pylist():
                raise StageError(f"{self.ledger.path(name)}: other inputs than in the index; curate again")
            columns = (table[column].to_pylist() for column in ("key", "sha256", "decision", score))
            for key, sha256, decision, value, concept in zip(*columns, index["concept"].to_pylist(), strict=True):
                if decision == Decision.KEEP:
                    yield Candidate(key, sha256, value), concept not in self.fitted

    def candidates(self) -> Iterator[Candidate]:
        """The images that may be drawn."""
        return (candidate for candidate, is_free in self.rows() if is_free)


def digest_ledger(curated: Record) -> str:
    """One digest of all files of a ledger, from the record of the stage that wrote them."""
    return sha256_json([[entry.path, entry.sha256] for entry in curated.outputs.files if entry.path.startswith("ledger/")])


def open_kept(category: Category, layout: RunLayout) -> Kept:
    """Look at what a category's filter kept.

    Raises:
        StageError: the data is not curated yet, or its files were changed.
    """
    ledger = open_ledger(layout.curated)
    fitted = find_fitted(read_labels(layout.labels), category.name, layout.index)
    scores = read_table(layout.filter(category.name) / SCORES_NAME, columns=["key", "label", "role"])
    rows = zip(scores["key"].to_pylist(), scores["label"].to_pylist(), scores["role"].to_pylist(), strict=True)
    negative = frozenset(key for key, label, role in rows if label == 0 and role in FITTING_ROLES)
    threshold = read_json(layout.filter(category.name) / FILTER_NAME)["threshold"]
    return Kept(category, layout, ledger, fitted, negative, threshold)


def plan_audit(kept: Kept, request: AuditRequest, *, num_elsewhere: int = 0) -> tuple[Plan, dict[str, Any]]:
    """The plan of an audit, and what it commits to of the population: digest, and which kept images can't be drawn.

    Args:
        kept: what to draw from.
        request: what is asked for.
        num_elsewhere: earlier audits of other kept sets.

    Raises:
        FilterError: a claim out of range, or nothing that could be drawn.
    """
    claim = request.claim_of(kept.category.name)
    check_claim(claim, request.confidence)
    excluded: list[str] = []
    scores: list[float] = []

    def free() -> Iterator[Candidate]:
        """The images that may be drawn; counts them and the others on the way."""
        for candidate, is_free in kept.rows():
            if is_free:
                scores.append(candidate.score)
                yield candidate
            else:
                excluded.append(candidate.key)

    digest = digest_population(free())
    if not scores:
        raise FilterError(f"audit of {kept.category.name}: there is nothing to draw from: all {len(excluded)} kept images show concepts whose "
                          "labels fitted the filter or set its threshold; add images that nobody has labelled, or label fewer")
    num_unknown = sum(key not in kept.negative for key in excluded)
    design: Design = "stratified" if request.design == "stratified" else "simple"
    strata = (plan_simple(claim, len(scores)) if design == "simple" else
              plan_strata(claim, np.array(scores, dtype=np.float32), predict_from(kept)))
    confidence = spend_confidence(request.confidence, num_elsewhere)
    plan = Plan(claim, confidence, design, request.stopping, len(scores) + len(excluded), num_unknown, strata)
    return plan, {"sha256": digest, "excluded": excluded}


def predict_from(kept: Kept) -> list[tuple[float, int]]:
    """Score and label of images below the threshold that had no part in fitting."""
    table = read_table(kept.layout.filter(kept.category.name) / SCORES_NAME, columns=["score", "label", "in_training"])
    rows = zip(table["score"].to_pylist(), table["label"].to_pylist(), table["in_training"].to_pylist(), strict=True)
    return [(score, label) for score, label, in_training in rows if score < kept.threshold and not in_training]


def tabulate_plan(kept: Kept, request: AuditRequest) -> dict[str, Any]:
    """How many labels prove which claims: plain data for a table."""
    plan, _ = plan_audit(kept, request)
    claims = sorted({*TABLE_CLAIMS, plan.claim}, reverse=True)
    rows = []
    for claim in claims:
        for stopping in STOPPINGS:
            one = Plan(claim, plan.confidence, "simple", stopping, plan.num_kept, plan.num_unknown, plan_simple(claim, plan.num_images))
            rows.append({"claim": claim, "stopping": stopping, "num_labels": [required_labels(one, num_hits=hits) for hits in TABLE_HITS]})
    return {"category": kept.category.name, "claim": plan.claim, "num_kept": plan.num_kept, "num_images": plan.num_images,
            "num_unknown": plan.num_unknown, "confidence": plan.confidence, "num_hits": list(TABLE_HITS), "rows": rows}


def choose_number(plan: Plan, num: int | None) -> int:
    """How many images to draw.

    Raises:
        FilterError: none at all, more than there are, or a claim that can't be proved whatever is drawn.
    """
    needed = required_labels(plan)
    if num is None:
        if needed is None:
            raise FilterError(f"audit: the claim of at most {plan.claim:.4%} can't be shown: {plan.num_unknown} of {plan.num_kept} kept images "
                              "can't be audited, because labels of their concept fitted the filter, and have no label of their own, so they "
                              "count as positive; label them, or claim less")
        return max(1, needed)
    if not 1 <= num <= plan.num_images:
        raise FilterError(f"audit: {num} images are asked for, expected 1 to {plan.num_images}, as many as may be drawn")
    return num

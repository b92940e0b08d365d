"""An audit as pure functions: its plan, its sample from a seed, and what its labels prove. No files, so that anyone can do it again.

The sample is drawn over digests. Each kept image that may be audited gets the rank SHA-256(draw key, SHA-256 of the image, key), where
the draw key is SHA-256(seed, digest of the population); within a stratum images are drawn by rising rank. The seed's digest is published
together with the population's before the seed is known to anybody else, so that a third party can draw again and see that no image was
passed over. Without the population in the draw key a seed that is used again after curating would draw the very images that were not
dropped, with the labels that kept them: a sample selected on its outcome, for which no bound holds.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ...errors import FilterError
from ...store.digests import canonical_json, sha256_bytes
from ..deciding.statistics import count_within, finite_lower_bound, finite_upper_bound, required_trials, search_trials
from .double_labels import DoubleLabels
from .strata import Stratum, anytime_lower_bound, anytime_upper_bound, estimate_total, required_anytime_trials, schedule_strata
from .tilted import LabelledStratum, tilted_upper_bound

FORMAT = "glideslope.audit/2"  # of an audit's files
Design = Literal["simple", "stratified"]
Stopping = Literal["anytime", "fixed"]
STRATUM_EDGES = (0.8, 0.95, 0.99)
MIN_STRATUM = 20
RATE_PER_CLAIM = 1 / 8  # a filter worth auditing leaves far less than is claimed; shifts how fast a bound falls, never whether it holds
MAX_RATE = 0.5
MIN_CLAIM = 1e-6


@dataclass(frozen=True)
class Candidate:
    """A kept image that may be drawn: its key, the SHA-256 of its bytes, and the filter's score for it."""

    key: str
    sha256: str
    score: float


@dataclass(frozen=True)
class PlannedStratum:
    """A part of the population by score.

    Attributes:
        num_images: how many there are.
        from_score: the smallest score that belongs to it; None: no limit.
        expected_rate: share of positives that was expected before labelling, from earlier labels.
    """

    num_images: int
    from_score: float | None
    expected_rate: float

    def to_json(self) -> dict[str, Any]:
        """The stratum as plain data."""
        return {"num_images": self.num_images, "from_score": self.from_score, "expected_rate": self.expected_rate}


@dataclass(frozen=True)
class Plan:
    """What an audit commits itself to before anything is drawn.

    Attributes:
        claim: at most this share of all kept images shows the category.
        confidence: of the statement.
        design: `simple` (every image with the same chance) or `stratified` (more of those with a high score).
        stopping: `anytime` (the bound holds however often one looks, and the sample may be extended) or `fixed` (a smaller
            sample, and no statement before all of it is labelled).
        num_kept: images that the filter kept.
        num_unknown: of these, images that can't be audited and have no label of their own: they count as positive.
        strata: by rising score; the rest of the kept images can't be audited and has negative labels.
    """

    claim: float
    confidence: float
    design: Design
    stopping: Stopping
    num_kept: int
    num_unknown: int
    strata: tuple[PlannedStratum, ...]

    @property
    def num_images(self) -> int:
        """Images that may be drawn."""
        return sum(stratum.num_images for stratum in self.strata)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data."""
        return {"claim": self.claim, "confidence": self.confidence, "design": self.design, "stopping": self.stopping,
                "num_kept": self.num_kept, "num_unknown": self.num_unknown, "strata": [stratum.to_json() for stratum in self.strata]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Plan":
        """Read a plan; KeyError, TypeError or ValueError when it is malformed."""
        strata = tuple(PlannedStratum(part["num_images"], part["from_score"], part["expected_rate"]) for part in value["strata"])
        plan = cls(value["claim"], value["confidence"], value["design"], value["stopping"], value["num_kept"], value["num_unknown"], strata)
        if plan.design not in get_args(Design) or plan.stopping not in get_args(Stopping) or not strata:
            raise ValueError(f"unknown design {plan.design!r} or stopping rule {plan.stopping!r}, or no stratum")
        return plan

    def place(self, score: float) -> int:
        """The stratum of a score."""
        return sum(1 for stratum in self.strata if stratum.from_score is not None and score >= stratum.from_score)

    def order(self, num: int) -> list[int]:
        """From which stratum each of the first `num` images is drawn."""
        return list(islice(schedule_strata([part.num_images for part in self.strata], [part.expected_rate for part in self.strata]), num))


def check_claim(claim: float, confidence: float) -> None:
    """Refuse a claim or confidence that no audit can be about.

    Raises:
        FilterError: out of range.
    """
    if not MIN_CLAIM <= claim <= MAX_RATE:
        raise FilterError(f"claim is {claim}, expected a share between {MIN_CLAIM} and {MAX_RATE}: 0.001 claims that at most one kept image "
                          "in a thousand shows the category")
    if not 0.5 <= confidence <= 0.9999:
        raise FilterError(f"confidence is {confidence}, expected a number between 0.5 and 0.9999, for example 0.95")


def plan_simple(claim: float, num_images: int) -> tuple[PlannedStratum, ...]:
    """The one stratum of a plain random sample."""
    return (PlannedStratum(num_images, None, claim * RATE_PER_CLAIM),)


def plan_strata(claim: float, scores: NDArray[np.float32], labelled: Sequence[tuple[float, int]]) -> tuple[PlannedStratum, ...]:
    """Strata by score: the highest scores, where leaks are likeliest, in small strata of their own.

    Args:
        claim: the share that is to be shown.
        scores: float32 (N,) of all images that may be drawn.
        labelled: score and label of images that had no part in fitting, to predict each stratum's rate of positives. Where
            there is no positive among them, the rate is taken to be small beside the claim.
    """
    ordered = np.sort(scores)
    cuts = sorted({float(ordered[int(edge * len(ordered))]) for edge in STRATUM_EDGES})
    found: list[PlannedStratum] = []
    low: float | None = None
    for high in [*cuts, None]:
        inside = (scores >= (-np.inf if low is None else low)) & (scores < (np.inf if high is None else high))
        is_last = high is None
        rest = len(scores) if high is None else int((scores >= high).sum())
        if not is_last and (inside.sum() < MIN_STRATUM or rest < MIN_STRATUM):
            continue
        labels = [label for score, label in labelled if (low is None or score >= low) and (high is None or score < high)]
        floor = claim * RATE_PER_CLAIM
        rate = min(MAX_RATE, max(floor, sum(labels) / len(labels))) if any(labels) else min(floor, 0.5 / (len(labels) + 1))
        found.append(PlannedStratum(int(inside.sum()), low, rate))
        low = high
    return tuple(found)


def digest_population(candidates: Iterable[Candidate]) -> str:
    """Digest of which images may be drawn, in the order of the ledger."""
    digest = hashlib.sha256()
    for candidate in candidates:
        digest.update((canonical_json([candidate.sha256, candidate.key]) + "\n").encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def hash_text(text: str) -> str:
    """The seed that a text stands for: 64 hexadecimal digits."""
    return sha256_bytes(text.encode("utf-8", "surrogatepass"))


def digest_seed(seed: str) -> str:
    """What is published of a seed before it is revealed."""
    return sha256_bytes(bytes.fromhex(seed))


def bind_seed(seed: str, population_sha256: str) -> bytes:
    """The draw key: a seed, good for one population alone.

    Args:
        seed: 64 hexadecimal digits.
        population_sha256: of `digest_population`.
    """
    return hashlib.sha256(bytes.fromhex(seed) + bytes.fromhex(population_sha256)).digest()


def rank(draw_key: bytes, candidate: Candidate) -> int:
    """Where an image stands in the draw; nothing but the draw key decides."""
    data = draw_key + bytes.fromhex(candidate.sha256) + candidate.key.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(data).digest(), "big")


def redraw(candidates: Iterable[Candidate], plan: Plan, draw_key: bytes, num: int) -> list[Candidate]:
    """The first `num` images of an audit, in their order: the same for everybody who knows the seed and the population.

    Args:
        candidates: all images that may be drawn, in any order; read once, only the drawn ones are held.
        plan: the audit's plan.
        draw_key: seed and population, from `bind_seed`.
        num: how many, at most as many as there are.
    """
    order = plan.order(num)
    counts = Counter(order)
    heaps: list[list[tuple[int, str, Candidate]]] = [[] for _ in plan.strata]
    for candidate in candidates:
        stratum = plan.place(candidate.score)
        heap, entry = heaps[stratum], (-rank(draw_key, candidate), candidate.key, candidate)
        if len(heap) < counts[stratum]:
            heapq.heappush(heap, entry)
        elif heap and entry > heap[0]:
            heapq.heapreplace(heap, entry)
    drawn = [iter(candidate for _, _, candidate in sorted(heap, reverse=True)) for heap in heaps]
    return [next(drawn[stratum]) for stratum in order]


def required_labels(plan: Plan, *, num_hits: int = 0) -> int | None:
    """How many labels prove a plan's claim when so many of them are positive (none, for a stratified plan); None: it can't be proved."""
    allowed = count_allowed(plan)
    if allowed < num_hits:
        return None
    if allowed >= plan.num_images:
        return num_hits
    if plan.design == "stratified":
        return count_more(plan, [], allowed)
    share = (allowed + 0.5) / plan.num_images
    if plan.stopping == "fixed":
        return required_trials(share, num_hits=num_hits, num_items=plan.num_images, confidence=plan.confidence)
    return required_anytime_trials(share, plan.num_images, num_hits=num_hits, expected_rate=plan.claim * RATE_PER_CLAIM,
                                   confidence=plan.confidence)


def count_allowed(plan: Plan) -> int:
    """How many positives among the images that may be drawn agree with the claim; negative when the unknown ones alone are too many."""
    return count_within(plan.claim, plan.num_kept) - plan.num_unknown


def measure_audit(plan: Plan, labels: Sequence[Sequence[int]]) -> dict[str, Any]:
    """What the labels of a sample prove.

    Args:
        plan: the audit's plan.
        labels: for each drawn image, in the drawn order, everybody's label; none: not labelled yet. Only the labels before
            the first gap count. An image counts as positive as soon as one person says so.

    Returns:
        Plain data: counts; `estimate` (unbiased, share of the images that could be drawn); `rate_upper_bound` and
        `rate_lower_bound` (shares of all kept images; null where nothing is proved yet); `status`: `met`, `refuted`, `open`
        (labels are missing) or `not shown` (all are there and prove too little); `may_stop`; `num_more`, the labels it still
        takes when none is positive (null: can't be met any more by going on).
    """
    judged = [max(given) for given in islice(labels, count_labelled(labels))]
    num_drawn, num_labelled = len(labels), len(judged)
    low, high = bound_positives(plan, judged, num_drawn)
    result: dict[str, Any] = {
        "num_drawn": num_drawn, "num_labelled": num_labelled, "num_positive": sum(judged),
        "num_ambiguous": sum(len(set(given)) > 1 for given in labels[:num_labelled]),
        "num_labels_after_gap": sum(bool(given) for given in labels[num_labelled:]),
        "estimate": None, "max_positive_images": high, "min_positive_images": low,
        "rate_upper_bound": None if high is None else (high + plan.num_unknown) / plan.num_kept,
        "rate_lower_bound": None if low is None else low / plan.num_kept}
    total = estimate_total(divide(plan, judged))
    if total is not None:
        result["estimate"] = total / plan.num_images
    status, num_more = judge_claim(plan, judged, num_drawn)
    result |= {"status": status, "num_more": num_more, "may_stop": status != "open" or num_more is None}
    return result | {"double_labels": measure_double_labels(labels)}


def count_labelled(labels: Sequence[Sequence[int]]) -> int:
    """How many labels there are before the first gap."""
    return next((number for number, given in enumerate(labels) if not given), len(labels))


def divide(plan: Plan, judged: Sequence[int], *, num_negative: int = 0) -> list[Stratum]:
    """Labels, in drawn order and followed by so many negative ones, counted by stratum."""
    if len(plan.strata) == 1:
        return [Stratum(plan.num_images, len(judged) + num_negative, sum(judged), plan.strata[0].expected_rate)]
    return [Stratum(part.num_items, len(part.labels), sum(part.labels), part.expected_rate)
            for part in split_labels(plan, judged, num_negative=num_negative)]


def split_labels(plan: Plan, judged: Sequence[int], *, num_negative: int = 0) -> list[LabelledStratum]:
    """Labels, in drawn order and followed by so many negative ones, by stratum."""
    labels: list[list[int]] = [[] for _ in plan.strata]
    for number, label in zip_longest(plan.order(len(judged) + num_negative), judged, fillvalue=0):
        labels[number].append(label)
    return [LabelledStratum(part.num_images, labels[number], part.expected_rate) for number, part in enumerate(plan.strata)]


def bound_above(plan: Plan, judged: Sequence[int], *, num_negative: int = 0) -> int:
    """Most positives among the images that could be drawn, by labels that are followed by so many negative ones; at any time."""
    if plan.design == "simple":
        return anytime_upper_bound(divide(plan, judged, num_negative=num_negative), confidence=plan.confidence)
    return tilted_upper_bound(split_labels(plan, judged, num_negative=num_negative), confidence=plan.confidence)


def bound_positives(plan: Plan, judged: Sequence[int], num_drawn: int) -> tuple[int | None, int | None]:
    """Fewest and most positives among the images that could be drawn; None for a fixed sample that is not complete."""
    if plan.stopping == "anytime":
        return anytime_lower_bound(divide(plan, judged), confidence=plan.confidence), bound_above(plan, judged)
    if len(judged) < num_drawn:
        return None, None
    counts = sum(judged), num_drawn, plan.num_images
    return finite_lower_bound(*counts, confidence=plan.confidence), finite_upper_bound(*counts, confidence=plan.confidence)


def judge_claim(plan: Plan, judged: Sequence[int], num_drawn: int) -> tuple[str, int | None]:
    """Status of the claim, and how many more labels would prove it if none of them were positive."""
    allowed = count_allowed(plan)
    low, high = bound_positives(plan, judged, num_drawn)
    if high is not None and high <= allowed:
        return "met", 0
    if low is not None and low > allowed + plan.num_unknown:
        return "refuted", None
    is_complete = len(judged) == num_drawn
    if plan.stopping == "fixed":
        if is_complete:
            return "not shown", None
        best = bound_positives(plan, [*judged, *[0] * (num_drawn - len(judged))], num_drawn)[1]
        return "open", None if best is None or best > allowed else num_drawn - len(judged)
    return "not shown" if is_complete else "open", count_more(plan, judged, allowed)


def count_more(plan: Plan, judged: Sequence[int], allowed: int) -> int | None:
    """The fewest further labels, all negative, after which an anytime bound proves the claim; None: not even labelling everything does."""
    if allowed < sum(judged):
        return None
    num_unlabelled = plan.num_images - len(judged)

    def is_enough(num_more: int) -> bool:
        """Whether so many negatives more prove the claim."""
        return num_more >= num_unlabelled or bound_above(plan, judged, num_negative=num_more) <= allowed

    return min(search_trials(is_enough, 0), num_unlabelled)


def measure_double_labels(labels: Sequence[Sequence[int]]) -> dict[str, Any] | None:
    """How far the first two people agree on the images that both judged; None where there is no such image."""
    found = DoubleLabels.of_pairs([(given[0], given[1]) for given in labels if len(given) > 1])
    if not found.num_items:
        return None
    return {"num_images": found.num_items, "num_split": found.num_split, "kappa": found.kappa, "sensitivity": found.sensitivity,
            "sensitivity_lower_bound": found.sensitivity_lower_bound()}

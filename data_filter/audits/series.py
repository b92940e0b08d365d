"""Several audits, one after the other: each with a seed of its own, each listed, and each later one held to more.

Whoever audits, curates and audits again until an audit shows the claim has as many chances of a false one as there are audits. So
the k-th audit states its bound with the k^2-th part of the error that a single one is allowed: over a series however long the chances
add up to at most pi^2 / 6 of it (the union bound; 8.3 % for 5 %). No files, so that anyone can do it again.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ...store.digests import sha256_json
from .plan import Plan, count_labelled, measure_audit

NUMBERED = re.compile(r"(?P<category>.+)_(?P<number>[0-9]{3,})")


@dataclass(frozen=True)
class OtherAudit:
    """An audit of another kept set, as far as it takes to say how it ended.

    Attributes:
        commitment: the content of its commitment.json.
        num_drawn: images in its sample.
        judged: 1 or 0 for each drawn image up to the first one without a label; 1 as soon as one person said so.
    """

    commitment: Mapping[str, Any]
    num_drawn: int
    judged: tuple[int, ...]

    @classmethod
    def of_labels(cls, commitment: Mapping[str, Any], labels: Sequence[Sequence[int]]) -> "OtherAudit":
        """From everybody's labels of each drawn image."""
        return cls(commitment, len(labels), tuple(max(given) for given in islice(labels, count_labelled(labels))))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "OtherAudit":
        """Read it; KeyError, TypeError or ValueError when it is malformed."""
        audit = cls(value["commitment"], value["num_drawn"], tuple(value["judged"]))
        if type(audit.num_drawn) is not int or not len(audit.judged) <= audit.num_drawn <= audit.plan.num_images:
            raise ValueError(f"{len(audit.judged)} labels of {audit.num_drawn!r} drawn images, of which there are {audit.plan.num_images}")
        if not all(type(label) is int and label in (0, 1) for label in audit.judged):
            raise ValueError("a label is neither 0 nor 1")
        return audit

    def to_json(self) -> dict[str, Any]:
        """It as plain data."""
        return {"commitment": dict(self.commitment), "num_drawn": self.num_drawn, "judged": list(self.judged)}

    @property
    def plan(self) -> Plan:
        """What it had committed itself to."""
        return Plan.from_json(self.commitment["plan"])

    def summarize(self) -> dict[str, Any]:
        """How it ended, measured from its labels: plain data."""
        gap: list[list[int]] = [[]] if self.num_drawn > len(self.judged) else []  # one says as much as many
        result = measure_audit(self.plan, [*([label] for label in self.judged), *gap])
        return {"id": self.commitment["id"], "claim": self.plan.claim, "confidence": self.plan.confidence, "num_kept": self.plan.num_kept,
                "num_drawn": self.num_drawn, **{name: result[name] for name in ("num_labelled", "num_positive", "status")}}


def number_of(commitment: Mapping[str, Any]) -> int:
    """Which audit of its category in the run it is, from 1; 0 when its id does not say."""
    match = NUMBERED.fullmatch(str(commitment["id"]))
    return int(match["number"]) if match and match["category"] == commitment["category"] else 0


def count_elsewhere(earlier: Iterable[Mapping[str, Any]], ledger_sha256: str) -> int:
    """How many of the earlier audits that a commitment names looked at another kept set."""
    return sum(commitment["ledger_sha256"] != ledger_sha256 for commitment in earlier)


def spend_confidence(confidence: float, num_elsewhere: int) -> float:
    """The confidence of an audit that comes after so many of other kept sets, so that the whole series errs seldom.

    Args:
        confidence: of an audit that is the only one.
        num_elsewhere: earlier audits of other kept sets; 0 leaves the confidence as it is.
    """
    return confidence if num_elsewhere == 0 else 1 - (1 - confidence) / (num_elsewhere + 1) ** 2


def normalize_seed(text: str) -> str:
    """The words of a seed's text, in which writing the same dice otherwise makes no difference."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", plain)) or "".join(plain.split())


def find_gaps(commitments: Sequence[Mapping[str, Any]]) -> list[str]:
    """What speaks against these being all audits of one category that a run has drawn, unchanged: one sentence each."""
    digests = {commitment["id"]: sha256_json(commitment) for commitment in commitments}
    problems = [] if len(digests) == len(commitments) else ["audits: two have the same id"]
    problems += ["audits: are of several categories"] if len({commitment["category"] for commitment in commitments}) > 1 else []
    for commitment in commitments:
        name, number = commitment["id"], number_of(commitment)
        listed = [named["id"] for named in commitment["earlier"]]
        if number == 0 or listed != [f"{commitment['category']}_{before:03d}" for before in range(1, number)]:
            problems.append(f"audit {name!r:.80}: names {len(listed)} earlier audits, which are not all that its number asks for")
        problems += [f"audit {name!r:.80}: names the earlier audit {named['id']!r:.80}, which is missing or was changed"
                     for named in commitment["earlier"] if digests.get(named["id"]) != named["commitment_sha256"]]
    return problems


def find_reused_seeds(commitments: Iterable[Mapping[str, Any]]) -> list[str]:
    """One sentence for each seed that several audits were drawn with."""
    users: dict[str, list[str]] = defaultdict(list)
    for commitment in commitments:
        users[commitment["seed_sha256"]].append(str(commitment["id"])[:80])
    return [f"audits {', '.join(sorted(names))}: were drawn with one seed; each audit needs a seed of its own"
            for names in users.values() if len(names) > 1]

"""WITHDRAWN.json: which releases of a repository their publisher has taken back, and why.

It lies on the default branch and names manifest roots, so that a reader of any tag or commit can look its release up; a
snapshot that holds it says so without a network.
"""

import re
from dataclasses import dataclass
from typing import Any

from .errors import VerificationError
from .manifest import readable_json
from .strict_json import parse_object

WITHDRAWN_NAME = "WITHDRAWN.json"
WITHDRAWN_SIGNATURE_NAME = "WITHDRAWN.dsse.json"
WITHDRAWN_FORMAT = "glideslope.withdrawn/1"
MAX_WITHDRAWN_BYTES = 1_000_000
MAX_REASON_LENGTH = 2_000
ROOT_PATTERN = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Withdrawal:
    """One release taken back.

    Attributes:
        root: the Merkle root of its manifest's files, hex.
        tag: the tag it was published under; empty when it had none.
        reason: why, for whoever wants to load it.
    """

    root: str
    tag: str
    reason: str


@dataclass(frozen=True)
class Withdrawals:
    """Everything that a repository has taken back, in the order in which it was."""

    withdrawn: tuple[Withdrawal, ...] = ()

    def find(self, root: str) -> Withdrawal | None:
        """The withdrawal of a release, or none when it stands."""
        return next((withdrawal for withdrawal in self.withdrawn if withdrawal.root == root), None)

    def add(self, withdrawal: Withdrawal) -> "Withdrawals":
        """These and one more; a release that is named already keeps its place and gets the new reason."""
        kept = tuple(withdrawal if old.root == withdrawal.root else old for old in self.withdrawn)
        return Withdrawals(kept if withdrawal in kept else (*kept, withdrawal))

    def to_bytes(self) -> bytes:
        """The one form of WITHDRAWN.json: keys sorted, two spaces, a newline at the end."""
        value = {"format": WITHDRAWN_FORMAT, "withdrawn": [{"root": w.root, "tag": w.tag, "reason": w.reason} for w in self.withdrawn]}
        return readable_json(value)

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str = WITHDRAWN_NAME) -> "Withdrawals":
        """Parse a WITHDRAWN.json.

        Raises:
            VerificationError: not JSON, another format, a malformed or repeated entry, or another way to write the same. A
                reader must then take every release of the repository for withdrawn.
        """
        value = parse_object(data, where=where, max_bytes=MAX_WITHDRAWN_BYTES, max_depth=4)
        if value.get("format") != WITHDRAWN_FORMAT:
            raise VerificationError(where, [f"format is {value.get('format')!r:.80}, expected {WITHDRAWN_FORMAT!r}; update glideslope"])
        entries = value.get("withdrawn")
        if not isinstance(entries, list) or not entries or not all(_is_entry(entry) for entry in entries):
            raise VerificationError(where, ["withdrawn is not a list of at least one entry with root, tag and reason"])
        found = cls(tuple(Withdrawal(**entry) for entry in entries))
        if len({withdrawal.root for withdrawal in found.withdrawn}) != len(entries) or found.to_bytes() != data:
            raise VerificationError(where, ["names a root twice, or is not in the form that `glideslope withdraw` writes"])
        return found


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or set(entry) != {"root", "tag", "reason"} or not all(isinstance(item, str) for item in entry.values()):
        return False
    return ROOT_PATTERN.fullmatch(entry["root"]) is not None and bool(entry["reason"].strip()) and len(entry["reason"]) <= MAX_REASON_LENGTH

"""STATUS.json: what a repository's publisher says of its releases now: which one is current, which are superseded or withdrawn.

A release and its signature stay as they are for ever, so they cannot say that something newer exists. The status can: it has a
number that only grows, and, where it is signed, a time at which it stops to count. It lies on the default branch and names
releases by the roots of their manifests. A reader of any tag or commit looks its release up there.

An unsigned status guards against accidents alone: whoever may write to the repository can write another one.

Source of the idea: The Update Framework, its snapshot and timestamp roles (version numbers against rollback, expiry against freezing).
"""

import importlib.util
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ReleaseError
from ..store.digests import DIGEST_PATTERN, canonical_json, readable_json, sha256_bytes
from ..store.strict_json import parse_object
from .envelopes import check_signatures, has_fields, make_signature, read_key_ids, require
from .keys import NEEDS_EXTRA

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

STATUS_NAME = "STATUS.json"
STATUS_FORMAT = "glideslope.status/1"
STATUS_TYPE = "application/vnd.glideslope.status+json"  # no in-toto statement: a signature on a status fits no release
MAX_STATUS_BYTES = 1_000_000
MAX_NUMBER = 2**53
MAX_REASON_LENGTH = 2_000
DEFAULT_VALID_DAYS, MAX_VALID_DAYS = 180, 1_000
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
TIME_PATTERN = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
REPOSITORY_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
FIELDS = {"repository", "number", "issued", "expires", "releases"}

State = Literal["current", "superseded", "withdrawn"]


@dataclass(frozen=True)
class ReleaseStatus:
    """What is said of one release.

    Attributes:
        root: the Merkle root of its manifest's files, hex.
        tag: the tag it was published under; empty when it had none.
        state: `current` is what the default branch shows; `superseded`: another one took its place; `withdrawn`: taken back.
        successor: root of the release to take instead; none for the current one, and where none is named.
        reason: why it was withdrawn; empty otherwise.
    """

    root: str
    tag: str
    state: State
    successor: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class Status:
    """What a publisher says of all releases of a repository.

    Attributes:
        repository: `org/name`; none for a directory, which has no name that readers know.
        number: grows with each status of the repository.
        issued: when it was written, in UTC, to the second.
        expires: when it stops to count; none for an unsigned status, which counts as long as nobody replaces it.
        releases: in the order of their publication; at most one is current.
    """

    repository: str | None
    number: int
    issued: datetime
    expires: datetime | None
    releases: tuple[ReleaseStatus, ...]

    def find(self, root: str) -> ReleaseStatus | None:
        """What is said of a release; none when it is not named."""
        return next((release for release in self.releases if release.root == root), None)

    @property
    def current(self) -> ReleaseStatus | None:
        """The release that the default branch is to show."""
        return next((release for release in self.releases if release.state == "current"), None)

    @property
    def sha256(self) -> str:
        """Hex digest of what is said, whoever signed it: two statuses of one number must say the same."""
        return sha256_bytes(_payload(self.to_json()))

    def to_json(self) -> dict[str, Any]:
        """The status as plain data."""
        return {"repository": self.repository, "number": self.number, "issued": self.issued.strftime(TIME_FORMAT),
                "expires": None if self.expires is None else self.expires.strftime(TIME_FORMAT),
                "releases": [vars(release) for release in self.releases]}

    def to_bytes(self, key: "Ed25519PrivateKey | None" = None) -> bytes:
        """The one form of STATUS.json, signed where a key is given."""
        signatures = [] if key is None else [make_signature(key, STATUS_TYPE, _payload(self.to_json()))]
        return readable_json({"format": STATUS_FORMAT, "status": self.to_json(), "signatures": signatures})


@dataclass(frozen=True)
class SignedStatus:
    """A status as it was read.

    Attributes:
        status: what is said.
        key_ids: the keys that signed it; empty when nobody did, or when that could not be checked.
        is_checked: false where there are signatures and `cryptography` is not installed.
    """

    status: Status
    key_ids: tuple[str, ...]
    is_checked: bool = True

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str = STATUS_NAME, must_check: bool = False) -> "SignedStatus":
        """Parse a STATUS.json and check its signatures.

        Args:
            data: the bytes.
            where: how messages call it.
            must_check: refuse signatures that cannot be checked, as `cryptography` is not installed.

        Raises:
            VerificationError: not JSON, another format, a malformed or contradictory entry, another way to write the same, or a
                signature that is wrong. A reader must then take no release of the repository for current.
            ReleaseError: `must_check`, and the signatures cannot be checked.
        """
        value = parse_object(data, where=where, max_bytes=MAX_STATUS_BYTES, max_depth=5)
        require(has_fields(value, {"format": str, "status": dict, "signatures": list}), where, "expected format, status and signatures")
        require(value["format"] == STATUS_FORMAT, where, f"format is {value['format']!r:.80}, expected {STATUS_FORMAT!r}; update glideslope")
        status = _parse(value["status"], where)
        key_ids = read_key_ids(value["signatures"], where=where)
        require((status.expires is None) == (not key_ids), where, "a signed status expires, and an unsigned one does not; this is neither")
        require(readable_json({"format": STATUS_FORMAT, "status": status.to_json(), "signatures": value["signatures"]}) == data, where,
                "is not in the form that `glideslope publish` writes")
        if not key_ids or importlib.util.find_spec("cryptography") is not None:
            return cls(status, check_signatures(value["signatures"], STATUS_TYPE, _payload(value["status"]), where=where))
        if must_check:
            raise ReleaseError(NEEDS_EXTRA)
        return cls(status, (), is_checked=False)

    def describe(self) -> str:
        """Number and signers, in a few words."""
        signed = "not signed" if self.is_checked else "its signature was not checked"
        if self.key_ids:
            signed = f"signed by {', '.join(self.key_ids)}"
        return f"status {self.status.number}, {signed}"


def times_from(now: datetime, valid_days: int | None) -> tuple[datetime, datetime | None]:
    """When a status is issued, and when it expires.

    Args:
        now: the time, with its zone.
        valid_days: for how long it counts; none for an unsigned one.

    Raises:
        ReleaseError: not from 1 to `MAX_VALID_DAYS` days.
    """
    issued = now.astimezone(UTC).replace(microsecond=0)
    if valid_days is None:
        return issued, None
    if not 1 <= valid_days <= MAX_VALID_DAYS:
        raise ReleaseError(f"a status that counts for {valid_days} days was asked for; expected 1 to {MAX_VALID_DAYS}")
    return issued, issued + timedelta(days=valid_days)


def with_current(releases: tuple[ReleaseStatus, ...], root: str, tag: str) -> tuple[ReleaseStatus, ...]:
    """The same releases, with one that takes the place of the current one, and of all others as their successor."""
    others = tuple(replace(release, state="withdrawn" if release.state == "withdrawn" else "superseded", successor=root)
                   if release.root != root else release for release in releases)
    shown = ReleaseStatus(root, tag, "current")
    if any(release.root == root for release in others):
        return tuple(shown if release.root == root else release for release in others)
    return (*others, shown)


def with_withdrawn(releases: tuple[ReleaseStatus, ...], root: str, tag: str, reason: str) -> tuple[ReleaseStatus, ...]:
    """The same releases, with one that is taken back; who wants it is sent to the current one, if that is another."""
    successor = next((release.root for release in releases if release.state == "current" and release.root != root), None)
    taken = ReleaseStatus(root, tag, "withdrawn", successor, reason)
    if any(release.root == root for release in releases):
        return tuple(taken if release.root == root else release for release in releases)
    return (*releases, taken)


def _payload(status: Any) -> bytes:
    """What is signed."""
    return canonical_json({"format": STATUS_FORMAT, "status": status}).encode()


def _parse(value: dict[str, Any], where: str) -> Status:
    kinds: dict[str, type] = {"repository": str, "number": int, "issued": str, "expires": str, "releases": list}
    given = {key: item for key, item in value.items() if not (key in ("repository", "expires") and item is None)}
    require(set(value) == FIELDS and has_fields(given, {key: kinds[key] for key in given}) and type(value["number"]) is int, where,
            f"the status needs {', '.join(sorted(FIELDS))}, each of its type, and nothing else")
    repository, number = value["repository"], value["number"]
    require(repository is None or REPOSITORY_PATTERN.fullmatch(repository) is not None, where, "repository is no org/name")
    require(1 <= number <= MAX_NUMBER, where, f"number is {number}, expected 1 to {MAX_NUMBER}")
    issued = _parse_time(value["issued"], where)
    expires = None if value["expires"] is None else _parse_time(value["expires"], where)
    require(expires is None or timedelta(0) < expires - issued <= timedelta(days=MAX_VALID_DAYS), where,
            f"expires does not lie within {MAX_VALID_DAYS} days after issued")
    releases = tuple(_parse_release(entry, where) for entry in value["releases"])
    roots = [release.root for release in releases]
    require(bool(roots) and len(set(roots)) == len(roots), where, "names no release, or one of them twice")
    require(sum(release.state == "current" for release in releases) <= 1, where, "says of two releases that they are current")
    lost = [release.successor for release in releases if release.successor is not None and release.successor not in roots]
    require(not lost, where, f"names a successor of root {lost[0] if lost else ''} that it does not list")
    return Status(repository, number, issued, expires, releases)


def _parse_time(text: str, where: str) -> datetime:
    try:
        require(TIME_PATTERN.fullmatch(text) is not None, where, f"{text!r:.40} is no time such as 2026-01-31T12:00:00Z")
        return datetime.strptime(text, TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        require(condition=False, where=where, problem=f"{text!r:.40} is no time such as 2026-01-31T12:00:00Z")
        raise


def _parse_release(value: Any, where: str) -> ReleaseStatus:
    texts = {"root": str, "tag": str, "state": str, "reason": str}
    require(isinstance(value, dict) and set(value) == {*texts, "successor"} and all(isinstance(value[key], str) for key in texts), where,
            "a release needs root, tag, state, successor and reason, and nothing else")
    release = ReleaseStatus(**value)
    require(DIGEST_PATTERN.fullmatch(release.root) is not None, where, "a root is no digest of 64 characters")
    require(release.state in ("current", "superseded", "withdrawn"), where, f"state is {value['state']!r:.40}; update glideslope")
    require(release.successor is None or (isinstance(release.successor, str) and release.successor != release.root), where,
            "a successor is no other release's root")
    needs = {"current": release.successor is None, "superseded": release.successor is not None, "withdrawn": True}
    require(needs[release.state], where, "a superseded release names its successor, and the current one has none")
    has_reason = bool(release.reason.strip()) and len(release.reason) <= MAX_REASON_LENGTH
    require(has_reason if release.state == "withdrawn" else not release.reason, where,
            f"a withdrawn release has a reason of at most {MAX_REASON_LENGTH} characters, and no other has one")
    return release

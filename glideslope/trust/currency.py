"""Whether a release may be loaded, as far as its repository's status tells: current, or superseded, withdrawn, stale, replayed."""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..errors import VerificationError
from .keys import SHORT_ID_LENGTH
from .status import STATUS_NAME, TIME_FORMAT, ReleaseStatus, SignedStatus

MAX_CLOCK_SKEW = timedelta(hours=1)
STALE = "unsafe_stale_status=True (--unsafe-stale-status) loads it all the same"
WITHDRAWN = "allow_withdrawn=True loads it all the same"

logger = logging.getLogger("glideslope.loading")


@dataclass(frozen=True)
class Asked:
    """Which release is to be loaded, and what is known of its repository.

    Attributes:
        name: how messages call the release.
        root: of its manifest; none when it has none.
        repository: `org/name`; none for a directory, whose repository nobody knows.
        revision: what the caller named: a tag, a branch or a commit; none for the default branch.
        is_pinned: whether the caller asked for this very state. Otherwise it must be the current release.
        keys: of these, one must have signed the status; empty when anybody may have, or nobody.
        lowest: the highest number that was seen before; none when no status was.
        seen: digests of what the statuses of that number said; each number is given to one status only.
        needs_status: whether a release without a status is refused.
        now: the time.
        allow_withdrawn: load what was taken back.
        unsafe_stale_status: load without a status that counts: one that is missing, has expired or is unreadable, is not by the
            right key or does not name the release.
    """

    name: str
    root: str | None
    repository: str | None
    revision: str | None
    is_pinned: bool
    keys: Collection[str]
    lowest: int | None
    needs_status: bool
    now: datetime
    allow_withdrawn: bool = False
    unsafe_stale_status: bool = False
    seen: Collection[str] = ()


def refuse_by_status(found: SignedStatus | None, asked: Asked) -> None:
    """Refuse a release that a status speaks against, or whose status does not count.

    Raises:
        VerificationError: with every reason.
    """
    if found is None:
        problems, stale = _find_loss(asked), _find_lack(asked)
    else:
        problems, stale = _find_contradictions(found, asked), _find_staleness(found, asked)
    if asked.unsafe_stale_status:
        for problem in stale:
            logger.warning("%s: %s; loaded all the same, as unsafe_stale_status asks", asked.name, problem)
    elif stale:
        problems += [*stale[:-1], f"{stale[-1]}; {STALE}"]
    if problems:
        raise VerificationError(asked.name, problems)
    release = None if found is None or asked.root is None else found.status.find(asked.root)
    if found is not None and release is not None and release.state == "superseded":
        logger.warning("%s: was superseded by %s", asked.name, name_of(found, release.successor))


def name_of(found: SignedStatus, root: str | None) -> str:
    """The tag and root of a release that a status names."""
    release = None if root is None else found.status.find(root)
    if release is None:
        return "no other release"
    return f"{release.tag} (root {release.root[:16]}…)" if release.tag else f"the release of root {release.root[:16]}…"


def _find_loss(asked: Asked) -> list[str]:
    if asked.lowest is None:
        return []
    return [f"{STATUS_NAME} is missing, but status {asked.lowest} of this repository was seen before: somebody removed it, perhaps to show an "
            "older or a withdrawn release; ask its publisher"]


def _find_lack(asked: Asked) -> list[str]:
    if asked.lowest is not None or not asked.needs_status:
        return []
    return [f"its repository has no {STATUS_NAME}, so nothing shows that this release is current and was not withdrawn; ask its publisher for "
            "`glideslope release status --renew`"]


def _find_contradictions(found: SignedStatus, asked: Asked) -> list[str]:
    """What no option but `allow_withdrawn` overrides."""
    status, problems = found.status, []
    if asked.repository is not None and (status.repository or "").casefold() != asked.repository.casefold():
        problems.append(f"{STATUS_NAME} is that of {status.repository or 'a directory'}, expected {asked.repository}: somebody put another "
                        "repository's status there")
    if asked.lowest is not None and status.number < asked.lowest:
        problems.append(f"{STATUS_NAME} has the number {status.number}, but {asked.lowest} was seen before: somebody put an older one there, "
                        "perhaps to show an older or a withdrawn release; ask its publisher")
    if status.number == asked.lowest and {*asked.seen, status.sha256} != {status.sha256}:
        problems.append(f"{STATUS_NAME} says something else than the one of the same number, {status.number}, that was seen before: one of the "
                        "two is false; ask its publisher")
    release = None if asked.root is None else status.find(asked.root)
    tagged = [one.root for one in status.releases if one.tag and one.tag == asked.revision]
    if tagged and asked.root is not None and asked.root not in tagged:
        problems.append(f"the tag {asked.revision} shows a release of root {asked.root[:16]}…, but its publisher published "
                        f"{tagged[-1][:16]}… under it ({found.describe()}): somebody moved the tag")
    if release is not None and not asked.is_pinned and release.state == "superseded":
        problems.append(f"the default branch shows a release that was superseded by {name_of(found, release.successor)} ({found.describe()}): "
                        f"somebody put it there; name that one with revision={status.find(str(release.successor)).tag or None!r}, "  # type: ignore[union-attr]
                        "or this one's tag or commit if you mean it")
    if not asked.allow_withdrawn:
        problems += _find_withdrawal(found, release, asked)
    return problems


def _find_withdrawal(found: SignedStatus, release: ReleaseStatus | None, asked: Asked) -> list[str]:
    if asked.root is None:
        return [f"its repository has a status, and nobody can tell whether the release was withdrawn, as it has no manifest "
                f"({found.describe()}); {WITHDRAWN}"]
    if release is None or release.state != "withdrawn":
        return []
    instead = "" if release.successor is None else f"; take {name_of(found, release.successor)} instead"
    return [f"it was withdrawn: {release.reason} ({found.describe()}){instead}; {WITHDRAWN}"]


def _find_staleness(found: SignedStatus, asked: Asked) -> list[str]:
    """What keeps a status from counting; `unsafe_stale_status` overrides it."""
    status, problems = found.status, []
    if asked.keys and found.is_checked and not set(found.key_ids) & set(asked.keys):
        expected = " or ".join(f"{key_id[:SHORT_ID_LENGTH]}…" for key_id in sorted(asked.keys))
        problems.append(f"{STATUS_NAME} counts only when it is signed by {expected} ({found.describe()})")
    if not found.is_checked:
        logger.warning("%s: the signature on its %s was not checked, as the extra `sign` is not installed", asked.name, STATUS_NAME)
    if status.issued > asked.now + MAX_CLOCK_SKEW:
        problems.append(f"{STATUS_NAME} was issued at {status.issued.strftime(TIME_FORMAT)}, and here it is {asked.now.strftime(TIME_FORMAT)}: "
                        "set the clock of this machine")
    if status.expires is not None and status.expires <= asked.now:
        problems.append(f"{STATUS_NAME} expired at {status.expires.strftime(TIME_FORMAT)}: a newer one may say that this release is withdrawn; "
                        "ask its publisher for `glideslope release status --renew`")
    if asked.root is not None and status.find(asked.root) is None:
        problems.append(f"{STATUS_NAME} does not name this release ({found.describe()}): its publisher did not publish it there")
    return problems

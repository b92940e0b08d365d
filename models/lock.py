"""The lock file of a release: which repository, commit, manifest and signers a project relies on."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import StorageError, VerificationError
from ..manifest import write_json
from ..merkle import DIGEST_PATTERN
from ..strict_json import parse_object, read_bounded
from .hub import COMMIT, REPOSITORY, Snapshot

LOCK_FORMAT = "glideslope.lock/2"
MAX_LOCK_BYTES = 10_000
ENTRIES = ("repo", "sha", "root", "signers", "status", "offline")

logger = logging.getLogger("glideslope.loading")


@dataclass(frozen=True)
class ReleaseLock:
    """What is pinned.

    Attributes:
        repo: `org/name`, or none when the release was loaded from a directory.
        sha: the commit, likewise.
        root: root of the manifest, hex: it stands for every file of the release.
        signers: key ids of who signed it, sorted; empty when nobody did.
        status: the highest number of a status of the repository that was seen; none when none was.
        offline: whether the pinned release may be loaded without asking the Hub for its status. Whoever wants that writes it here.
    """

    repo: str | None
    sha: str | None
    root: str
    signers: tuple[str, ...]
    status: int | None = None
    offline: bool = False

    @classmethod
    def read(cls, path: Path) -> "ReleaseLock | None":
        """Read a lock file; none when there is none.

        Raises:
            VerificationError: it cannot be read, or is malformed.
        """
        if not path.exists():
            return None
        value = parse_object(read_bounded(path, MAX_LOCK_BYTES), where=str(path), max_bytes=MAX_LOCK_BYTES, max_depth=2)
        if value.get("format") != LOCK_FORMAT or set(value) != {"format", *ENTRIES} or not _is_sound(value):
            raise VerificationError(str(path), [f"is no lock file: expected format {LOCK_FORMAT!r}, {', '.join(ENTRIES)}; "
                                                "restore it, or remove it to pin what is loaded next"])
        return cls(value["repo"], value["sha"], value["root"], tuple(value["signers"]), value["status"], value["offline"])

    def write(self, path: Path) -> None:
        """Write the lock file.

        Raises:
            StorageError: it cannot be written.
        """
        write_json(path, {"format": LOCK_FORMAT, **asdict(self)})

    def remember(self, number: int, path: Path) -> None:
        """Write down the number of a status, if it is higher than what the file says now; a file that cannot be written keeps its own.

        Raises:
            VerificationError: the file was damaged since it was read.
        """
        known = self.read(path) or self
        if known.status is not None and known.status >= number:
            return
        try:
            replace(known, status=number).write(path)
        except StorageError as error:  # what it holds is enforced all the same
            logger.warning("%s: status %d was seen, but cannot be written down (%s)", path, number, error)

    def check_place(self, snapshot: Snapshot, path: Path) -> None:
        """Refuse another repository or commit; a directory is held against root and signer alone.

        Raises:
            VerificationError: naming both.
        """
        problems = [f"{what} is {found}, the lock file says {expected}" for what, found, expected in
                    (("repository", snapshot.repo, self.repo), ("commit", snapshot.sha, self.sha))
                    if snapshot.repo is not None and found != expected]
        self._refuse(problems, path)

    def check_content(self, root: str, key_ids: Collection[str], path: Path) -> None:
        """Refuse another manifest, or one that somebody of who signed before did not sign.

        Raises:
            VerificationError: naming both.
        """
        problems = [f"manifest's root is {root}, the lock file says {self.root}"] if root != self.root else []
        if not set(self.signers) <= set(key_ids) or (key_ids and not self.signers):
            problems.append(f"signer is {', '.join(key_ids) or 'nobody'}, the lock file says {', '.join(self.signers) or 'nobody'}")
        self._refuse(problems, path)

    @staticmethod
    def _refuse(problems: list[str], path: Path) -> None:
        if problems:
            raise VerificationError(str(path), [*problems, "if you mean the other release, remove the lock file and load again"])


def _is_sound(value: Mapping[str, Any]) -> bool:
    """Whether the entries of a lock file are well formed."""
    patterns = {"repo": REPOSITORY, "sha": COMMIT, "root": DIGEST_PATTERN}
    are_texts = all(value[key] is None or (isinstance(value[key], str) and pattern.fullmatch(value[key])) for key, pattern in patterns.items())
    signers = value["signers"]
    are_keys = isinstance(signers, list) and all(isinstance(key, str) and DIGEST_PATTERN.fullmatch(key) for key in signers)
    status = value["status"]
    if not (status is None or (type(status) is int and status > 0)) or type(value["offline"]) is not bool:
        return False
    return are_texts and value["root"] is not None and (value["repo"] is None) == (value["sha"] is None) and are_keys and (
        signers == sorted(set(signers)))

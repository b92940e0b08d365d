"""The lock file of a release: which repository, commit, manifest and signers a project relies on."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import StorageError, VerificationError
from ..store.digests import DIGEST_PATTERN
from ..store.locks import locked
from ..store.strict_json import parse_object, read_bounded
from ..store.whole_files import storage_error, write_json
from .hub import COMMIT, REPOSITORY

LOCK_FORMAT = "glideslope.lock/2"
MAX_LOCK_BYTES = 10_000
ENTRIES = ("repo", "sha", "root", "signers", "status", "status_sha256", "offline")

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
        status_sha256: digest of what that status said (`Status.sha256`); none likewise.
        offline: whether the pinned release may be loaded without asking the Hub for its status. Whoever wants that writes it here.
    """

    repo: str | None
    sha: str | None
    root: str
    signers: tuple[str, ...]
    status: int | None = None
    status_sha256: str | None = None
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
        return cls(value["repo"], value["sha"], value["root"], tuple(value["signers"]), value["status"], value["status_sha256"],
                   value["offline"])

    def write(self, path: Path) -> None:
        """Write the lock file.

        Raises:
            StorageError: it cannot be written.
        """
        write_json(path, {"format": LOCK_FORMAT, **asdict(self)})

    def settle(self, path: Path) -> None:
        """Make a lock file say what was loaded: written where there is none, else enforced, and a higher number of a status remembered.

        Others may be loading at the same time: one of them writes, the rest are held against it, and no number is ever lowered. A file
        that cannot be written keeps its number, and stays in force.

        Raises:
            VerificationError: the file pins something else by now, or was damaged.
            StorageError: there is no lock file, and none can be written.
        """
        known = self.read(path)
        if known is not None and not known.learns_from(self, path):
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with locked(path.with_name(f".{path.name}.busy"), waits=True):
                known = self.read(path)
                if known is None:
                    self.write(path)
                elif known.learns_from(self, path):
                    replace(known, status=self.status, status_sha256=self.status_sha256).write(path)
        except StorageError as error:
            if known is None:
                raise
            logger.warning("%s: status %s was seen, but cannot be written down (%s)", path, self.status, error)
        except OSError as error:
            raise storage_error(path, error) from error

    def learns_from(self, loaded: "ReleaseLock", path: Path) -> bool:
        """Whether what was loaded has a status with a higher number than this file remembers.

        Raises:
            VerificationError: this file pins something else, or remembers another status of the same number.
        """
        self.check_place(loaded.repo, loaded.sha, path)
        self.check_content(loaded.root, loaded.signers, path)
        if loaded.status is not None and loaded.status == self.status and loaded.status_sha256 != self.status_sha256:
            raise VerificationError(str(path), [f"remembers another status of the number {loaded.status}: one of the two is false; ask the "
                                                "release's publisher"])
        return loaded.status is not None and (self.status is None or loaded.status > self.status)

    def check_place(self, repo: str | None, sha: str | None, path: Path) -> None:
        """Refuse another repository or commit; a directory, which has none, is held against root and signer alone.

        Raises:
            VerificationError: naming both.
        """
        problems = [f"{what} is {found}, the lock file says {expected}" for what, found, expected in
                    (("repository", repo, self.repo), ("commit", sha, self.sha)) if repo is not None and found != expected]
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
    status, digest = value["status"], value["status_sha256"]
    is_seen = type(status) is int and status > 0 and isinstance(digest, str) and DIGEST_PATTERN.fullmatch(digest) is not None
    if not ((status is None and digest is None) or is_seen) or type(value["offline"]) is not bool:
        return False
    return are_texts and value["root"] is not None and (value["repo"] is None) == (value["sha"] is None) and are_keys and (
        signers == sorted(set(signers)))

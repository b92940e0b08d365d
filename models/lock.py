"""The lock file of a release: which repository, commit, manifest and signer a project relies on."""

from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import VerificationError
from ..manifest import write_json
from ..merkle import DIGEST_PATTERN
from ..strict_json import parse_object, read_bounded
from .hub import COMMIT, REPOSITORY, Snapshot

LOCK_FORMAT = "glideslope.lock/1"
MAX_LOCK_BYTES = 10_000


@dataclass(frozen=True)
class ReleaseLock:
    """What is pinned.

    Attributes:
        repo: `org/name`, or none when the release was loaded from a directory.
        sha: the commit, likewise.
        root: root of the manifest, hex: it stands for every file of the release.
        signer: key id of who signed it, or none when nobody did.
    """

    repo: str | None
    sha: str | None
    root: str
    signer: str | None

    @classmethod
    def read(cls, path: Path) -> "ReleaseLock | None":
        """Read a lock file; none when there is none.

        Raises:
            VerificationError: it cannot be read, or is malformed.
        """
        if not path.exists():
            return None
        value = parse_object(read_bounded(path, MAX_LOCK_BYTES), where=str(path), max_bytes=MAX_LOCK_BYTES, max_depth=1)
        patterns = {"repo": REPOSITORY, "sha": COMMIT, "root": DIGEST_PATTERN, "signer": DIGEST_PATTERN}
        well_formed = set(value) == {"format", *patterns} and value["format"] == LOCK_FORMAT and value["root"] is not None and all(
            value[key] is None or (isinstance(value[key], str) and pattern.fullmatch(value[key])) for key, pattern in patterns.items())
        if not well_formed or (value["repo"] is None) != (value["sha"] is None):
            raise VerificationError(str(path), [f"is no lock file: expected format {LOCK_FORMAT!r}, repo, sha, root and signer; "
                                                "restore it, or remove it to pin what is loaded next"])
        return cls(**{key: value[key] for key in patterns})

    def write(self, path: Path) -> None:
        """Write the lock file.

        Raises:
            StorageError: it cannot be written.
        """
        write_json(path, {"format": LOCK_FORMAT, **asdict(self)})

    def check_place(self, snapshot: Snapshot, path: Path) -> None:
        """Refuse another repository or commit; a directory is held against root and signer alone.

        Raises:
            VerificationError: naming both.
        """
        problems = [f"{what} is {found}, the lock file says {expected}" for what, found, expected in
                    (("repository", snapshot.repo, self.repo), ("commit", snapshot.sha, self.sha))
                    if snapshot.repo is not None and found != expected]
        self._refuse(problems, path)

    def check_content(self, root: str, signer: str | None, path: Path) -> None:
        """Refuse another manifest or signer.

        Raises:
            VerificationError: naming both.
        """
        pairs = (("manifest's root", root, self.root), ("signer", signer or "nobody", self.signer or "nobody"))
        self._refuse([f"{what} is {found}, the lock file says {expected}" for what, found, expected in pairs if found != expected], path)

    @staticmethod
    def _refuse(problems: list[str], path: Path) -> None:
        if problems:
            raise VerificationError(str(path), [*problems, "if you mean the other release, remove the lock file and load again"])

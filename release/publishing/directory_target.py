"""A directory as a target, for a disk that is carried over, or a share that readers mount.

Its layout:

    versions/<first 16 digits of the root>/   a release, never changed once it is there
    current                                   a link to the one that is shown; replaced in one step
    tags/<name>                               links to versions
    staging/                                  what is being put together

Readers load `<target>/current` or `<target>/tags/<name>`. The status is written into every version.
"""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...errors import ReleaseError
from ...store.digests import sha256_file
from ...store.file_lists import list_files
from ...store.locks import locked
from ...store.whole_files import storage_error
from ...trust.unlisted_files import KEPT_FILES
from .targets import PIECE_BYTES, Edit, Gated, Moved, TargetFile, TargetState

BESIDE = re.compile(r"\.[0-9a-f]{16}\.tmp")
VERSIONS, STAGING, TAGS, CURRENT, LOCK = "versions", "staging", "tags", "current", ".lock"
Stamp = tuple[int, int, int]


class DirectoryTarget:
    """A directory with versions and links to them.

    Attributes:
        name: the directory, as text.
        directory: the directory.
        has_access: false, who may read a directory is for the file system to say.
    """

    has_access = False

    def __init__(self, directory: Path) -> None:
        """Remember where to publish; nothing is written yet.

        Raises:
            ReleaseError: there is something else than such a directory.
        """
        self.directory, self.name = directory, str(directory)
        self._digests: dict[Path, tuple[Stamp, str]] = {}
        is_foreign = directory.exists() and (not directory.is_dir() or (any(directory.iterdir()) and not (directory / VERSIONS).is_dir()))
        if is_foreign:
            raise ReleaseError(f"{directory}: holds something else than published versions; name an empty or a new directory")

    @property
    def repository(self) -> None:
        """None: it lies elsewhere for each reader."""
        return None

    def identify(self) -> Mapping[str, str]:
        """The directory, in full."""
        return {"target": str(self.directory.resolve())}

    def read_state(self) -> TargetState:
        """What the links show now."""
        if not all((self.directory / folder).is_dir() for folder in (VERSIONS, STAGING, TAGS)):
            return TargetState(exists=False)
        main = self._linked(self.directory / CURRENT)
        tags = {path.name: self._linked(path) for path in sorted((self.directory / TAGS).iterdir())}
        branches = {f"{STAGING}/{path.name}": f"{STAGING}/{path.name}" for path in sorted((self.directory / STAGING).iterdir())}
        return TargetState(True, main, self.list_files(main) if main else {}, {tag: rev for tag, rev in tags.items() if rev}, branches)

    def list_files(self, revision: str) -> Mapping[str, TargetFile]:
        """The files of a version, or of what is staged, with their digests."""
        folder = self._folder(revision)
        return {path: TargetFile((folder / path).stat().st_size, sha256=self._digest(folder / path)) for path in list_files(folder)}

    def read_file(self, revision: str, path: str) -> bytes | None:
        """The content of a file, or none when there is no such file."""
        file = self._folder(revision) / path
        return file.read_bytes() if file.is_file() else None

    def create(self) -> None:
        """Make the directory."""
        for folder in (VERSIONS, STAGING, TAGS):
            self._make(self.directory / folder)

    def set_access(self, *, is_private: bool | None, gated: Gated | None) -> None:
        """Refuse: who may read a directory is for the file system to say."""
        raise ReleaseError(f"{self.name}: a directory is neither private nor gated; set its permissions with the system's own means")

    def begin_branch(self, branch: str) -> None:
        """Make an empty folder to put a new version together in."""
        self._make(self.directory / branch)

    def stage(self, branch: str, parent: str, edit: Edit) -> None:
        """Copy files to the folder of a branch, each whole or not at all."""
        folder = self._folder(branch)
        with self._locked():
            for path in edit.remove:
                (folder / path).unlink(missing_ok=True)
            for path in edit.put:
                self._copy(edit.source / path, folder / path)

    def fetch(self, revision: str, directory: Path) -> Path:
        """Where the files lie: they are read from there again."""
        self._digests.clear()
        return self._folder(revision)

    def promote(self, revision: str, parent: str | None, edit: Edit) -> None:
        """Turn what is staged into a version and let `current` point at it, in one step."""
        with self._locked():
            if self._linked(self.directory / CURRENT) != parent:
                raise Moved(f"{self.name}: {CURRENT} points elsewhere since")
            version = f"{VERSIONS}/{Path(revision).name}"
            if revision.startswith(f"{STAGING}/"):
                self._keep(revision, version)
            if parent is not None:
                for path in sorted(KEPT_FILES):
                    if (self._folder(parent) / path).is_file():
                        self._copy(self._folder(parent) / path, self._folder(version) / path)
            self._write_beside([*self._versions(without=version), version], edit.beside)
            self._link(self.directory / CURRENT, version)

    def write(self, parent: str, files: Mapping[str, bytes]) -> None:
        """Write small files into every version, the shown one last."""
        with self._locked():
            if self._linked(self.directory / CURRENT) != parent:
                raise Moved(f"{self.name}: {CURRENT} points elsewhere since")
            self._write_beside([*self._versions(without=parent), parent], files)

    def add_tag(self, tag: str, revision: str) -> None:
        """Link a name to a version."""
        with self._locked():
            if (self.directory / TAGS / tag).is_symlink():
                raise Moved(f"{self.name}: there is a tag {tag} already")
            self._link(self.directory / TAGS / tag, f"../{revision}")

    def end_branch(self, branch: str) -> None:
        """Remove what was staged."""
        if self._folder(branch).is_dir():
            shutil.rmtree(self._folder(branch))

    def _folder(self, revision: str) -> Path:
        return self.directory / revision

    def _keep(self, staged: str, version: str) -> None:
        """Make a version of what is staged, unless it is one already."""
        if not self._folder(version).is_dir():
            self._folder(staged).rename(self._folder(version))
        elif self._published(version) != self._published(staged):
            raise ReleaseError(f"{self._folder(version)}: holds other files than the release of that root; somebody changed it, remove it")
        self._digests.clear()

    def _published(self, revision: str) -> dict[str, TargetFile]:
        return {path: file for path, file in self.list_files(revision).items() if path not in KEPT_FILES}

    def _versions(self, *, without: str) -> list[str]:
        """All versions but one."""
        versions = [f"{VERSIONS}/{path.name}" for path in sorted((self.directory / VERSIONS).iterdir())]
        return [version for version in versions if version != without]

    def _write_beside(self, versions: list[str], files: Mapping[str, bytes]) -> None:
        """Write small files into versions, each whole or not at all."""
        for version in versions:
            for path, data in files.items():
                with self._beside(self._folder(version) / path) as beside, beside.open("wb") as written:
                    written.write(data)
                    written.flush()
                    os.fsync(written.fileno())

    def _linked(self, link: Path) -> str | None:
        """The version that a link points at."""
        return f"{VERSIONS}/{link.readlink().name}" if link.is_symlink() else None

    def _link(self, link: Path, target: str) -> None:
        """Point a link at something in one step."""
        with self._beside(link) as beside:
            beside.symlink_to(target)

    def _copy(self, source: Path, path: Path) -> None:
        with self._beside(path) as beside, source.open("rb") as read, beside.open("wb") as written:
            shutil.copyfileobj(read, written, PIECE_BYTES)
            written.flush()
            os.fsync(written.fileno())

    @contextlib.contextmanager
    def _beside(self, path: Path) -> Iterator[Path]:
        """Where to write something that then takes its place in one step; outside of the versions, so that nothing half is in one.

        Only who holds the lock may ask: what another one finds there is a leftover.
        """
        beside = self.directory / f".{secrets.token_hex(8)}.tmp"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield beside
            beside.replace(path)
        except OSError as error:
            raise storage_error(path, error) from error
        finally:
            beside.unlink(missing_ok=True)

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(folder, error) from error

    def _digest(self, path: Path) -> str:
        """SHA-256 of a file, computed once while its size and time stay."""
        status = path.stat()
        stamp = (status.st_size, status.st_mtime_ns, status.st_ino)
        found = self._digests.get(path)
        if found is None or found[0] != stamp:
            found = self._digests[path] = (stamp, sha256_file(path))
        return found[1]

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One publisher at a time; the lock goes with the process that holds it, and what the dead left half written is removed."""
        with locked(self.directory / LOCK, waits=True):
            self._remove_leftovers()
            yield

    def _remove_leftovers(self) -> None:
        """Remove what `_beside` made and nobody is writing any more; called by who holds the lock, as every writer does."""
        for path in self.directory.iterdir():
            if BESIDE.fullmatch(path.name) and (path.is_symlink() or path.is_file()):
                try:
                    path.unlink()
                except OSError as error:
                    raise storage_error(path, error) from error

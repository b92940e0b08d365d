"""Where a release can be published: what a target shows, and the few things that are done to it.

A target has one line of published states (`main`), names for some of them (tags), and a place beside where a new state is
put together and checked first (a staging branch). The Hub and a directory are targets.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

from ...store.digests import sha256_file
from ...trust.opening import OpenRelease, Trust, open_release
from ...trust.release_manifest import ReleaseManifest
from ...trust.unlisted_files import KEPT_FILES

Gated = Literal["auto", "manual", "no"]
PIECE_BYTES = 1 << 20


class Unsettled(Exception):
    """Something that may go better when it is tried again; it may or may not have been carried out."""


class Moved(Exception):
    """Not carried out, because what it was to be built on is no longer there, or what it was to make is there already."""


@dataclass(frozen=True)
class LocalFile:
    """A file of a release on this machine, with the digests that targets compare by."""

    path: Path
    size_bytes: int
    sha256: str

    @cached_property
    def git_oid(self) -> str:
        """Git's SHA-1 of the content, read in pieces."""
        digest = hashlib.sha1(b"blob %d\0" % self.size_bytes, usedforsecurity=False)
        for piece in read_pieces(self.path):
            digest.update(piece)
        return digest.hexdigest()


@dataclass(frozen=True)
class TargetFile:
    """A file that a target holds.

    Attributes:
        size_bytes: size of the content.
        sha256: digest of the content, where the target knows it.
        git_oid: Git's SHA-1 of the content, where it does not.
    """

    size_bytes: int
    sha256: str | None = None
    git_oid: str | None = None

    def holds(self, local: LocalFile) -> bool:
        """Whether it is, by size and digest, a file on this machine."""
        if self.size_bytes != local.size_bytes:
            return False
        return local.sha256 == self.sha256 if self.sha256 is not None else local.git_oid == self.git_oid


@dataclass(frozen=True)
class TargetState:
    """What a target shows now.

    Attributes:
        exists: whether there is such a target yet.
        main: the revision that is shown to everybody; none before there is one.
        files: relative POSIX path -> file, of that revision.
        tags, branches: name -> revision; `main` is not among the branches.
        is_private: whether only members see it; none where a target does not know the difference.
        gated: how access is granted; none where a target does not know the difference.
    """

    exists: bool
    main: str | None = None
    files: Mapping[str, TargetFile] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    branches: Mapping[str, str] = field(default_factory=dict)
    is_private: bool | None = None
    gated: Gated | None = None


@dataclass(frozen=True)
class Edit:
    """What turns one state into another: files to put there, from a directory on this machine, and files to remove.

    Attributes:
        source: the directory.
        put: relative POSIX paths of files in it.
        remove: relative POSIX paths of files that the state has.
        title: one line that says what it is for.
        beside: small files of the target's own that change in the same step: path -> content.
    """

    source: Path
    put: Sequence[str]
    remove: Sequence[str]
    title: str
    beside: Mapping[str, bytes] = field(default_factory=dict)


class Target(Protocol):
    """A place to publish to. Every call may raise `Unsettled`, `Moved` or `ReleaseError`; none of them is tried again inside."""

    @property
    def name(self) -> str:
        """What the user called it."""

    @property
    def repository(self) -> str | None:
        """The name by which readers know it; none for a directory, which lies elsewhere for each of them."""

    @property
    def has_access(self) -> bool:
        """Whether it says who may see and download."""

    def identify(self) -> Mapping[str, str]:
        """Who publishes where, to be shown before anything is done."""

    def read_state(self) -> TargetState:
        """What it shows now."""

    def list_files(self, revision: str) -> Mapping[str, TargetFile]:
        """The files of a revision."""

    def read_file(self, revision: str, path: str) -> bytes | None:
        """The content of a small file of a revision, or none when it has no such file."""

    def create(self) -> None:
        """Make it, without a release and, where it says who may see it, seen by members alone."""

    def set_access(self, *, is_private: bool | None, gated: Gated | None) -> None:
        """Change who may see and who may download; none leaves it."""

    def begin_branch(self, branch: str) -> None:
        """Begin a branch at what is shown now."""

    def stage(self, branch: str, parent: str, edit: Edit) -> None:
        """Put a whole new state on a branch in one step, if the branch is still where it was."""

    def fetch(self, revision: str, directory: Path) -> Path:
        """Bring a revision's files to an empty directory, and return where they lie."""

    def promote(self, revision: str, parent: str | None, edit: Edit) -> None:
        """Show a checked revision's files in one step, if nothing else is shown since.

        The edit's source holds the same files, checked; what is already at the target is not sent again.
        """

    def write(self, parent: str, files: Mapping[str, bytes]) -> None:
        """Change single small files of what is shown in one step, if nothing else is shown since."""

    def add_tag(self, tag: str, revision: str) -> None:
        """Give a revision a name."""

    def end_branch(self, branch: str) -> None:
        """Remove a branch."""


@dataclass(frozen=True)
class LocalRelease:
    """A release as it is published.

    Attributes:
        opened: the release.
        files: relative POSIX path -> file, manifest and signature among them.
    """

    opened: OpenRelease
    files: Mapping[str, LocalFile]

    @classmethod
    def read(cls, directory: Path) -> "LocalRelease":
        """Open a release that is to be published, or that was downloaded to be checked; whoever publishes writes its next status.

        Raises:
            CheckpointError: there is no such directory.
            VerificationError: the release is not let in, see `open_release`.
        """
        opened = open_release(directory, Trust("required", status="ignored"))
        files = {}
        for path in opened.paths:
            file = directory / path
            digest = opened.listed[path].sha256 if path in opened.listed else sha256_file(file)
            files[path] = LocalFile(file, file.stat().st_size, digest)
        return cls(opened, files)

    @property
    def manifest(self) -> ReleaseManifest:
        """Its manifest, without which no release is opened to be published."""
        assert self.opened.manifest is not None
        return self.opened.manifest

    @property
    def directory(self) -> Path:
        """Where it lies."""
        return self.opened.directory

    @property
    def root(self) -> str:
        """The Merkle root of its files."""
        return self.manifest.root

    def is_shown_by(self, files: Mapping[str, TargetFile]) -> bool:
        """Whether a target's files are these and no others, apart from what a target keeps beside."""
        others = {path: file for path, file in files.items() if path not in KEPT_FILES}
        return others.keys() == self.files.keys() and all(others[path].holds(local) for path, local in self.files.items())


def read_pieces(path: Path) -> Iterator[bytes]:
    """The content of a file, a piece at a time."""
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece

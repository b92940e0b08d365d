"""What the loopback hub remembers: accounts, repositories with commits, branches and tags, and large objects on disk."""

import base64
import hashlib
import json
import secrets
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from glideslope.errors import StorageError

MAIN = "main"
LFS_SUFFIXES = (".safetensors", ".bin", ".parquet", ".png", ".pt", ".npz", ".onnx")
GIT_ATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()
PIECE_BYTES = 1 << 20
SHARD_HEADER_BYTES, SHARD_ROW_BYTES = 48, 48
SHARD_HAS_VERIFICATION, SHARD_HAS_SHA256 = 1 << 31, 1 << 30
SHARD_END = b"\xff" * 32


class Refusal(Exception):
    """A request that the hub answers with an error.

    Attributes:
        status: the HTTP status.
        code: what the client reads from `X-Error-Code`; empty when the real Hub sends none.
    """

    def __init__(self, status: int, message: str, code: str = "") -> None:
        """Remember what to answer."""
        super().__init__(message)
        self.status, self.code = status, code


@dataclass(frozen=True)
class Account:
    """Somebody with a token.

    Attributes:
        name: the user's name, which is also a namespace of repositories.
        token: the bearer token.
        can_write: whether the token may change repositories.
        organizations: further namespaces in which the account may read and write.
        is_expired: whether the token is no longer valid: every request with it is answered with 401.
    """

    name: str
    token: str
    can_write: bool = True
    organizations: tuple[str, ...] = ()
    is_expired: bool = False

    def is_member(self, namespace: str) -> bool:
        """Whether repositories of a namespace are the account's own."""
        return namespace == self.name or namespace in self.organizations


@dataclass(frozen=True)
class StoredFile:
    """A file of a commit.

    Attributes:
        oid: Git's SHA-1 of the content, or of the pointer for a large file.
        size_bytes: size of the content.
        content: the content; none for a large file.
        sha256: SHA-256 of the content of a large file; none for others.
    """

    oid: str
    size_bytes: int
    content: bytes | None = None
    sha256: str | None = None

    @classmethod
    def of_content(cls, content: bytes) -> "StoredFile":
        """A file that Git itself holds."""
        return cls(git_oid(content), len(content), content=content)

    @classmethod
    def of_pointer(cls, sha256: str, size_bytes: int) -> "StoredFile":
        """A large file, of which Git holds a pointer."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size_bytes}\n"
        return cls(git_oid(pointer.encode()), size_bytes, sha256=sha256)


@dataclass(frozen=True)
class Commit:
    """A state of a repository: its files by path, and the commit it came after."""

    oid: str
    files: Mapping[str, StoredFile]
    title: str
    parent: str | None


@dataclass
class Repository:
    """A model repository.

    Attributes:
        name: namespace and name.
        is_private: whether only members see it.
        gated: False, or how access is granted: "auto" or "manual".
        granted: names of accounts that may download although it is gated.
        commits, branches, tags: commits by id; branch and tag names with the id each points at.
    """

    name: str
    is_private: bool = False
    gated: str | bool = False
    granted: set[str] = field(default_factory=set)
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        """The user or organization that it belongs to."""
        return self.name.split("/")[0]

    def find(self, revision: str) -> Commit:
        """The commit of a branch, tag or id."""
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        if oid not in self.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[oid]

    def add_commit(self, branch: str, files: Mapping[str, StoredFile], title: str) -> Commit:
        """Put a new state on a branch."""
        parent = self.branches.get(branch)
        content = [title, parent, len(self.commits), sorted((path, file.oid) for path, file in files.items())]
        oid = hashlib.sha1(json.dumps(content).encode(), usedforsecurity=False).hexdigest()
        commit = self.commits[oid] = Commit(oid, dict(files), title, parent)
        self.branches[branch] = oid
        return commit

    def history(self, revision: str) -> list[Commit]:
        """The commits up to a revision, newest first."""
        commits, oid = [], self.find(revision).oid
        while oid:
            commits.append(self.commits[oid])
            oid = self.commits[oid].parent or ""
        return commits


class ObjectStore:
    """Large objects on disk by SHA-256: those uploaded over HTTP, and those that `hf_xet` wrote to a local store."""

    def __init__(self, directory: Path) -> None:
        """Keep objects below a directory."""
        self.lfs_dir, self.parts_dir, self.xet_dir = (directory / name for name in ("lfs", "parts", "xet"))
        for folder in (self.lfs_dir, self.parts_dir, self.xet_dir):
            folder.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Where an object that came over HTTP lies."""
        return self.lfs_dir / sha256

    def size_bytes(self, sha256: str) -> int | None:
        """Size of an object, or none when it was not uploaded."""
        if self.path(sha256).is_file():
            return self.path(sha256).stat().st_size
        found = self.find_xet(sha256)
        return None if found is None else found[1]

    def receive(self, pieces: Iterator[bytes], target: Path) -> str:
        """Write pieces to a file, whole or not at all, and return their SHA-256."""
        digest, partial = hashlib.sha256(), target.with_name(f".{target.name}.{secrets.token_hex(4)}")  # equal files may come at once
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                for piece in pieces:
                    digest.update(piece)
                    file.write(piece)
        except OSError as error:
            raise StorageError(f"{partial}: the loopback hub cannot store an upload: {error}; free space") from error
        partial.replace(target)
        return digest.hexdigest()

    def add(self, sha256: str, pieces: Iterator[bytes]) -> None:
        """Store an uploaded object; one that is not what it says is refused."""
        arrived = self.lfs_dir / f".{sha256}.{secrets.token_hex(4)}"
        if self.receive(pieces, arrived) != sha256:
            arrived.unlink()
            raise Refusal(400, "the content does not have the announced sha256")
        arrived.replace(self.path(sha256))

    def join(self, sha256: str) -> None:
        """Put the parts of a multipart upload together."""
        folder = self.parts_dir / sha256
        parts = sorted((path for path in folder.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))
        self.add(sha256, (piece for part in parts for piece in read_pieces(part)))
        for part in parts:
            part.unlink()

    def find_xet(self, sha256: str) -> tuple[str, int] | None:
        """Xet hash and size of an object that `hf_xet` stored, looked up in the shards it wrote."""
        for path in sorted(self.xet_dir.rglob("*.mdb")):
            for found, xet_hash, size_bytes in read_shard(path.read_bytes()):
                if found == sha256:
                    return xet_hash, size_bytes
        return None

    def damage_xet(self) -> None:
        """Flip one byte in the first half, where the data lies, of the largest object that `hf_xet` stored."""
        xorbs = [path for path in self.xet_dir.rglob("xorbs/default.*") if path.suffix != ".tagset"]
        largest = max(xorbs, key=lambda path: path.stat().st_size)
        with largest.open("r+b") as file:
            flip_byte(file, largest.stat().st_size // 4)


def flip_byte(file: BinaryIO, position: int) -> None:
    """Change one byte of an open file."""
    file.seek(position)
    value = file.read(1)[0]
    file.seek(position)
    file.write(bytes([value ^ 0xFF]))


def read_pieces(path: Path, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
    """The bytes of a file from start to stop, a piece at a time."""
    left = (path.stat().st_size if stop is None else stop) - start
    with path.open("rb") as file:
        file.seek(start)
        while left > 0 and (piece := file.read(min(PIECE_BYTES, left))):
            left -= len(piece)
            yield piece


def git_oid(content: bytes) -> str:
    """Git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def read_shard(data: bytes) -> Iterator[tuple[str, str, int]]:
    """SHA-256, Xet hash and size of every file in a metadata shard that `hf_xet` wrote.

    A shard begins with 48 bytes of header; each file has a header row (hash, flags, number of segments), a row per
    segment (the size is in its bytes 36 to 39), as many verification rows if the flag says so, and a row with the SHA-256.
    Hashes are stored as four little-endian 64-bit numbers.
    """
    position = SHARD_HEADER_BYTES
    while position + SHARD_ROW_BYTES <= len(data):
        xet_hash = data[position:position + 32]
        if xet_hash == SHARD_END:
            return
        flags, num_segments = struct.unpack_from("<II", data, position + 32)
        rows = range(position + SHARD_ROW_BYTES, position + SHARD_ROW_BYTES * (1 + num_segments), SHARD_ROW_BYTES)
        size_bytes = sum(struct.unpack_from("<I", data, row + 36)[0] for row in rows)
        position += SHARD_ROW_BYTES * (1 + num_segments * (2 if flags & SHARD_HAS_VERIFICATION else 1))
        if flags & SHARD_HAS_SHA256:
            yield _unswap(data[position:position + 32]), _unswap(xet_hash), size_bytes
            position += SHARD_ROW_BYTES


def _unswap(words: bytes) -> str:
    return b"".join(words[start:start + 8][::-1] for start in range(0, 32, 8)).hex()


def apply_changes(repository: Repository, branch: str, lines: Sequence[Mapping[str, Any]], objects: ObjectStore) -> Commit:
    """Make a commit from the lines of a commit request.

    Raises:
        Refusal: the branch has moved on, a large object was never uploaded, or a line is of no known kind.
    """
    header, head = lines[0]["value"], repository.find(branch)
    if header.get("parentCommit") not in (None, head.oid):
        raise Refusal(412, "A commit has happened since. Please refresh and try again.")
    files = dict(head.files)
    for line in lines[1:]:
        kind, value = line["key"], line["value"]
        if kind == "file":
            files[value["path"]] = StoredFile.of_content(base64.b64decode(value["content"]))
        elif kind == "lfsFile":
            size_bytes = objects.size_bytes(value["oid"])
            if size_bytes is None:
                raise Refusal(400, f"{value['path']}: LFS pointer to an object that was never uploaded")
            files[value["path"]] = StoredFile.of_pointer(value["oid"], size_bytes)
        elif kind == "deletedFile":
            if files.pop(value["path"], None) is None:
                raise Refusal(404, f"A file with this name doesn't exist: {value['path']}", "EntryNotFound")
        elif kind == "deletedFolder":
            files = {path: file for path, file in files.items() if not path.startswith(value["path"].rstrip("/") + "/")}
        else:
            raise Refusal(400, f"unknown kind of change {kind!r}")
    return repository.add_commit(branch, files, header["summary"])

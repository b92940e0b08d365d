"""Canonical JSON, digests of files, and the manifest of a directory.

A manifest lists every file under a directory by its relative POSIX path, size and SHA-256, sorted by path. Two
directories with equal content have equal manifests whatever the machine or the day.
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import StageError, StorageError, VerificationError

MANIFEST_NAME = "manifest.json"
MANIFEST_FORMAT = "glideslope.manifest/1"
UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EIO})


def canonical_json(value: Any) -> str:
    """Write a value as JSON with sorted keys, no spaces and no NaN: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of a value's canonical JSON."""
    return sha256_bytes(canonical_json(value).encode())


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: beside, flushed to disk, then renamed.

    Raises:
        StorageError: the directory cannot be written or the disk is full.
    """
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")  # its own name: another machine may be writing the same file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise storage_error(path, error) from error


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON (sorted keys, two spaces, no NaN) whole or not at all."""
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file of ours.

    Raises:
        StageError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise StageError(f"{path}: file is missing; run the stage that writes it") from error
    except OSError as error:
        raise StageError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise StageError(f"{path}: not readable as JSON ({error}); remove its directory and run the stage again") from error


def storage_error(path: Path, error: OSError) -> StorageError:
    """Turn an operating-system error into one clear line that names the path."""
    return StorageError(f"cannot write {path}: {error.strerror or error}; free space or choose a writable directory, "
                        "then run the same command again: finished work is kept")


@dataclass(frozen=True, order=True)
class FileEntry:
    """One file: relative POSIX path, size in bytes, hex SHA-256."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The files of a directory, sorted by path."""

    files: tuple[FileEntry, ...]

    @classmethod
    def of_directory(cls, directory: Path, *, exclude: Iterable[str] = (MANIFEST_NAME,)) -> "Manifest":
        """Hash every file below a directory, apart from the excluded relative paths.

        Raises:
            VerificationError: something below is no plain file.
        """
        excluded = set(exclude)
        entries = []
        for path in list_files(directory):
            relative = path.relative_to(directory).as_posix()
            if relative not in excluded:
                entries.append(FileEntry(relative, path.stat().st_size, sha256_file(path)))
        return cls(tuple(sorted(entries)))

    @property
    def root(self) -> str:
        """One digest for the whole: SHA-256 of the canonical list of files."""
        return sha256_json(self.to_json()["files"])

    def to_json(self) -> dict[str, Any]:
        """The manifest as plain data, without its root."""
        files = [{"path": f.path, "sha256": f.sha256, "size_bytes": f.size_bytes} for f in self.files]
        return {"format": MANIFEST_FORMAT, "files": files}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Manifest":
        """Read a manifest from plain data.

        Raises:
            VerificationError: another format or a malformed entry.
        """
        try:
            if value["format"] != MANIFEST_FORMAT:
                raise VerificationError("manifest", [f"format is {value['format']!r}, expected {MANIFEST_FORMAT!r}"])
            files = tuple(FileEntry(str(f["path"]), int(f["size_bytes"]), str(f["sha256"])) for f in value["files"])
        except (KeyError, TypeError, ValueError) as error:
            raise VerificationError("manifest", [f"malformed: {error!r}"]) from error
        return cls(tuple(sorted(files)))

    def differences(self, directory: Path, *, exclude: Iterable[str] = (MANIFEST_NAME,)) -> list[str]:
        """Compare a directory with this manifest: one sentence for every file changed, missing or added."""
        excluded = set(exclude)
        present = {p.relative_to(directory).as_posix(): p for p in list_files(directory)}
        problems = []
        for entry in self.files:
            path = present.pop(entry.path, None)
            if path is None:
                problems.append(f"{entry.path}: file is missing")
            elif path.stat().st_size != entry.size_bytes:
                problems.append(f"{entry.path}: size is {path.stat().st_size} bytes, expected {entry.size_bytes}")
            elif (found := sha256_file(path)) != entry.sha256:
                problems.append(f"{entry.path}: sha256 is {found[:12]}…, expected {entry.sha256[:12]}…")
        problems += [f"{path}: file is not in the manifest" for path in sorted(present) if path not in excluded]
        return problems


def list_files(directory: Path) -> list[Path]:
    """Every file below a directory, sorted. Links to files count as files (the Hub's cache is made of them).

    Raises:
        VerificationError: a link to a directory, a dangling link, a pipe or a device.
    """
    found, problems = [], []
    for root, folders, names in os.walk(directory):
        folders.sort()
        linked = [name for name in folders if (Path(root) / name).is_symlink()]
        for path in (Path(root) / name for name in sorted(names + linked)):
            if path.is_file():
                found.append(path)
            else:
                problems.append(f"{path.relative_to(directory).as_posix()}: not a plain file")
    if problems:
        raise VerificationError(str(directory), problems)
    return found

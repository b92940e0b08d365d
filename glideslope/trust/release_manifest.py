"""Canonical JSON, digests of files, and the manifests of a stage's directory and of a release.

A manifest lists every file under a directory by its relative POSIX path, size and SHA-256, sorted by path. Two
directories with equal content have equal manifests whatever the machine or the day. A release's manifest lists every
tensor of its weights too, and each list has a Merkle root: one file or one tensor can be checked without the others.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import StageError, StorageError, VerificationError
from ..store.strict_json import parse_object, read_bounded
from ..store.tensor_entries import TensorEntry, find_disorder, is_weight_file, read_tensors
from .merkle import DIGEST_PATTERN, MerkleProof, merkle_proof, merkle_root

MANIFEST_NAME = "manifest.json"
MANIFEST_FORMAT = "glideslope.manifest/1"
RELEASE_FORMAT = "glideslope.manifest/2"
SIGNATURE_NAME = "manifest.dsse.json"
REHEARSAL_NAME = "rehearsal.json"
UNLISTED = frozenset({MANIFEST_NAME, SIGNATURE_NAME, REHEARSAL_NAME})  # of a release; each is guarded by its own digest or signature
# What operating systems put into folders by themselves: name -> who does.
LITTER = {re.compile(r"\.DS_Store|\._.+|__MACOSX|\.Spotlight-V100|\.fseventsd"): "macOS",
          re.compile(r"(?i:thumbs\.db|desktop\.ini)"): "Windows",
          re.compile(r"\.directory|\.nfs[0-9a-f]{16,}|.+~"): "a file manager, editor or network drive"}
MAX_MANIFEST_BYTES = 32_000_000
MAX_FOLDERS_DEEP = 32  # a reader that goes down folder by folder must come to an end
NUM_THREADS = min(8, os.cpu_count() or 1)
UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EIO, errno.EBUSY,
                        errno.EFBIG, errno.ESTALE, errno.ENAMETOOLONG, errno.EMFILE, errno.ENFILE})
UNSYNCABLE = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF})  # of network and FUSE folders, which sync by themselves


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


def readable_json(value: Any) -> bytes:
    """JSON as this project writes it for people: sorted keys, two spaces, no NaN, a line end."""
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """Write a file whole or not at all: beside, on the disk, then renamed when the block ends without an error; a power cut undoes nothing.

    Raises:
        StorageError: the directory cannot be written or the disk is full.
    """
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")  # its own name: another machine may be writing the same file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Bring the names in a directory to the disk, so that a power cut undoes no rename; Windows has no such call and needs none."""
    if os.name == "posix":
        _sync(directory)


def sync_tree(directory: Path) -> None:
    """Bring every file and folder below a directory to the disk, whoever wrote it."""
    if os.name == "posix":
        for root, _, names in os.walk(directory):
            for name in names:
                _sync(Path(root) / name)
            _sync(Path(root))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSYNCABLE:
            raise
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes as `written_whole` does."""
    with written_whole(path) as file:
        file.write(data)


def write_json(path: Path, value: Any) -> None:
    """Write `readable_json` as `written_whole` does."""
    write_bytes(path, readable_json(value))


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
    def of_directory(cls, directory: Path, *, exclude: Collection[str] = (MANIFEST_NAME,)) -> "Manifest":
        """Hash every file below a directory, apart from the excluded relative paths; one that ends in `/` stands for a folder.

        Raises:
            VerificationError: something below is no plain file.
        """
        paths = _select_files(directory, exclude)
        return cls(tuple(sorted(FileEntry(name, path.stat().st_size, sha256_file(path)) for name, path in paths.items())))

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

    def differences(self, directory: Path, *, exclude: Collection[str] = (MANIFEST_NAME,)) -> list[str]:
        """Compare a directory with this manifest: one sentence for every file changed, missing or added."""
        present = _select_files(directory, exclude)
        problems = [problem for entry in self.files if (problem := _difference(entry, present.pop(entry.path, None))) is not None]
        return problems + [describe_unlisted(path) for path in sorted(present)]

    def unlisted(self, directory: Path, *, exclude: Collection[str] = (MANIFEST_NAME,)) -> list[str]:
        """Relative paths of the files in a directory that this manifest does not list, sorted."""
        return sorted(_select_files(directory, exclude).keys() - {entry.path for entry in self.files})


def _select_files(directory: Path, exclude: Collection[str]) -> dict[str, Path]:
    """The files below a directory by relative path, without the excluded ones and those in excluded folders (`name/`)."""
    folders = tuple(name for name in exclude if name.endswith("/"))
    paths = {path.relative_to(directory).as_posix(): path for path in list_files(directory)}
    return {name: path for name, path in paths.items() if name not in exclude and not name.startswith(folders)}


def describe_unlisted(path: str) -> str:
    """One sentence for a file that no manifest lists; what an operating system leaves in folders is called so."""
    system = next((name for pattern, name in LITTER.items() if any(pattern.fullmatch(part) for part in path.split("/"))), None)
    return f"{path}: file is not in the manifest" + (f"; {system} puts such files into folders, remove it" if system else "")


def list_files(directory: Path, *, without: Collection[str] = ()) -> list[Path]:
    """Every file below a directory, sorted. Links to files count as files (the Hub's cache is made of them).

    Args:
        directory: where.
        without: names directly below it that are not looked at.

    Raises:
        VerificationError: a link to a directory, a dangling link, a pipe or a device, or folders more than 32 deep.
    """
    found, problems = [], []
    for root, folders, names in os.walk(directory):
        left_out = without if Path(root) == directory else ()
        folders[:] = sorted(name for name in folders if name not in left_out)
        if folders and len(Path(root).relative_to(directory).parts) >= MAX_FOLDERS_DEEP:
            problems.append(f"{_begin(Path(root).relative_to(directory))}: folders lie more than {MAX_FOLDERS_DEEP} deep; remove them")
            folders.clear()
        linked = [name for name in folders if (Path(root) / name).is_symlink()]
        for path in (Path(root) / name for name in sorted({*names, *linked}.difference(left_out))):
            if path.is_file():
                found.append(path)
            else:
                problems.append(f"{path.relative_to(directory).as_posix()}: not a plain file")
    if problems:
        raise VerificationError(str(directory), problems)
    return found


@dataclass(frozen=True)
class ReleaseManifest:
    """The files of a release and the tensors in its weights, each list with a Merkle root.

    An entry of a tree is the canonical JSON of an entry of the list. The file `manifest.json` has one canonical form, so its
    digest stands for all of it.
    """

    files: tuple[FileEntry, ...]
    tensors: tuple[TensorEntry, ...]

    @classmethod
    def from_directory(cls, directory: Path, *, exclude: Collection[str] = ()) -> "ReleaseManifest":
        """Read every file below a directory once, several at a time and none whole; manifest, signature and rehearsal are left out.

        Args:
            directory: the release.
            exclude: further relative paths to leave out.

        Raises:
            VerificationError: something below is no plain file, or weights are not readable as safetensors.
        """
        left_out = {*UNLISTED, *exclude}
        paths = [path for path in (p.relative_to(directory).as_posix() for p in list_files(directory)) if path not in left_out]
        with ThreadPoolExecutor(NUM_THREADS) as threads:
            read = list(threads.map(lambda path: _read_entries(directory, path), paths))
        tensors = sorted((tensor for _, entries in read for tensor in entries), key=lambda tensor: tensor.place)
        if find_disorder([tensor.place for tensor in tensors]):
            raise VerificationError(str(directory), ["a tensor lies in two weight files of one component; pack the release again"])
        return cls(tuple(sorted(file for file, _ in read)), tuple(tensors))

    @classmethod
    def read(cls, path: Path) -> "ReleaseManifest":
        """Read a manifest.json.

        Raises:
            VerificationError: missing, too long, or refused by `from_bytes`.
        """
        return cls.from_bytes(read_bounded(path, MAX_MANIFEST_BYTES), where=path.name)

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str = MANIFEST_NAME) -> "ReleaseManifest":
        """Parse the bytes of a manifest.json: they must be exactly the ones that `to_bytes` gives.

        Raises:
            VerificationError: not JSON, another format, an entry that is malformed, repeated or out of order, a path that leaves
                the directory, roots that do not fit the lists, or another way to write the same.
        """
        value = parse_object(data, where=where, max_bytes=MAX_MANIFEST_BYTES, max_depth=5)
        if value.get("format") != RELEASE_FORMAT:
            raise VerificationError(where, [f"format is {value.get('format')!r:.80}, expected {RELEASE_FORMAT!r}; pack the release again"])
        try:
            manifest = cls(tuple(FileEntry(f["path"], f["size_bytes"], f["sha256"]) for f in value["files"]),
                           tuple(TensorEntry(**(t | {"shape": tuple(t["shape"])})) for t in value["tensors"]))
            problems = manifest._malformed() or manifest._unfit(value, data)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise VerificationError(where, [f"malformed: {error!r:.200}; fetch or pack the release again"]) from error
        if problems:
            raise VerificationError(where, problems)
        return manifest

    @cached_property
    def root(self) -> str:
        """Hex Merkle root over the files."""
        return merkle_root(self.file_leaves)

    @cached_property
    def tensors_root(self) -> str:
        """Hex Merkle root over the tensors."""
        return merkle_root(self.tensor_leaves)

    @property
    def file_leaves(self) -> list[bytes]:
        """The entries of the tree of files."""
        return [canonical_json(entry).encode() for entry in self._files_json()]

    @property
    def tensor_leaves(self) -> list[bytes]:
        """The entries of the tree of tensors."""
        return [canonical_json(entry.to_json()).encode() for entry in self.tensors]

    @property
    def digest(self) -> str:
        """Hex SHA-256 of manifest.json, which a signature vouches for."""
        return sha256_bytes(self.to_bytes())

    def to_json(self) -> dict[str, Any]:
        """The manifest as plain data, with its roots."""
        return {"format": RELEASE_FORMAT, "files": self._files_json(), "root": self.root,
                "tensors": [tensor.to_json() for tensor in self.tensors], "tensors_root": self.tensors_root}

    def to_bytes(self) -> bytes:
        """The one form of manifest.json: keys sorted, two spaces, a newline at the end."""
        return readable_json(self.to_json())

    def prove_file(self, path: str) -> MerkleProof:
        """Prove to somebody who knows only the root that a file is listed, see `merkle.check_merkle_proof`.

        Raises:
            VerificationError: the manifest lists no such file.
        """
        places = [place for place, entry in enumerate(self.files) if entry.path == path]
        if not places:
            raise VerificationError(MANIFEST_NAME, [f"{path}: file is not in the manifest"])
        return merkle_proof(self.file_leaves, places[0])

    def prove_tensor(self, component: str, name: str, *, variant: str | None = None) -> MerkleProof:
        """Prove to somebody who knows only the root of the tensors that one is listed; see `prove_file`."""
        places = [place for place, entry in enumerate(self.tensors) if entry.place == (component, variant or "", name)]
        if not places:
            raise VerificationError(MANIFEST_NAME, [f"{component}: tensor {name} is not in the manifest"])
        return merkle_proof(self.tensor_leaves, places[0])

    def differences(self, directory: Path, *, only: Collection[str] | None = None, exclude: Collection[str] = ()) -> list[str]:
        """Hash files and compare them with the manifest: one sentence for every file changed, missing or added.

        Args:
            directory: the release, or part of it.
            only: relative paths to look at, such as those that were fetched; none looks at all and refuses what is not listed.
            exclude: further paths that may lie there without being listed; one that ends in `/` stands for a folder.
        """
        if only is None:
            present = {path.relative_to(directory).as_posix(): path for path in list_files(directory)}
        else:
            present = {path: directory / path for path in only if (directory / path).is_file()}
        wanted = [entry for entry in self.files if only is None or entry.path in only]
        with ThreadPoolExecutor(NUM_THREADS) as threads:
            found = threads.map(lambda entry: _difference(entry, present.get(entry.path)), wanted)
            problems = [problem for problem in found if problem is not None]
        listed, allowed = {entry.path for entry in self.files}, {*UNLISTED, *exclude}
        folders = tuple(name for name in exclude if name.endswith("/"))
        others = sorted((set(present) if only is None else set(only)) - listed - allowed)
        return problems + [describe_unlisted(path) for path in others if not path.startswith(folders)]

    def tensor_differences(self, directory: Path) -> list[str]:
        """Hash the tensors of the weights that are listed and compare them: one sentence for each that is changed, missing or added."""
        paths = [entry.path for entry in self.files if is_weight_file(entry.path)]
        with ThreadPoolExecutor(NUM_THREADS) as threads:
            read = list(threads.map(lambda path: _try_tensors(directory, path), paths))
        unreadable = [problem for result in read if isinstance(result, VerificationError) for problem in result.problems]
        found = [entry for result in read if not isinstance(result, VerificationError) for entry in result]
        stated = {tensor.place: tensor for tensor in self.tensors}
        problems = [problem for entry in found if (problem := entry.difference(stated.pop(entry.place, None))) is not None]
        missing = [] if unreadable else [f"{entry.component}: tensor {entry.name} is in no weight file" for entry in stated.values()]
        return unreadable + problems + missing

    def _files_json(self) -> list[dict[str, Any]]:
        return [{"path": f.path, "sha256": f.sha256, "size_bytes": f.size_bytes} for f in self.files]

    def _unfit(self, value: Mapping[str, Any], data: bytes) -> list[str]:
        problems = [f"does not fit its own list ({name} is {str(value[name])[:12]}…, the list gives {found[:12]}…)"
                    for name, found in (("root", self.root), ("tensors_root", self.tensors_root)) if value[name] != found]
        return problems or ([] if self.to_bytes() == data else ["is not in the form that pack writes; pack the release again"])

    def _malformed(self) -> list[str]:
        problems = [f"{entry.path!r:.200}: not a relative path below the release, or its size or digest is malformed"
                    for entry in self.files if not _is_listable(entry)]
        problems += [f"tensor {tensor.name!r:.200}: its entry is malformed" for tensor in self.tensors if not tensor.is_well_formed]
        if problems:
            return problems
        lists: dict[str, list[tuple[str, ...]]] = {"files": [(file.path,) for file in self.files],
                                                   "tensors": [tensor.place for tensor in self.tensors]}
        return [f"{what} are out of order or listed twice; pack the release again" for what, places in lists.items() if find_disorder(places)]


def _begin(path: Path) -> str:
    """The first folders of a path that is too long to be shown."""
    return "/".join(path.parts[:3]) + "/…"


def _is_listable(entry: FileEntry) -> bool:
    path, size_bytes, digest = entry.path, entry.size_bytes, entry.sha256
    return (isinstance(path, str) and not {"", ".", ".."} & set(path.split("/")) and not {"\\", "\0", ":"} & set(path)
            and path not in UNLISTED and type(size_bytes) is int and size_bytes >= 0
            and isinstance(digest, str) and DIGEST_PATTERN.fullmatch(digest) is not None)


def _read_entries(directory: Path, path: str) -> tuple[FileEntry, list[TensorEntry]]:
    file = directory / path
    digest, tensors = read_tensors(directory, path) if is_weight_file(path) else (sha256_file(file), [])
    return FileEntry(path, file.stat().st_size, digest), tensors


def _try_tensors(directory: Path, path: str) -> list[TensorEntry] | VerificationError:
    try:
        return read_tensors(directory, path)[1]
    except VerificationError as error:
        return error


def _difference(entry: FileEntry, file: Path | None) -> str | None:
    if file is None:
        return f"{entry.path}: file is missing"
    size_bytes = file.stat().st_size
    if size_bytes != entry.size_bytes:
        return f"{entry.path}: size is {size_bytes} bytes, expected {entry.size_bytes}"
    found = sha256_file(file)
    return None if found == entry.sha256 else f"{entry.path}: sha256 is {found[:12]}…, expected {entry.sha256[:12]}…"

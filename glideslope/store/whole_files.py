"""Files written whole or not at all, and brought to the disk: whoever kills the writer finds the old file or the new one."""

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import StageError, StorageError
from .digests import readable_json

UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EIO, errno.EBUSY,
                        errno.EFBIG, errno.ESTALE, errno.ENAMETOOLONG, errno.EMFILE, errno.ENFILE})
UNSYNCABLE = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF})  # of network and FUSE folders, which sync by themselves


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

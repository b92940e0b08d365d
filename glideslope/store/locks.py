"""Locks between processes, by a file that they all open: flock where there is one, else what the system has, else a warning.

A lock goes with the process that holds it. Over NFS, flock becomes a lock of byte ranges, which asks for a file that is open for
reading and writing. A folder that knows no locks at all (some network and FUSE folders) is worked in without one, and a warning says so.
"""

import errno
import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .whole_files import storage_error

HELD = frozenset({errno.EAGAIN, errno.EACCES, errno.EDEADLK})  # by another process; the last is what Windows says after its own waiting
UNSUPPORTED = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF})

log = logging.getLogger(__name__)


@contextmanager
def locked(path: Path, *, is_shared: bool = False, waits: bool = False) -> Iterator[bool]:
    """Hold the lock of a file, which is made where it is missing.

    Args:
        path: the file; it stays.
        is_shared: others may hold it at the same time, if they share it too. Windows knows no such lock, and takes none.
        waits: wait until it is free.

    Yields:
        Whether the lock is held, or the folder knows none; false where another process holds it.

    Raises:
        StorageError: the file cannot be opened, or locking fails otherwise.
    """
    try:
        file = path.open("a+b")
    except OSError as error:
        raise storage_error(path, error) from error
    with file:
        try:
            _lock(file, is_shared=is_shared, waits=waits)
            is_held = True
        except OSError as error:
            if error.errno not in HELD | UNSUPPORTED:
                raise storage_error(path, error) from error
            is_held = error.errno not in HELD
            if is_held:
                log.warning("%s: this folder knows no locks (%s); see to it that no other process works in it", path.parent, error.strerror)
        yield is_held


def _lock(file: BinaryIO, *, is_shared: bool, waits: bool) -> None:
    try:
        fcntl = importlib.import_module("fcntl")
    except ModuleNotFoundError:
        if not is_shared:
            windows = importlib.import_module("msvcrt")
            file.seek(0)
            windows.locking(file.fileno(), windows.LK_LOCK if waits else windows.LK_NBLCK, 1)
        return
    fcntl.flock(file, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | (0 if waits else fcntl.LOCK_NB))

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from glideslope.errors import StorageError
from glideslope.store.locks import locked

HOLDER = """
import sys
from pathlib import Path
from glideslope.store.locks import locked
with locked(Path(sys.argv[1]), is_shared=sys.argv[2] == "shared") as is_held:
    print(is_held, flush=True)
    sys.stdin.read()
"""


def hold(path: Path, kind: str) -> "subprocess.Popen[str]":
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path), kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    return holder


@pytest.mark.parametrize(("theirs", "ours", "is_free"), [("whole", False, False), ("whole", True, False), ("shared", False, False),
                                                         ("shared", True, True)])
def test_a_lock_is_for_one_process_or_for_those_that_share_it_and_goes_with_the_process(tmp_path: Path, theirs: str, ours: bool,
                                                                                       is_free: bool) -> None:
    with hold(tmp_path / "lock", theirs) as holder:
        with locked(tmp_path / "lock", is_shared=ours) as is_held:
            assert is_held is is_free
        holder.kill()
        holder.wait()
        with locked(tmp_path / "lock", waits=True) as is_held:
            assert is_held


def fail_with(number: int) -> Any:
    def flock(_: Any, how: int) -> None:
        raise OSError(number, os.strerror(number))

    return flock


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF])
@pytest.mark.parametrize("is_shared", [False, True])
def test_a_folder_without_locks_is_worked_in_and_said(tmp_path: Path, number: int, is_shared: bool, monkeypatch: pytest.MonkeyPatch,
                                                      caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(fcntl, "flock", fail_with(number))
    with locked(tmp_path / "lock", is_shared=is_shared, waits=True) as is_held:
        assert is_held
    assert f"{tmp_path}: this folder knows no locks ({os.strerror(number)}); see to it that no other process works in it" in caplog.text


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES])
def test_a_lock_of_another_process_is_told_however_the_system_says_it(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", fail_with(number))
    with locked(tmp_path / "lock") as is_held:
        assert not is_held


def test_the_file_is_open_both_ways_as_locks_over_nfs_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A range lock that is shared needs a file open for reading, one that is not needs writing: lockf has the same rule."""
    monkeypatch.setattr(fcntl, "flock", fcntl.lockf)
    for is_shared in (False, True):
        with locked(tmp_path / "lock", is_shared=is_shared) as is_held:
            assert is_held


def test_a_lock_that_cannot_be_made_or_fails_otherwise_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match=r"cannot write .*lock: No such file or directory"), locked(tmp_path / "gone" / "lock"):
        pass
    monkeypatch.setattr(fcntl, "flock", fail_with(errno.EIO))
    with pytest.raises(StorageError, match=r"cannot write .*lock: Input/output error"), locked(tmp_path / "lock"):
        pass

import errno
import os
from pathlib import Path

import pytest

from glideslope.errors import StageError, StorageError
from glideslope.store import whole_files
from glideslope.store.whole_files import read_json, write_bytes, write_json


def test_a_file_is_written_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.json"
    write_json(path, {"b": 1, "a": "é"})
    assert path.read_text(encoding="utf-8") == '{\n  "a": "é",\n  "b": 1\n}\n'
    assert read_json(path) == {"b": 1, "a": "é"}
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]


def test_a_full_disk_is_one_clear_error_and_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(whole_files.os, "fsync", full)
    with pytest.raises(StorageError, match=r"cannot write .*file: No space left on device; free space or choose a writable directory"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_path_below_a_regular_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        write_bytes(tmp_path / "file" / "below" / "x", b"")


def test_json_that_cannot_be_read_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"x\.json: file is missing; run the stage that writes it"):
        read_json(tmp_path / "x.json")
    with pytest.raises(StageError, match="cannot be read: Is a directory"):
        read_json(tmp_path)
    for content in (b"{", b"\xff", b"[" * 100_000):
        (tmp_path / "x.json").write_bytes(content)
        with pytest.raises(StageError, match=r"x\.json: not readable as JSON"):
            read_json(tmp_path / "x.json")

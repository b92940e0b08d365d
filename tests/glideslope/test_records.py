import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from glideslope.errors import StageError, StorageError
from glideslope.manifest import write_bytes, write_json
from glideslope.records import Record, read_record, run_stage


class Work:
    """Writes two files and counts how often it was asked, and how many it had to write."""

    def __init__(self, text: str = "x", fail_after: int | None = None) -> None:
        self.text, self.fail_after = text, fail_after
        self.calls, self.written = 0, 0

    def __call__(self, partial: Path) -> Mapping[str, Any]:
        self.calls += 1
        for i in range(2):
            path = partial / f"shard-{i}.txt"
            if path.exists():
                continue
            if self.fail_after == i:
                raise KeyboardInterrupt
            write_bytes(path, f"{self.text}{i}".encode())
            self.written += 1
        return {"num_shards": 2, "environment": {"rate": 3.5}}


def stage(directory: Path, work: Callable[[Path], Mapping[str, Any]], *, config: int = 1, source: str = "s",
          record_path: Path | None = None) -> Record:
    return run_stage(directory, stage="index", config={"size": config}, inputs={"source": source}, work=work, record_path=record_path)


def test_a_finished_stage_leaves_its_files_its_record_and_nothing_else(tmp_path: Path) -> None:
    record = stage(tmp_path / "index", Work())
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == ["record.json", "shard-0.txt", "shard-1.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    assert record.summary == {"num_shards": 2}
    assert record.environment["rate"] == 3.5
    assert {"versions", "machine", "num_cores", "started", "finished", "seconds"} <= set(record.environment)
    assert read_record(tmp_path / "index") == record


def test_the_digest_does_not_depend_on_time_or_machine_but_on_all_else(tmp_path: Path) -> None:
    first = stage(tmp_path / "a", Work())
    assert stage(tmp_path / "b", Work()).digest == first.digest
    others = [stage(tmp_path / "c", Work("y")), stage(tmp_path / "d", Work(), config=2), stage(tmp_path / "e", Work(), source="t")]
    assert len({first.digest, *(other.digest for other in others)}) == 4


def test_the_same_stage_is_not_done_again(tmp_path: Path) -> None:
    work = Work()
    first = stage(tmp_path / "index", work)
    assert stage(tmp_path / "index", work) == first
    assert work.calls == 1


@pytest.mark.parametrize("changed", [{"config": 2}, {"source": "t"}])
def test_another_configuration_or_input_does_the_stage_again(tmp_path: Path, changed: dict[str, Any]) -> None:
    stage(tmp_path / "index", Work("old"))
    work = Work("new")
    record = stage(tmp_path / "index", work, **changed)
    assert work.written == 2
    assert (tmp_path / "index" / "shard-0.txt").read_text() == "new0"
    assert read_record(tmp_path / "index") == record


def test_what_a_stopped_stage_had_finished_is_used_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path / "index", Work(fail_after=1))
    assert not (tmp_path / "index").exists()
    (tmp_path / "index.partial" / "shard-1.txt.tmp").write_text("half")
    work = Work()
    record = stage(tmp_path / "index", work)
    assert work.written == 1
    assert [entry.path for entry in record.outputs.files] == ["shard-0.txt", "shard-1.txt"]
    assert record.digest == stage(tmp_path / "undisturbed", Work()).digest
    assert not (tmp_path / "index.partial").exists()


def test_what_was_stopped_with_another_configuration_is_thrown_away(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path / "index", Work("old", fail_after=1))
    stage(tmp_path / "index", Work("new"), config=2)
    assert (tmp_path / "index" / "shard-0.txt").read_text() == "new0"


def test_a_partial_directory_without_an_intent_is_thrown_away(tmp_path: Path) -> None:
    (tmp_path / "index.partial").mkdir()
    (tmp_path / "index.partial" / "shard-0.txt").write_text("of unknown origin")
    stage(tmp_path / "index", Work())
    assert (tmp_path / "index" / "shard-0.txt").read_text() == "x0"


@pytest.mark.parametrize(("edit", "told"), [
    (lambda d: (d / "shard-0.txt").write_text("y0"), r"shard-0\.txt: sha256 is"),
    (lambda d: (d / "shard-0.txt").unlink(), r"shard-0\.txt: file is missing"),
    (lambda d: (d / "extra.txt").touch(), r"extra\.txt: file is not in the manifest")])
def test_a_finished_stage_that_was_changed_is_never_trusted(tmp_path: Path, edit: Callable[[Path], Any], told: str) -> None:
    stage(tmp_path / "index", Work())
    edit(tmp_path / "index")
    work = Work()
    with pytest.raises(StageError, match=f"{told}.*; remove the directory and run the stage again"):
        stage(tmp_path / "index", work)
    assert work.calls == 0


def test_an_edited_record_is_refused(tmp_path: Path) -> None:
    stage(tmp_path / "index", Work())
    path = tmp_path / "index" / "record.json"
    value = json.loads(path.read_text())
    value["summary"]["num_shards"] = 3
    write_json(path, value)
    with pytest.raises(StageError, match="the record was edited"):
        read_record(tmp_path / "index")
    for broken in ({}, [], {**value, "outputs": [{"path": "a"}]}):
        write_json(path, broken)
        with pytest.raises(StageError, match="malformed record"):
            read_record(tmp_path / "index")
    path.write_text("{")
    with pytest.raises(StageError, match="not readable as JSON"):
        read_record(tmp_path / "index")


def test_a_stage_that_has_not_finished_has_no_record(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no finished stage here"):
        read_record(tmp_path)


def test_a_record_may_lie_outside_where_the_directory_is_to_be_published(tmp_path: Path) -> None:
    kept_at, work = tmp_path / "release.record.json", Work()
    record = stage(tmp_path / "release", work, record_path=kept_at)
    assert sorted(path.name for path in (tmp_path / "release").iterdir()) == ["shard-0.txt", "shard-1.txt"]
    assert json.loads(kept_at.read_text())["digest"] == record.digest
    assert stage(tmp_path / "release", work, record_path=kept_at) == record
    assert work.calls == 1
    shutil.rmtree(tmp_path / "release")
    assert stage(tmp_path / "release", work, record_path=kept_at).digest == record.digest
    assert work.calls == 2


@pytest.mark.parametrize("below", ["file/index", "file/runs/index"])
def test_a_directory_that_cannot_be_made_is_one_clear_error(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot write .*: Not a directory; free space or choose a writable directory"):
        stage(tmp_path / below, Work())


def test_a_full_disk_inside_a_stage_is_one_clear_error_and_the_next_run_goes_on(tmp_path: Path) -> None:
    def full(partial: Path) -> Mapping[str, Any]:
        write_bytes(partial / "shard-0.txt", b"x0")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(partial / "shard-1.txt"))

    with pytest.raises(StorageError, match=r"cannot write .*shard-1\.txt: No space left on device; .* finished work is kept"):
        stage(tmp_path / "index", full)
    work = Work()
    stage(tmp_path / "index", work)
    assert work.written == 1


def test_other_failures_of_the_work_are_not_disguised(tmp_path: Path) -> None:
    def broken(partial: Path) -> Mapping[str, Any]:
        raise OSError(errno.ENOENT, "No such file")

    with pytest.raises(FileNotFoundError):
        stage(tmp_path / "index", broken)

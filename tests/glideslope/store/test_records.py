import errno
import json
import logging
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from glideslope.errors import StageError, StorageError
from glideslope.store import records
from glideslope.store.records import Record, read_record, run_stage
from glideslope.store.whole_files import write_bytes, write_json


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
          record_path: Path | None = None, is_costly: bool = False) -> Record:
    return run_stage(directory, stage="index", config={"size": config}, inputs={"source": source}, work=work, record_path=record_path,
                     is_costly=is_costly)


def stop_costly(directory: Path, text: str, config: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        stage(directory, Work(text, fail_after=1), config=config, is_costly=True)


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


def test_quick_work_that_was_stopped_with_another_configuration_is_thrown_away(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path / "index", Work("old", fail_after=1))
    stage(tmp_path / "index", Work("new"), config=2)
    assert (tmp_path / "index" / "shard-0.txt").read_text() == "new0"
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_a_record_of_another_version_may_state_what_no_result_depends_on(tmp_path: Path) -> None:
    place = tmp_path / "index"
    old = run_stage(place, stage="index", config={"size": 1, "checkpoint_images": 40}, inputs={"source": "s"}, work=Work("old"), is_costly=True)
    found = run_stage(place, stage="index", config={"size": 1}, inputs={"source": "s"}, work=Work("new"), is_costly=True,
                      pace={"checkpoint_images"})
    assert found == old
    again = run_stage(place, stage="index", config={"size": 2}, inputs={"source": "s"}, work=Work("new"), is_costly=True,
                      pace={"checkpoint_images"})
    assert again.config == {"size": 2}


@pytest.mark.parametrize(("before", "told"), [({"size": 1, "pace": 3}, "knows no setting pace"), ({}, "knows the setting size")])
def test_costly_work_of_another_version_is_kept_and_the_way_back_is_that_version(
        tmp_path: Path, caplog: pytest.LogCaptureFixture, before: dict[str, Any], told: str) -> None:
    place = tmp_path / "index"
    run_stage(place, stage="index", config=before, inputs={"source": "s"}, work=Work("old"), is_costly=True)
    stage(place, Work("new"), is_costly=True)
    aside, = tmp_path.glob("index.aside-*")
    assert (aside / "shard-0.txt").read_text() == "old0"
    assert f"index: this version {told}; running again" in caplog.text
    assert f"kept in {aside}: take the version of glideslope that wrote it to have it again" in caplog.text


def test_costly_work_that_was_stopped_with_another_configuration_is_kept_and_taken_up_again(tmp_path: Path,
                                                                                            caplog: pytest.LogCaptureFixture) -> None:
    stop_costly(tmp_path / "index", "old", config=1)
    stop_costly(tmp_path / "index", "new", config=2)
    aside, = tmp_path.glob("index.aside-*")
    assert (aside / "shard-0.txt").read_text() == "old0"
    assert f"index: size was 1 and is 2; what had been done so far is kept in {aside}: remove it, or set the settings back" in caplog.text
    work = Work("old")
    stage(tmp_path / "index", work, config=1, is_costly=True)
    assert work.written == 1, "the first shard was there"
    assert "index: goes on with what was kept aside with these settings" in caplog.text
    aside, = tmp_path.glob("index.aside-*")
    assert (aside / "shard-0.txt").read_text() == "new0"


def test_costly_results_of_other_settings_are_kept_and_come_back_without_work(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = stage(tmp_path / "index", Work("old"), config=1, is_costly=True)
    stop_costly(tmp_path / "index", "new", config=2)
    assert read_record(tmp_path / "index") == first, "what was finished stays until the new one stands"
    assert "index: size was 1 and is 2; running again. What was finished stays until the new one stands, then it is kept in" in caplog.text
    stage(tmp_path / "index", Work("new"), config=2, is_costly=True)
    assert (tmp_path / "index" / "shard-0.txt").read_text() == "new0"
    work = Work("old")
    assert stage(tmp_path / "index", work, config=1, is_costly=True) == first
    assert work.calls == 0
    stage(tmp_path / "index", Work("other"), config=1, source="t", is_costly=True)
    assert len(list(tmp_path.iterdir())) == 2, "with other inputs alone the result is replaced"


def test_settings_that_changed_are_named_and_those_beyond_four_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="glideslope")
    for value in (1, 2):
        run_stage(tmp_path / "index", stage="index", config={"a": {"b": value, "c": 0}, **{f"k{i}": value for i in range(5)}},
                  inputs={"source": str(value), "same": ""}, work=Work())
    told = "index: a.b was 1 and is 2, k0 was 1 and is 2, k1 was 1 and is 2, k2 was 1 and is 2, 2 more settings changed, other source"
    assert told in caplog.text


@pytest.mark.parametrize("intent", [None, b"", b"{}"])
def test_a_partial_directory_of_unknown_origin_is_kept_aside(tmp_path: Path, intent: bytes | None, caplog: pytest.LogCaptureFixture) -> None:
    for number in (1, 2):
        (tmp_path / "index.partial").mkdir()
        (tmp_path / "index.partial" / "shard-0.txt").write_text(f"of unknown origin {number}")
        if intent is not None:
            (tmp_path / "index.partial" / "intent.json").write_bytes(intent)
        stage(tmp_path / "index", Work(), config=number)
        assert (tmp_path / "index" / "shard-0.txt").read_text() == "x0"
        assert (tmp_path / f"index.aside-{number}" / "shard-0.txt").read_text() == f"of unknown origin {number}"
    assert "index: of unknown origin; what had been done so far is kept in" in caplog.text


@pytest.mark.parametrize(("edit", "told"), [
    (lambda d: (d / "shard-0.txt").write_text("y0"), r"shard-0\.txt: sha256 is"),
    (lambda d: (d / "shard-0.txt").unlink(), r"shard-0\.txt: file is missing"),
    (lambda d: (d / "shard-0.txt").rename(d / "extra.txt"), r"shard-0\.txt: file is missing; extra\.txt: file is not in the manifest")])
def test_a_finished_stage_that_was_changed_is_never_trusted(tmp_path: Path, edit: Callable[[Path], Any], told: str) -> None:
    stage(tmp_path / "index", Work())
    edit(tmp_path / "index")
    work = Work()
    with pytest.raises(StageError, match=f"{told}.*; remove the directory and run the stage again"):
        stage(tmp_path / "index", work)
    assert work.calls == 0


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "._shard-0.txt", ".nfs00a1", "shard-0.txt~", ".shard-0.txt.swp", "sub/x"])
def test_a_stray_file_in_a_finished_stage_is_named_and_is_all_that_has_to_go(tmp_path: Path, name: str) -> None:
    stage(tmp_path / "index", Work())
    path = tmp_path / "index" / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with pytest.raises(StageError, match=f"holds {re.escape(name)}, which the stage did not write; remove that file"):
        stage(tmp_path / "index", Work())
    path.unlink()
    work = Work()
    stage(tmp_path / "index", work)
    assert work.calls == 0


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini", "._shard-0.txt", ".nfs00a1"])
def test_what_a_desktop_leaves_in_a_stage_at_work_is_no_part_of_its_result(tmp_path: Path, name: str) -> None:
    def work(partial: Path) -> Mapping[str, Any]:
        (partial / name).touch()
        return Work()(partial)

    assert stage(tmp_path / "index", work).digest == stage(tmp_path / "undisturbed", Work()).digest


def test_checkpoints_are_no_part_of_the_result_and_stay_until_the_record_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(partial: Path) -> Mapping[str, Any]:
        write_bytes(partial / "checkpoints" / "step-1" / "model", b"m")
        return Work()(partial)

    monkeypatch.setattr(records, "write_json", full_disk)
    with pytest.raises(StorageError, match="No space left"):
        stage(tmp_path / "index", work)
    monkeypatch.undo()
    assert not (tmp_path / "index").exists()
    record = stage(tmp_path / "index", work)
    assert record.digest == stage(tmp_path / "undisturbed", Work()).digest
    assert not (tmp_path / "index" / "checkpoints").exists()


def full_disk(path: Path, value: Any) -> None:
    if path.name == "record.json":
        assert (path.parent / "checkpoints" / "step-1" / "model").is_file()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    write_json(path, value)


def test_a_link_to_a_stage_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk" / "index").mkdir(parents=True)
    (tmp_path / "index").symlink_to(tmp_path / "disk" / "index")
    for config in (1, 2):
        record = stage(tmp_path / "index", Work(str(config)), config=config)
        assert read_record(tmp_path / "index") == record
    assert (tmp_path / "index").is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["index"]


def test_a_link_to_nowhere_gives_the_place_it_names(tmp_path: Path) -> None:
    (tmp_path / "index").symlink_to(tmp_path / "disk" / "index")
    stage(tmp_path / "index", Work())
    assert (tmp_path / "disk" / "index" / "shard-0.txt").read_text() == "x0"


@pytest.mark.parametrize("hinder", ["file", "read-only", "busy", "not mine"])
def test_what_could_not_be_replaced_at_the_end_is_refused_before_the_work(tmp_path: Path, hinder: str, monkeypatch: pytest.MonkeyPatch,
                                                                          as_nobody: Callable[[Path], Any]) -> None:
    directory, work = tmp_path / "index", Work()
    if hinder == "file":
        directory.write_text("mine")
        with pytest.raises(StageError, match="index: is no directory, and the stage's result belongs there; move it away"):
            stage(directory, work)
    else:
        stage(directory, Work("old"))
        told = {"busy": "Device or resource busy", "read-only": "it is read-only", "not mine": "Operation not permitted|it is .*"}[hinder]
        if hinder == "busy":
            monkeypatch.setattr(Path, "rename", busy)
        elif hinder == "read-only":
            directory.chmod(0o555)
            as_nobody(tmp_path)
        else:
            tmp_path.chmod(0o1777)  # as in /tmp: only the owner may rename
            as_nobody(tmp_path / "elsewhere")
        with pytest.raises(StorageError, match=rf"index: could not be replaced when the stage ends \(({told})\); nothing was begun"):
            stage(directory, work, config=2)
        assert (directory / "shard-0.txt").read_text() == "old0"
    assert work.calls == 0


def busy(self: Path, target: Path) -> None:
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(self))


@pytest.fixture
def as_nobody() -> Iterator[Callable[[Path], None]]:
    """Go on as a user without rights, who owns a directory and what lies in it; back at the end."""
    def become(owned: Path) -> None:
        if os.geteuid() == 0:
            for path in (owned, *owned.rglob("*")):
                if path.exists():
                    os.chown(path, 65534, 65534)
            owned.parent.chmod(owned.parent.stat().st_mode | 0o055)
            owned.parent.parent.chmod(0o755)
            owned.parent.parent.parent.chmod(0o755)
            os.seteuid(65534)

    yield become
    if os.getuid() == 0:
        os.seteuid(0)


def test_a_directory_that_is_held_only_at_the_end_costs_no_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage(tmp_path / "index", Work("old"))
    rename = Path.rename

    def work(partial: Path) -> Mapping[str, Any]:
        monkeypatch.setattr(Path, "rename", lambda path, target: (rename if path.name == "index.replaced" else busy)(path, target))
        return Work("new")(partial)

    with pytest.raises(StorageError, match=r"index: cannot be replaced \(Device or resource busy\). The new result lies whole in .*partial"):
        stage(tmp_path / "index", work, config=2)
    monkeypatch.undo()
    assert (tmp_path / "index" / "shard-0.txt").read_text() == "old0"
    again = Work("again")
    stage(tmp_path / "index", again, config=2)
    assert again.calls == 0
    assert (tmp_path / "index" / "shard-0.txt").read_text() == "new0"
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


EVENTS = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir", "open", "shutil.rmtree"})


def run_and_die(before: int, do: Callable[[], Any]) -> bool:
    """In a child process: do something and die by kill -9 before its n-th change on the disk; whether it came to its end."""
    child = os.fork()
    if child == 0:
        count = 0

        def hook(event: str, _: Any) -> None:
            nonlocal count
            if event in EVENTS:
                count += 1
                if count == before:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(hook)
            do()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return not os.WIFSIGNALED(status)


@pytest.mark.parametrize(("is_apart", "is_costly"), [(False, True), (True, False)])
def test_a_kill_at_any_moment_loses_no_result(tmp_path: Path, is_apart: bool, is_costly: bool) -> None:
    finished = stage(tmp_path / "undisturbed", Work("new"), config=2)
    for moment in range(1, 500):
        root = tmp_path / str(moment)
        root.mkdir()
        kept_at = root / "index.record.json" if is_apart else None
        old = stage(root / "index", Work("old"), record_path=kept_at, is_costly=is_costly)
        come_to_end = run_and_die(moment, lambda root=root, kept_at=kept_at: stage(  # type: ignore[misc]  # bound at once
            root / "index", Work("new"), config=2, record_path=kept_at, is_costly=is_costly))
        results = {(path / "shard-0.txt").read_text() + (path / "shard-1.txt").read_text() for path in root.iterdir()
                   if (path / "shard-1.txt").is_file()}
        assert results & {"old0old1", "new0new1"}, f"before change {moment}"
        record = stage(root / "index", Work("new"), config=2, record_path=kept_at, is_costly=is_costly)
        assert record.digest == finished.digest
        names = sorted(path.name for path in root.iterdir() if ".aside-" not in path.name)
        assert names == ["index", *(["index.record.json"] if is_apart else [])], f"before change {moment}"
        inside = ["shard-0.txt", "shard-1.txt"] if is_apart else ["record.json", "shard-0.txt", "shard-1.txt"]
        assert sorted(path.name for path in (root / "index").iterdir()) == inside
        if is_costly:
            work = Work("old")
            assert stage(root / "index", work, record_path=kept_at, is_costly=True).digest == old.digest
            assert work.calls == 0, f"before change {moment}"
        if come_to_end:
            break
    assert come_to_end
    assert moment > 20


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


@pytest.mark.parametrize("stated", ["=1+1", "glideslope.record/2", None])
def test_a_record_of_another_format_is_refused(tmp_path: Path, stated: str | None) -> None:
    run_stage(tmp_path / "index", stage="index", config={}, inputs={}, work=Work())
    path = tmp_path / "index" / "record.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | {"format": stated}))
    with pytest.raises(StageError, match=r"format is .*, expected 'glideslope.record/1'"):
        read_record(tmp_path / "index")

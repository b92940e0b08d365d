"""Tasks here are tiny and deadly: they leave a mark for every time they are begun, and some end their process."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from glideslope.data_filter.workers.engine import run_tasks
from glideslope.errors import StageError, VerificationError

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Toy:
    name: str
    number: int
    folder: Path
    action: str = ""


def play(toy: Toy) -> tuple[int, int]:
    """Square of the number, and the process that took it; or what the toy's action says."""
    times_before = len(list(toy.folder.glob(f"{toy.name} *")))
    (toy.folder / f"{toy.name} {times_before}").write_text(os.environ.get("OMP_NUM_THREADS", ""))
    if toy.action == "die" or (toy.action == "die once" and times_before == 0):
        os.kill(os.getpid(), signal.SIGKILL)
    if toy.action == "refuse":
        raise VerificationError(toy.name, ["a problem", "another"])
    if toy.action == "break":
        raise ZeroDivisionError(toy.name)
    if toy.action == "sleep":
        time.sleep(600)
    return toy.number ** 2, os.getpid()


def toys(folder: Path, actions: dict[int, str] | None = None, *, count: int = 6) -> list[Toy]:
    return [Toy(f"shard-{number}", number, folder, (actions or {}).get(number, "")) for number in range(count)]


def times_begun(folder: Path, number: int) -> int:
    return len(list(folder.glob(f"shard-{number} *")))


def test_one_worker_is_this_process_and_tells_every_result(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    results = run_tasks(play, toys(tmp_path), progress=told.append)
    assert results == told == [(number ** 2, os.getpid()) for number in range(6)]


def test_a_task_whose_worker_is_killed_is_done_again_and_results_keep_the_order_of_tasks(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    results = run_tasks(play, toys(tmp_path, {2: "die once"}), workers=2, progress=told.append)
    assert [square for square, _ in results] == [0, 1, 4, 9, 16, 25]
    assert sorted(told) == sorted(results) and os.getpid() not in {process for _, process in results}
    assert [times_begun(tmp_path, number) for number in range(6)] == [1, 1, 2, 1, 1, 1]


def test_a_task_that_kills_its_worker_twice_is_named_and_the_others_are_finished(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"^1 of 6 shards ended their worker process 2 times: shard-1 \(killed by SIGKILL\); the others"):
        run_tasks(play, toys(tmp_path, {1: "die", 4: "die once"}), workers=2)
    assert [times_begun(tmp_path, number) for number in range(6)] == [1, 2, 1, 1, 2, 1]


def test_a_refusal_in_a_worker_is_the_same_refusal_here_and_starts_nothing_new(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"shard-0: 2 problem\(s\): a problem; another"):
        run_tasks(play, toys(tmp_path, {0: "refuse"}, count=40), workers=2)
    assert times_begun(tmp_path, 39) == 0


def test_a_defect_in_a_worker_shows_the_shard_and_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)shard-3 failed in a worker process.*in play\n.*ZeroDivisionError: shard-3"):
        run_tasks(play, toys(tmp_path, {3: "break"}), workers=2)


def test_workers_share_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    run_tasks(play, toys(tmp_path, count=2), workers=2)
    assert {path.read_text() for path in tmp_path.iterdir()} == {"3"}


def test_workers_end_when_their_owner_is_killed(tmp_path: Path) -> None:
    code = ("from pathlib import Path\nfrom glideslope.data_filter.workers.engine import run_tasks\n"
            "from tests.data_filter.workers.test_engine import play, toys\n"
            f"if __name__ == '__main__':\n    run_tasks(play, toys(Path({str(tmp_path)!r}), {{0: 'sleep', 1: 'sleep'}}), workers=2)\n")
    script = tmp_path / "owner.py"
    script.write_text(code)
    owner = subprocess.Popen([sys.executable, str(script)], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 120
    while times_begun(tmp_path, 0) + times_begun(tmp_path, 1) < 2:
        assert owner.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    workers = psutil.Process(owner.pid).children(recursive=True)
    assert len(workers) >= 2
    owner.kill()
    owner.wait()
    _, alive = psutil.wait_procs(workers, timeout=30)
    for worker in alive:
        worker.kill()
    assert alive == []


def test_a_worker_that_cannot_start_is_one_clear_error(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text("from pathlib import Path\nfrom glideslope.data_filter.workers.engine import run_tasks\n"
                      "from tests.data_filter.workers.test_engine import play, toys\n"
                      f"run_tasks(play, toys(Path({str(tmp_path)!r})), workers=2)\n")
    ended = subprocess.run([sys.executable, str(script)], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True,
                           text=True, timeout=120, check=False)
    assert ended.returncode == 1
    assert "StageError: a worker process ended (exit code 1) before it could start" in ended.stderr


def test_an_unknown_engine_and_no_worker_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="engine must be local or ray, got 'spark'"):
        run_tasks(play, toys(tmp_path), engine="spark")
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        run_tasks(play, toys(tmp_path), workers=0)

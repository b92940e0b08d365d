"""On a real Ray cluster of two workers on this machine. What happens to a shard must not depend on the engine."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from glideslope.data_filter.workers.engine import run_tasks
from glideslope.data_filter.workers.ray_engine import connect, retry_once, share_cluster
from glideslope.errors import StageError, VerificationError

from ..real_runs import NUM_SHARDS, build, num_finished, write_clip, write_pictures
from .test_engine import play, times_begun, toys


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Ray with two workers, on this machine; nothing of it outlives the module."""
    ray = connect(2)
    yield
    ray.shutdown()


def ray_workers() -> list[psutil.Process]:
    """The processes of actors that work on shards, below this one."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "ShardWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:  # it ended meanwhile
            continue
    return found


def test_a_shard_that_kills_its_actor_twice_is_named_and_the_others_are_finished(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with pytest.raises(StageError, match=r"^1 of 6 shards ended their worker process 2 times: shard-1 \(its Ray actor died\)"):
        run_tasks(play, toys(tmp_path, {1: "die", 4: "die once"}), engine="ray", workers=2, progress=told.append)
    assert [times_begun(tmp_path, number) for number in range(6)] == [1, 2, 1, 1, 2, 1]
    assert sorted(square for square, _ in told) == [0, 4, 9, 16, 25]
    assert os.getpid() not in {process for _, process in told}


def test_a_refusal_on_a_worker_is_the_same_refusal_here(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"shard-0: 2 problem\(s\): a problem; another"):
        run_tasks(play, toys(tmp_path, {0: "refuse"}), engine="ray", workers=1)


def test_an_index_made_on_ray_with_a_worker_killed_has_the_bytes_of_one_made_here(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip")
    write_pictures(tmp_path / "pictures")
    expected = build(tmp_path, "here")
    seen: dict[str, int] = {}

    def kill_a_worker() -> None:
        deadline = time.monotonic() + 300
        while not seen and time.monotonic() < deadline:
            if num_finished(tmp_path, "ray") and (workers := ray_workers()):
                workers[0].kill()
                seen.update(killed=workers[0].pid, num_workers=len(workers), num_finished=num_finished(tmp_path, "ray"))
            time.sleep(0.01)

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    record = build(tmp_path, "ray", engine="ray", workers=2)
    killer.join()
    assert 0 < seen["num_finished"] < NUM_SHARDS, "it was killed in mid-run"
    assert record.digest == expected.digest
    for path in sorted((tmp_path / "here").glob("*.parquet")):
        assert (tmp_path / "ray" / path.name).read_bytes() == path.read_bytes()


def node(num_cpus: float, num_gpus: float = 0, *, alive: bool = True) -> dict[str, object]:
    return {"Alive": alive, "Resources": {"CPU": num_cpus, "GPU": num_gpus} if num_gpus else {"CPU": num_cpus}}


@pytest.mark.parametrize(("nodes", "workers", "expected"), [
    ([node(2)], None, (2, 1, 0.0)),
    ([node(2)], 8, (2, 1, 0.0)),
    ([node(16), node(16)], 2, (2, 16, 0.0)),
    ([node(16), node(4)], 4, (4, 2, 0.0)),
    ([node(0), node(8), node(8, alive=False)], None, (8, 1, 0.0)),
    ([node(32, 4), node(32, 4)], None, (8, 8, 1.0)),
    ([node(32, 4)], 8, (8, 4, 0.5)),
    ([node(8, 4)], 2, (2, 4, 1.0)),
])
def test_a_cluster_is_shared_out_evenly(nodes: list[dict[str, object]], workers: int | None, expected: tuple[int, int, float]) -> None:
    assert share_cluster(nodes, workers) == expected


def test_a_cluster_without_a_cpu_is_refused() -> None:
    with pytest.raises(StageError, match="no node with a CPU"):
        share_cluster([node(0)], 2)


def test_ray_is_told_to_try_a_shard_once_more_and_not_for_ever() -> None:
    assert retry_once()["max_task_retries"] == 1

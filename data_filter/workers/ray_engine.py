"""Shards on a Ray cluster: Ray Data with a pool of actors, each of which keeps its model from shard to shard.

Ray Data as it stands does a task of a dead actor again for ever, so a shard that crashes its decoder would keep the
cluster busy without end. Here each actor has one shard in hand, a shard is done again once, and what is missing at the end is named.
"""

import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import StageError
from ...text.one_line import one_line
from .task import MOST_DEATHS, Task, available_threads, dump_error, limit_threads, load_error, refuse_lost

OBJECT_STORE_BYTES = 100 * 2**20  # of a Ray that is started here; only shard numbers and small results pass through it


def run_on_ray(function: Callable[[Any], Any], tasks: Sequence[Task], workers: int | None, tell: Callable[[Any], None]) -> list[Any]:
    """Do every task on Ray; see `run_tasks`. Uses the cluster that RAY_ADDRESS names, else starts Ray on this machine.

    Raises:
        StageError: Ray is not installed or cannot be reached, or tasks ended their workers twice.
    """
    ray = connect(workers)
    num_workers, num_cpus, num_gpus = share_cluster(ray.nodes(), workers)
    with quiet_context(ray) as context:
        context.max_errored_blocks = -1  # the others are finished before a lost shard is reported
        items = ray.data.from_items([{"task_number": task_number} for task_number in range(len(tasks))], override_num_blocks=max(1, len(tasks)))
        done = items.map_batches(
            ShardWorker, fn_constructor_args=(function, list(tasks), str(Path.cwd()), num_cpus), batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(num_workers, max(1, len(tasks))), max_tasks_in_flight_per_actor=1),
            num_cpus=num_cpus, num_gpus=num_gpus, ray_remote_args_fn=retry_once)
        results: dict[int, Any] = {}
        for row in done.iter_rows() if tasks else ():
            kind, content = ray.cloudpickle.loads(row["message"])
            if kind == "error":
                raise load_error(content, tasks[row["task_number"]])
            results[int(row["task_number"])] = content
            tell(content)
    refuse_lost(tasks, {task_number: "its Ray actor died" for task_number in range(len(tasks)) if task_number not in results})
    return [results[task_number] for task_number in range(len(tasks))]


def connect(workers: int | None) -> Any:
    """The module `ray`, connected."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")  # a busy machine starts Ray slowly
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # else it raises alarms about restarts that are meant to be
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise StageError(f"engine ray needs the package ray ({error}); install it with: pip install 'glideslope[ray]'") from error
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS", "")
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if not address:
            settings |= {"num_cpus": max(workers or 1, available_threads()), "include_dashboard": False,
                         "object_store_memory": OBJECT_STORE_BYTES}
        try:
            ray.init(address or "local", **settings)
        except Exception as error:  # Ray raises plain exceptions of many kinds here
            where = f"the Ray cluster at {address} (RAY_ADDRESS) cannot be reached" if address else "Ray cannot be started on this machine"
            raise StageError(f"{where}: {one_line(error, 300)}") from error
    return ray


def share_cluster(nodes: Sequence[dict[str, Any]], workers: int | None) -> tuple[int, int, float]:
    """Split a cluster evenly.

    Args:
        nodes: as `ray.nodes()` lists them.
        workers: how many actors are wanted; None: one per GPU, or else one per CPU.

    Returns:
        How many actors there can be, and CPUs and GPUs of each.

    Raises:
        StageError: no node has a CPU.
    """
    cpus = [int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]]
    cpus = [count for count in cpus if count > 0]
    num_gpus = int(sum(node["Resources"].get("GPU", 0) for node in nodes if node["Alive"]))
    if not cpus:
        raise StageError("the Ray cluster has no node with a CPU to work on; start one with: ray start --address=...")
    num_actors = workers or num_gpus or sum(cpus)
    cpus_each = max(1, min(cpus) // math.ceil(num_actors / len(cpus)))
    possible = min(num_actors, sum(count // cpus_each for count in cpus))
    gpus_each = 0.0 if not num_gpus else 1.0 if possible <= num_gpus else 1 / math.ceil(possible / num_gpus)
    return possible, cpus_each, gpus_each


def retry_once() -> dict[str, Any]:
    """What Ray is told of each actor: it is started again when it dies, and the shard it had in hand is tried once more."""
    return {"max_restarts": -1, "max_task_retries": MOST_DEATHS - 1}


@contextmanager
def quiet_context(ray: Any) -> Iterator[Any]:
    """Ray Data's settings, to be changed inside and as they were afterwards; progress is told by us."""
    context = ray.data.DataContext.get_current()
    before = context.enable_progress_bars, context.max_errored_blocks
    logger = logging.getLogger("ray.data")
    level = logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield context
    finally:
        context.enable_progress_bars, context.max_errored_blocks = before
        logger.setLevel(level)


class ShardWorker:
    """An actor: does the tasks whose numbers it is sent."""

    def __init__(self, function: Callable[[Any], Any], tasks: Sequence[Task], directory: str, num_threads: int) -> None:
        """Keep what is needed; nothing that can fail is done before the first task."""
        self.function, self.tasks, self.directory, self.num_threads = function, tasks, directory, num_threads

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do the tasks at `batch["task_number"]`; gives back what came of each."""
        return {"task_number": batch["task_number"], "message": [self.do(int(task_number)) for task_number in batch["task_number"]]}

    def do(self, task_number: int) -> bytes:
        """One task; its result or its error as bytes."""
        from ray import cloudpickle

        try:
            if not Path(self.directory).is_dir():
                raise StageError(f"{self.directory} is not there on the node {os.uname().nodename}; with a Ray cluster the run and its source "
                                 "must lie on storage that every node sees under the same path")
            os.chdir(self.directory)
            limit_threads(self.num_threads)
            message: tuple[str, Any] = "done", self.function(self.tasks[task_number])
        except Exception as error:  # handed to the driver, which raises it
            message = "error", dump_error(error)
        return bytes(cloudpickle.dumps(message))

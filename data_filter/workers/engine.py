"""Where shards are worked on: in this process, in several, or on a Ray cluster. The same function, the same files.

A function takes one task and writes one file, whole or not at all. A task whose worker dies is done again; one that
ends its worker twice is given up, the others are finished, and then one error names it.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

from ...errors import StageError
from .task import MOST_DEATHS, Result, Task, TaskType, available_threads, dump_error, limit_threads, load_error, refuse_lost


def run_tasks(function: Callable[[TaskType], Result], tasks: Sequence[TaskType], *, engine: str = "local", workers: int | None = None,
              progress: Callable[[Result], None] | None = None) -> list[Result]:
    """Do every task.

    Args:
        function: at the top level of an importable module; takes one task, returns a small result that can be pickled. The file
            that it writes must appear whole or not at all, for a task may be started again.
        tasks: each with a `name`.
        engine: `local` (this machine) or `ray` (a Ray cluster; needs the extra `ray`).
        workers: how many processes; None: this one for `local`, one per GPU or else per CPU of the cluster for `ray`.
        progress: told each result as it comes, in any order.

    Returns:
        The results in the order of the tasks.

    Raises:
        GlideslopeError: what the function raised; the tasks in hand are finished first, nothing new is started.
        StageError: a task ended its worker process twice, after all others were done; or no worker could be started.
        ValueError: an engine that does not exist, or no worker.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    tell = progress or (lambda result: None)
    if engine == "ray":
        from .ray_engine import run_on_ray

        return run_on_ray(function, tasks, workers, tell)
    if engine != "local":
        raise ValueError(f"engine must be local or ray, got {engine!r}")
    num_workers = min(workers or 1, len(tasks))
    if num_workers > 1:
        return ProcessPool(function, tasks, num_workers, tell).run()
    results = []
    for task in tasks:
        results.append(function(task))
        tell(results[-1])
    return results


@dataclass
class Worker:
    """A worker process as its owner sees it: which task it has in hand, and whether it has said that it is ready."""

    number: int
    process: SpawnProcess
    pipe: connection.Connection
    task_number: int | None = None
    is_ready: bool = False

    def describe_end(self) -> str:
        """How the dead process ended."""
        self.process.join()
        code = self.process.exitcode or 0
        if code >= 0:
            return f"exit code {code}"
        return f"killed by {signal.Signals(-code).name}" if -code in signal.Signals.__members__.values() else f"killed by signal {-code}"


@dataclass
class ProcessPool:
    """Several processes on this machine, one task in hand each, so that a death is always one task's."""

    function: Callable[[Any], Any]
    tasks: Sequence[Task]
    num_workers: int
    told: Callable[[Any], None]
    waiting: deque[int] = field(default_factory=deque)
    results: dict[int, Any] = field(default_factory=dict)
    deaths: Counter[int] = field(default_factory=Counter)
    lost: dict[int, str] = field(default_factory=dict)
    error: Exception | None = None

    def run(self) -> list[Any]:
        """Do every task; see `run_tasks`."""
        context = multiprocessing.get_context("spawn")
        self.waiting = deque(range(len(self.tasks)))
        workers: list[Worker] = []
        try:
            workers += [self.start(context, number) for number in range(self.num_workers)]
            while self.waiting or any(worker.task_number is not None for worker in workers):
                by_pipe = {worker.pipe: worker for worker in workers}
                for pipe in connection.wait(list(by_pipe)):
                    worker = by_pipe[pipe]  # type: ignore[index]  # `wait` gives back what it was given
                    if not self.listen(worker):
                        workers.remove(worker)
                        if self.waiting:
                            workers.append(self.start(context, worker.number))
        finally:
            for worker in workers:
                stop(worker)
        if self.error is not None:
            raise self.error
        refuse_lost(self.tasks, self.lost)
        return [self.results[task_number] for task_number in range(len(self.tasks))]

    def start(self, context: SpawnContext, number: int) -> Worker:
        """Start one worker process."""
        ours, theirs = context.Pipe()
        process = context.Process(target=work, name=f"glideslope-worker-{number}", daemon=True,
                                  args=(theirs, max(1, available_threads() // self.num_workers)))
        process.start()
        theirs.close()  # else its death would not be seen here
        with contextlib.suppress(ConnectionError):  # a death is seen when it is listened to
            ours.send(self.function)
        return Worker(number, process, ours)

    def listen(self, worker: Worker) -> bool:
        """Take one message of a worker and give it its next task; False when it is dead."""
        try:
            kind, content = worker.pipe.recv()
        except (EOFError, ConnectionError):
            self.bury(worker)
            return False
        if kind == "done" and worker.task_number is not None:
            self.results[worker.task_number] = content
            self.told(content)
        elif kind == "error":
            self.error = self.error or load_error(content, self.tasks[worker.task_number or 0])
            self.waiting.clear()  # what the others have in hand is finished first
        worker.is_ready, worker.task_number = True, None
        if self.waiting:
            worker.task_number = self.waiting.popleft()
            try:
                worker.pipe.send(self.tasks[worker.task_number])
            except ConnectionError:
                self.bury(worker)
                return False
        return True

    def bury(self, worker: Worker) -> None:
        """Account for a dead worker: its task is done again, unless it was the death of a worker before."""
        how = worker.describe_end()
        worker.pipe.close()
        if not worker.is_ready:
            raise StageError(f"a worker process ended ({how}) before it could start; what it printed above says why. "
                             "A script that uses workers must guard its entry with `if __name__ == \"__main__\":`")
        if worker.task_number is None:
            return
        self.deaths[worker.task_number] += 1
        if self.deaths[worker.task_number] < MOST_DEATHS and self.error is None:
            self.waiting.appendleft(worker.task_number)
        elif self.error is None:
            self.lost[worker.task_number] = how


def stop(worker: Worker) -> None:
    """End a worker: an idle one goes when its pipe closes, a busy one is killed."""
    worker.pipe.close()
    if worker.task_number is not None or not worker.is_ready:
        worker.process.kill()
    worker.process.join(timeout=10)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()


def work(pipe: connection.Connection, num_threads: int) -> None:
    """The life of a worker process: take the function, then tasks, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the owner ends its workers
    threading.Thread(target=end_with_owner, name="end-with-owner", daemon=True).start()
    limit_threads(num_threads)
    try:
        function = pipe.recv()
        limit_threads(num_threads)
        pipe.send(("ready", None))
        while True:
            task = pipe.recv()
            try:
                message = "done", function(task)
            except Exception as error:  # handed to the owner, who raises it
                message = "error", dump_error(error)
            pipe.send(message)
    except (EOFError, ConnectionError):  # the owner has closed the pipe: nothing is left to do
        return


def end_with_owner() -> None:
    """End this process when its owner dies, even by kill -9: a run that is started again must not meet an old worker."""
    owner = multiprocessing.parent_process()
    if owner is not None:
        connection.wait([owner.sentinel])
        os._exit(1)

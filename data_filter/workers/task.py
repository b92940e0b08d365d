"""One shard's work, and what each way of working on several shards shares: names, threads, errors, lost tasks."""

import multiprocessing
import os
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Protocol, TypeVar

from ... import errors
from ...errors import GlideslopeError, StageError

MOST_DEATHS = 2


class Task(Protocol):
    """One shard's work: plain data that can be sent to another process."""

    @property
    def name(self) -> str:
        """The shard's name, for messages."""


TaskType = TypeVar("TaskType", bound=Task)
Result = TypeVar("Result")


def worker_number() -> int:
    """Which of the local worker processes this is, counted from 0; 0 in any other process. Workers share GPUs out by it."""
    match = re.fullmatch(r"glideslope-worker-(\d+)", multiprocessing.current_process().name)
    return int(match[1]) if match else 0


def available_threads() -> int:
    """How many threads this process may use: OMP_NUM_THREADS where it is set, else its cores."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_threads(num_threads: int) -> None:
    """Let the numerical libraries of this process use so many threads, whether they are loaded already or not."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(num_threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(num_threads)


def dump_error(error: Exception) -> tuple[str, str]:
    """An exception as class name and text; the name is "" for what is not ours, and the text its traceback then."""
    if isinstance(error, GlideslopeError):
        return type(error).__name__, str(error)
    return "", "".join(traceback.format_exception(error))


def load_error(dumped: tuple[str, str], task: Task) -> Exception:
    """The exception that `dump_error` was given in another process."""
    name, text = dumped
    if not name:
        return RuntimeError(f"{task.name} failed in a worker process:\n{text}")
    error_class: type[GlideslopeError] = getattr(errors, name)
    error = error_class.__new__(error_class)
    Exception.__init__(error, text)
    return error


def refuse_lost(tasks: Sequence[Task], lost: dict[int, str]) -> None:
    """Raise for the tasks that ended their workers too often; `lost` maps a task's number to how its worker ended."""
    if lost:
        named = ", ".join(f"{tasks[number].name} ({how})" for number, how in sorted(lost.items()))
        raise StageError(f"{len(lost)} of {len(tasks)} shards ended their worker process {MOST_DEATHS} times: {named}; the others are "
                         "finished and kept. A worker that is killed has usually run out of memory: use fewer --workers or a smaller "
                         "clip.batch_size; a crash points to an input that a decoder cannot bear: look at the shard. Then run the same "
                         "command again")

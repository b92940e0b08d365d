"""Processes that train one network together, as `torchrun` and `accelerate launch` start them: on one machine or on many.

Everything that they must agree on is said by the first. Only its own numbers count: nothing of what launchers put into the environment but
which process this is, and where the others are met.
"""

import functools
import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import TrainingError

RANK, NUMBER, LOCAL_RANK = "RANK", "WORLD_SIZE", "LOCAL_RANK"
LAUNCHED = (RANK, NUMBER, LOCAL_RANK, "MASTER_ADDR", "MASTER_PORT")
LONGEST_WAIT = timedelta(hours=12)  # the first may be drawing or hashing; a process that ends is noticed at once
LOST = re.compile(r"gloo|Connection (closed|reset) by peer|NCCL|Broken pipe")


class LostProcessError(TrainingError):
    """Another process of the training has ended, or all were told to stop.

    Attributes:
        rank: of the process that noticed it; the first alone tells it.
    """

    def __init__(self, rank: int) -> None:
        """Say what to do."""
        self.rank = rank
        super().__init__("another process of this training has ended (what it said stands above or in its own log), or all were told to stop; "
                         "run the same command again: it goes on from the newest checkpoint")


@dataclass(frozen=True)
class Processes:
    """The processes that train together, as one of them sees it.

    Attributes:
        rank: its number, from 0.
        number: how many there are.
    """

    rank: int = 0
    number: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and tells."""
        return self.rank == 0

    def tell(self, value: Any) -> Any:
        """A JSON value of the first process, in all of them; those of the others do not count."""
        if self.number == 1:
            return value
        data = json.dumps(value if self.is_first else None).encode()
        size = torch.tensor([len(data)])
        distributed.broadcast(size, src=0)
        text = torch.tensor(list(data), dtype=torch.uint8) if self.is_first else torch.empty(int(size), dtype=torch.uint8)
        distributed.broadcast(text, src=0)
        return json.loads(bytes(text.tolist()))

    def wait(self) -> None:
        """Go on when all have come here."""
        self.tell(None)
        self.mean(torch.zeros(1))

    def wait_for_first(self) -> None:
        """Leave the first process to tell an error that all have met, and end when it has ended.

        Raises:
            LostProcessError: in every process but the first.
        """
        if not self.is_first:
            self.wait()
            raise LostProcessError(self.rank)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over all processes, without gradients."""
        if self.number == 1:
            return value
        total = value.detach().clone()
        distributed.all_reduce(total)
        return total / self.number

    def gather(self, x: Tensor) -> Tensor:
        """The rows of all processes, in their order: (n, ...) of each -> (number x n, ...); gradients go back to where the rows came from."""
        return x if self.number == 1 else torch.as_tensor(_Gather.apply(x, self))

    def spread(self, model: nn.Module) -> nn.Module:
        """A network whose gradients are the mean over all processes."""
        return model if self.number == 1 else DistributedDataParallel(model)

    @staticmethod
    def apart(model: nn.Module, *, is_apart: bool) -> AbstractContextManager[Any]:
        """A block after which the gradients of a network that was spread are still those of this process alone, if asked."""
        return model.no_sync() if is_apart and isinstance(model, DistributedDataParallel) else nullcontext()


class _Gather(torch.autograd.Function):
    """Rows of all processes; backward sums over all of them what their losses say of this process's rows."""

    @staticmethod
    def forward(context: Any, x: Tensor, processes: Processes) -> Tensor:
        """Put the rows together."""
        context.rows, context.first = len(x), processes.rank * len(x)
        parts = [torch.empty_like(x) for _ in range(processes.number)]
        distributed.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Give each its own."""
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return total[context.first:context.first + context.rows], None


ALONE = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """Meet the other processes that a launcher has started, if it was one that started this.

    Raises:
        TrainingError: the others are not met, or there are more processes on a machine than GPUs.
        LostProcessError: one of them has ended inside the block, or all were told to stop.
    """
    settings = [os.environ.get(name) for name in LAUNCHED]
    if None in settings or os.environ[NUMBER] == "1":
        yield ALONE
        return
    processes = _meet()
    before = signal.signal(signal.SIGTERM, functools.partial(_stop, processes.rank))
    try:
        yield processes
    except RuntimeError as error:
        if not (isinstance(error, distributed.DistError) or LOST.search(str(error))):
            raise
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the launcher is about to end the others
        raise LostProcessError(processes.rank) from error
    signal.signal(signal.SIGTERM, before)
    distributed.destroy_process_group()


def _meet() -> Processes:
    local = int(os.environ[LOCAL_RANK])
    if torch.cuda.is_available():
        if local >= torch.cuda.device_count():
            raise TrainingError(f"process {local + 1} of this machine has no GPU of its own, there are "
                                f"{torch.cuda.device_count()}; start at most as many processes on it")
        torch.cuda.set_device(local)
    try:
        distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "cpu:gloo", timeout=LONGEST_WAIT)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"the other processes of this training were not met at {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']} "
                            f"({str(error).splitlines()[0]:.200}); see to it that all were started and can reach that address") from error
    return Processes(distributed.get_rank(), distributed.get_world_size())


def _stop(rank: int, number: int, frame: FrameType | None) -> None:
    """What SIGTERM does: launchers send it to the other processes when one has ended, and queues when the time is up."""
    signal.signal(number, signal.SIG_IGN)
    raise LostProcessError(rank)

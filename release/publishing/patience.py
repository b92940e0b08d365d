"""Trying again: what to do when a call may or may not have been carried out."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ...errors import ReleaseError
from .targets import Edit, Gated, Moved, Target, TargetFile, TargetState, Unsettled

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How often a call is tried, and how long to wait in between: each time twice as long.

    Attributes:
        num_tries: calls at most.
        first_wait_s: wait before the second call.
        sleep: waits so many seconds.
    """

    num_tries: int = 6
    first_wait_s: float = 1.0
    sleep: Callable[[float], None] = time.sleep

    def read(self, call: Callable[[], T]) -> T:
        """The result of a call that changes nothing.

        Raises:
            ReleaseError: it failed every time.
        """
        for number in range(self.num_tries):
            try:
                return call()
            except Unsettled as error:
                self._wait(number, error)
        raise AssertionError("unreachable: the last try returns or raises")

    def ensure(self, is_done: Callable[[], bool], act: Callable[[], None]) -> bool:
        """Do something once, and only once, although any call may fail or its answer may get lost.

        Args:
            is_done: whether it shows already; asked before and after every try.
            act: does it; raises `Unsettled` when it may go better the next time, `Moved` when it cannot.

        Returns:
            Whether it had to be done.

        Raises:
            ReleaseError: it failed every time.
            Moved: it was refused, and does not show.
        """
        if self.read(is_done):
            return False
        for number in range(self.num_tries):
            try:
                act()
                failure: Exception = Unsettled("it was accepted, but does not show")
            except Unsettled as error:
                failure = error
            except Moved as error:
                if self.read(is_done):
                    return True
                raise error from None
            if self.read(is_done):
                return True
            self._wait(number, failure)
        raise AssertionError("unreachable: the last try returns or raises")

    def _wait(self, number: int, error: Exception) -> None:
        if number + 1 == self.num_tries:
            raise ReleaseError(f"{error}; tried {self.num_tries} times; run the same command again later: what is done is kept") from error
        wait_s = self.first_wait_s * 2**number
        logger.info("%s; trying again in %.0f s", error, wait_s)
        self.sleep(wait_s)


class PatientTarget:
    """A target whose reading calls are tried again; those that change something are not."""

    def __init__(self, target: Target, patience: Patience) -> None:
        """Wrap a target."""
        self._target, self.patience = target, patience
        self.name, self.repository, self.has_access = target.name, target.repository, target.has_access

    def identify(self) -> Mapping[str, str]:
        """See `Target`."""
        return self.patience.read(self._target.identify)

    def read_state(self) -> TargetState:
        """See `Target`."""
        return self.patience.read(self._target.read_state)

    def list_files(self, revision: str) -> Mapping[str, TargetFile]:
        """See `Target`."""
        return self.patience.read(lambda: self._target.list_files(revision))

    def read_file(self, revision: str, path: str) -> bytes | None:
        """See `Target`."""
        return self.patience.read(lambda: self._target.read_file(revision, path))

    def create(self) -> None:
        """See `Target`."""
        self._target.create()

    def set_access(self, *, is_private: bool | None, gated: Gated | None) -> None:
        """See `Target`."""
        self._target.set_access(is_private=is_private, gated=gated)

    def begin_branch(self, branch: str) -> None:
        """See `Target`."""
        self._target.begin_branch(branch)

    def stage(self, branch: str, parent: str, edit: Edit) -> None:
        """See `Target`."""
        self._target.stage(branch, parent, edit)

    def fetch(self, revision: str, directory: Path) -> Path:
        """See `Target`."""
        return self._target.fetch(revision, directory)

    def promote(self, revision: str, parent: str | None, edit: Edit) -> None:
        """See `Target`."""
        self._target.promote(revision, parent, edit)

    def write(self, parent: str, files: Mapping[str, bytes]) -> None:
        """See `Target`."""
        self._target.write(parent, files)

    def add_tag(self, tag: str, revision: str) -> None:
        """See `Target`."""
        self._target.add_tag(tag, revision)

    def end_branch(self, branch: str) -> None:
        """See `Target`."""
        self._target.end_branch(branch)


@contextmanager
def clear_refusals(target: Target) -> Iterator[None]:
    """Turn what was left of a target's own errors into a clear refusal."""
    try:
        yield
    except Moved as error:
        raise ReleaseError(f"{target.name}: changed while it was worked on ({error}); look at it, then run the same command again") from error
    except Unsettled as error:
        raise ReleaseError(f"{error}; run the same command again later: what is done is kept") from error

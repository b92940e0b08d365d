"""Reading and decoding ahead of whoever uses the results: iterators that run in threads."""

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(function: Callable[[Item], Result], items: Iterator[Item], *, num_threads: int, depth: int) -> Generator[Result]:
    """Apply a function to items in threads, in order and at most `depth` items ahead: inputs are decoded while others are embedded."""
    with ThreadPoolExecutor(num_threads, thread_name_prefix="decode") as pool:
        futures: Generator[Future[Result]] = read_ahead((pool.submit(function, item) for item in items), depth=depth)
        try:
            for future in futures:
                yield future.result()
        finally:
            futures.close()  # before the pool, which would refuse what is still being handed in
            pool.shutdown(cancel_futures=True)


def read_ahead(items: Iterator[Item], *, depth: int = 64) -> Generator[Item]:
    """Run an iterator in a thread, up to `depth` items ahead: inputs are read while others are embedded."""
    ahead: queue.Queue[tuple[Item | None, BaseException | None, bool]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(entry: tuple[Item | None, BaseException | None, bool]) -> None:
        while not stopped.is_set():
            try:
                return ahead.put(entry, timeout=0.1)
            except queue.Full:
                continue

    def fill() -> None:
        try:
            for item in items:
                put((item, None, False))
                if stopped.is_set():
                    return
            put((None, None, True))
        except BaseException as error:  # handed to the reader, which raises it
            put((None, error, True))

    thread = threading.Thread(target=fill, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error, is_last = ahead.get()
            if error is not None:
                raise error
            if is_last:
                return
            yield item  # type: ignore[misc]  # only the last entry carries no item
    finally:
        stopped.set()
        thread.join()

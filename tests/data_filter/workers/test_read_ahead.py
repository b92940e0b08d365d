import time

import pytest

from glideslope.data_filter.workers.read_ahead import map_ahead, read_ahead


def test_reading_ahead_keeps_order_and_hands_errors_on() -> None:
    assert list(read_ahead(iter(range(500)), depth=3)) == list(range(500))

    def broken():  # type: ignore[no-untyped-def]  # a generator that raises
        yield 1
        raise ZeroDivisionError

    items = read_ahead(broken())
    assert next(items) == 1
    with pytest.raises(ZeroDivisionError):
        next(items)


def test_reading_ahead_stops_when_the_reader_stops() -> None:
    read: list[int] = []

    def endless():  # type: ignore[no-untyped-def]  # counts what is read
        while True:
            read.append(1)
            yield 1

    items = read_ahead(endless(), depth=2)
    next(items)
    items.close()  # type: ignore[attr-defined]  # a generator
    num_read = len(read)
    assert num_read < 50 and len(read) == num_read


def test_mapping_ahead_keeps_order_hands_errors_on_and_stops_when_the_reader_stops() -> None:
    def slow(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return 2 * number

    assert list(map_ahead(slow, iter(range(50)), num_threads=4, depth=8)) == [2 * number for number in range(50)]
    with pytest.raises(ZeroDivisionError):
        list(map_ahead(lambda number: 1 // (3 - number), iter(range(50)), num_threads=2, depth=8))
    taken: list[int] = []
    results = map_ahead(slow, (taken.append(number) or number for number in range(10**9)), num_threads=2, depth=8)
    assert next(results) == 0
    results.close()
    num_taken = len(taken)
    time.sleep(0.05)
    assert len(taken) == num_taken < 30, "at most `depth` ahead, and none after the reader stopped"

"""Several threads: results in the order of the tasks, a bounded window, errors."""

import itertools
import threading
from collections.abc import Iterator

import pytest

from foobar_instance.workers import in_order

SECONDS = 20


def test_results_come_in_the_order_of_the_tasks() -> None:
    later = threading.Event()

    def work(task: int) -> int:
        if task == 0:
            assert later.wait(SECONDS)  # the others are done meanwhile
        elif task == 3:
            later.set()
        return task * 2

    assert list(in_order(work, range(100), jobs=4)) == list(range(0, 200, 2))
    assert list(in_order(work, [], jobs=4)) == []


def test_so_many_at_a_time() -> None:
    together = threading.Barrier(3)
    assert list(in_order(lambda _: together.wait(SECONDS) >= 0, range(9), jobs=3)) == [True] * 9


def test_a_result_does_not_wait_for_the_next_task() -> None:
    taken = threading.Event()

    def tasks() -> Iterator[int]:
        yield 1
        assert taken.wait(SECONDS)
        yield 2

    results = in_order(str, tasks(), jobs=8)
    assert next(results) == "1"
    taken.set()
    assert list(results) == ["2"]


def test_memory_does_not_grow_with_the_number_of_tasks() -> None:
    read = itertools.count()
    numbers: list[int] = []

    def tasks() -> Iterator[int]:
        for number in read:
            numbers.append(number)
            yield number

    results = in_order(str, tasks(), jobs=2)
    for _ in range(1000):
        next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(numbers) <= 1000 + 2 * 2 + 1


def test_errors_are_raised_in_the_place_of_their_result() -> None:
    results = in_order(lambda task: 6 // task, [1, 2, 0, 3], jobs=2)
    assert [next(results), next(results)] == [6, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)

    def tasks() -> Iterator[int]:
        yield 1
        raise KeyError

    texts = in_order(str, tasks(), jobs=2)
    assert next(texts) == "1"
    with pytest.raises(KeyError):
        next(texts)

"""Work done by several threads at once, with the results in the order of the tasks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Final, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_NAME: Final = "in_order"
_WINDOW: Final = 2
"""Tasks per worker that are read ahead of the result that is due next."""


def in_order(work: Callable[[T], R], tasks: Iterable[T], *, jobs: int) -> Iterator[R]:
    """Yield `work(task)` for each task, in order, as soon as it is due.

    A thread of its own reads `tasks`, so that a result does not wait for the next task. What
    `tasks` or `work` raises is raised here. The threads are daemons: they hold no process that
    wants to end.
    """
    due: SimpleQueue[Future[R] | None] = SimpleQueue()  # in the order of the tasks; None ends it
    todo: SimpleQueue[tuple[Future[R], T] | None] = SimpleQueue()
    room = threading.Semaphore(_WINDOW * jobs)
    stopped = threading.Event()

    def read() -> None:
        try:
            for task in tasks:
                room.acquire()
                if stopped.is_set():
                    return
                future: Future[R] = Future()
                due.put(future)
                todo.put((future, task))
        except BaseException as error:  # noqa: BLE001 - raised where the results are taken
            due.put(_failed(error))
        due.put(None)

    def run() -> None:
        while (item := todo.get()) is not None and not stopped.is_set():
            future, task = item
            _settle(future, work, task)

    for target in (read, *[run] * jobs):
        threading.Thread(target=target, name=_NAME, daemon=True).start()
    try:
        while (future := due.get()) is not None:
            yield future.result()
            room.release()
    finally:
        stopped.set()
        room.release()
        for _ in range(jobs):
            todo.put(None)


def any_left() -> bool:
    """Return whether a thread of `in_order` still waits: for a task to read, or for an answer."""
    return any(thread.name == _NAME for thread in threading.enumerate())


def _settle(future: Future[R], work: Callable[[T], R], task: T) -> None:
    try:
        future.set_result(work(task))
    except BaseException as error:  # noqa: BLE001 - raised where the results are taken
        future.set_exception(error)


def _failed(error: BaseException) -> Future[R]:
    future: Future[R] = Future()
    future.set_exception(error)
    return future

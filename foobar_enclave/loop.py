"""A thread's share of the connections: reads lines, has them answered in turn, sends the answers.

In each turn of its loop, what has arrived is read, one line is answered, and connections whose time
is up are closed. One line and not all that are there: those who ask again at once would get ahead
of those who came meanwhile. Only requests that may wait for somebody else are answered in threads
of their own.
"""

from __future__ import annotations

import contextlib
import logging
import math
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

from foobar_enclave.connection import Connection
from foobar_enclave.errors import BusyError
from foobar_enclave.limits import Limits
from foobar_shared.errors import LineTooLongError
from foobar_shared.messages import ErrorResponse, encode_response

Handler: TypeAlias = Callable[[bytes, Callable[[bytes], None]], None]
"""Takes a request line without its line feed, and calls back with a response line with it."""

_Action: TypeAlias = Callable[[Connection], None]
_logger = logging.getLogger(__name__)


def error_line(text: str) -> bytes:
    """An answer that says what is wrong, with its line feed."""
    return encode_response(ErrorResponse(text)) + b"\n"


BUSY: Final = error_line(str(BusyError()))


class ConnectionLoop:
    """Answers every line on every connection that it is given with what `handle` returns for it."""

    def __init__(
        self,
        handle: Handler,
        *,
        may_wait: Callable[[bytes], bool],
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A loop without connections; for the arguments, see `EnclaveServer`."""
        self._handle = handle
        self._may_wait = may_wait
        self._limits = limits
        self._clock = clock
        self._stopping = False
        self._stop_by = math.inf  # by the clock; finite after `stop`
        self._waker, self._wakened = socket.socketpair()
        self._waker.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._given: deque[socket.socket] = deque()  # by another thread
        self._connections: set[Connection] = set()
        self._with_line: deque[Connection] = deque()
        self._answered: deque[tuple[Connection, _Action]] = deque()  # by threads, with what is next
        self._patience: float | None = None  # seconds until something is to be done by itself
        # Each is counted by one thread, so that no connection is ever counted twice or not at all.
        self._taken = 0  # by the thread that gives
        self._ended = 0  # by the loop's own

    def __len__(self) -> int:
        """How many connections it has; for any thread."""
        return self._taken - self._ended

    def give(self, connected: socket.socket) -> None:
        """Hand a connection over; always from the same thread."""
        if self._stopping:
            connected.close()
            return
        self._taken += 1
        self._given.append(connected)
        self._wake()

    def stop(self) -> None:
        """End `run`; from any thread."""
        self._stopping = True
        self._wake()

    def run(self) -> None:
        """Serve until `stop` is called; returns when every connection has ended."""
        with self._waker, self._wakened, self._selector as selector:
            selector.register(self._wakened, selectors.EVENT_READ)
            try:
                while not self._stopping:
                    self._turn()
                self._finish()
            finally:
                for connection in list(self._connections):
                    self._close(connection, "stopped")
                while self._given:
                    self._given.popleft().close()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # it has ended, or is told already
            self._waker.send(b"\0")

    def _turn(self) -> None:
        ready = self._selector.select(self._patience)
        now = self._clock()
        for key, _ in ready:
            if key.fileobj is self._wakened:
                self._wakened.recv(4096)
            else:
                self._guard(key.data, self._move)
        while self._given and not self._stopping:
            self._guard(Connection(self._given.popleft()), self._begin)
        while self._answered:
            self._rejoin(*self._answered.popleft())
        # Before a request is answered, as what comes meanwhile has come in time.
        for connection in [each for each in self._connections if each.deadline <= now]:
            self._close(connection, "too-slow")
        if self._with_line:
            self._guard(self._with_line.popleft(), self._answer)
        self._look_ahead()

    def _look_ahead(self) -> None:
        """Learn how long nothing is to be done unless something happens."""
        soonest = min((each.deadline for each in self._connections), default=math.inf)
        if self._with_line:
            self._patience = 0.0
        else:
            self._patience = None if soonest == math.inf else max(0.0, soonest - self._clock())

    def _begin(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)
        self._read_on(connection)

    def _move(self, connection: Connection) -> None:
        """Read or write what can be."""
        if connection.is_sending:
            connection.flush()
            if not connection.is_sending:
                self._selector.modify(connection.socket, selectors.EVENT_READ, connection)
                self._go_on(connection)
        elif connection.line is None:
            begins = not len(connection.lines)
            if not connection.receive():
                self._close(connection, "closed")
            elif not connection.is_draining:
                if begins:
                    connection.deadline = self._clock() + self._limits.line
                self._find_line(connection)

    def _read_on(self, connection: Connection) -> None:
        limits = self._limits
        seconds = limits.line if len(connection.lines) else limits.idle
        connection.deadline = self._clock() + seconds
        self._find_line(connection)

    def _find_line(self, connection: Connection) -> None:
        try:
            connection.line = connection.lines.next_line()
        except LineTooLongError as error:
            connection.is_last = True
            self._send(connection, error_line(str(error)))
        else:
            if connection.line is not None:
                connection.deadline = math.inf  # until it is answered
                self._with_line.append(connection)

    def _answer(self, connection: Connection) -> None:
        line, connection.line = connection.line, None
        if line is None or connection not in self._connections:
            return  # it was cut off by a stop
        if not self._may_wait(line):
            self._handle(line, partial(self._send, connection))
            return
        thread = threading.Thread(target=self._answer_apart, args=(connection, line), daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system has no thread left
            self._send(connection, BUSY)
            return
        connection.is_apart = True
        self._selector.unregister(connection.socket)

    def _answer_apart(self, connection: Connection, line: bytes) -> None:
        answers: list[bytes] = []
        action: _Action
        try:
            self._handle(line, answers.append)
            action = partial(self._send, answer=answers[0])
        except Exception as error:  # noqa: BLE001 - see `_guard`
            action = partial(self._close, outcome=_defect(error))
        # Only now, after the log line: a thread that still did something would not be this
        # connection's only one.
        self._answered.append((connection, action))
        self._wake()

    def _rejoin(self, connection: Connection, action: _Action) -> None:
        def rejoin(connection: Connection) -> None:
            connection.is_apart = False
            self._selector.register(connection.socket, selectors.EVENT_READ, connection)
            action(connection)

        if connection in self._connections:  # it was not cut off by a stop
            self._guard(connection, rejoin)

    def _send(self, connection: Connection, answer: bytes) -> None:
        connection.send(answer)
        if not connection.is_sending:
            self._go_on(connection)
            return
        connection.deadline = min(self._clock() + self._limits.write, self._stop_by)
        self._selector.modify(connection.socket, selectors.EVENT_WRITE, connection)

    def _go_on(self, connection: Connection) -> None:
        """After an answer was taken."""
        if self._stopping:
            self._close(connection, "stopped")
        elif connection.is_last:
            connection.drain()
            connection.deadline = self._clock() + self._limits.drain
        else:
            self._read_on(connection)

    def _finish(self) -> None:
        """Let requests that are being answered end, and cut what is left after the limit."""
        self._stop_by = self._clock() + self._limits.stop
        for connection in list(self._connections):
            if connection.is_apart or connection.is_sending or connection.line is not None:
                connection.deadline = min(connection.deadline, self._stop_by)
            else:
                self._close(connection, "stopped")
        self._look_ahead()
        while self._connections:
            self._turn()

    def _guard(self, connection: Connection, action: _Action) -> None:
        """Have what goes wrong with a connection cost that connection only."""
        try:
            action(connection)
        except OSError as error:
            self._close(connection, type(error).__name__)
        except Exception as error:  # noqa: BLE001 - a traceback on the console might hold a secret
            self._close(connection, _defect(error))

    def _close(self, connection: Connection, outcome: str) -> None:
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        self._ended += 1
        with contextlib.suppress(KeyError):  # it is registered while no thread has its request
            self._selector.unregister(connection.socket)
        connection.socket.close()
        _logger.info("event=connection outcome=%s", outcome)


def _defect(error: Exception) -> str:
    return f"defect:{type(error).__name__}"

"""The relay: bytes both ways between accepted connections and a target, looked at by nobody.

One thread waits for all sockets (epoll) and moves bytes through one buffer. Resolving a name
blocks, so each connection is dialled in a short-lived thread of its own.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import select
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from foobar_shared.addresses import Address
from proxy.dial import dial
from proxy.pipes import Connection

BUFFER_BYTES: Final = 256 * 1024

_log: Final = logging.getLogger(__name__)

_TICK_SECONDS: Final = 1.0
_ACCEPT_PAUSE_SECONDS: Final = 0.1
_DIALLERS_STOP_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """What peers may take: connections at once, seconds to connect, seconds without a byte."""

    connections: int = 256
    connect_seconds: float = 10.0
    idle_seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class _Dialled:
    accepted: socket.socket
    dialled: socket.socket | None


class Relay:
    """Relays every connection to a listener to a target, from `__enter__` to `__exit__`."""

    def __init__(
        self,
        listener: socket.socket,
        target: Address,
        *,
        allowed_cid: int | None = None,
        limits: RelayLimits = RelayLimits(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A relay that is not serving yet.

        Args:
            listener: bound and listening; the relay closes it in the end.
            target: where each connection is relayed to; its name is resolved anew each time.
            allowed_cid: on an AF_VSOCK listener, the only CID whose connections are taken.
            limits: bounds on number and time.
            clock: seconds, never going back; for the idle limit.
        """
        self._listener = listener
        self._target = target
        self._allowed_cid = allowed_cid
        self._limits = limits
        self._clock = clock
        self._epoll = select.epoll()
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._halves: dict[int, tuple[Connection, socket.socket]] = {}  # by descriptor
        self._waits: dict[int, int] = {}  # events by descriptor, as registered
        self._connections: OrderedDict[Connection, float] = OrderedDict()  # longest idle first
        self._dialling: dict[socket.socket, threading.Thread] = {}
        self._dialled: queue.SimpleQueue[_Dialled] = queue.SimpleQueue()
        self._wake_reader, self._wake_writer = _wake_pair()
        self._stop_reader, self._stop_writer = _wake_pair()
        self._accept_again = 0.0  # by time.monotonic(); 0 while the listener is registered
        self._stopped = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, name="relay", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join()

    def stop(self) -> None:
        """Make `serve_forever` end; from any thread or signal handler."""
        self._stopped = True
        for writer in (self._stop_writer, self._wake_writer):
            _wake(writer)

    def serve_forever(self) -> None:
        """Relay until `stop`, then close everything, the listener too.

        That takes at most about half a second. A thread whose name resolution hangs then is left
        behind; it holds no socket and ends with the resolver's answer.
        """
        try:
            self._listener.setblocking(False)
            self._epoll.register(self._listener, select.EPOLLIN)
            self._epoll.register(self._wake_reader, select.EPOLLIN)
            while not self._stopped:
                self._turn()
        finally:
            self._close()

    def _turn(self) -> None:
        ready = self._epoll.poll(_ACCEPT_PAUSE_SECONDS if self._accept_again else _TICK_SECONDS)
        if self._accept_again and time.monotonic() >= self._accept_again:
            self._accept_again = 0.0
            self._epoll.register(self._listener, select.EPOLLIN)
        for fd, mask in ready:
            if fd == self._wake_reader.fileno():
                self._take_dialled()
            elif fd in self._halves:
                self._move(*self._halves[fd], mask)
            elif fd == self._listener.fileno():
                self._accept()
        self._drop_idle()

    def _accept(self) -> None:
        try:
            accepted, peer = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:  # no descriptors, no memory: what is open goes on meanwhile
            _log.warning("cannot accept: %s", error.strerror)
            self._accept_again = time.monotonic() + _ACCEPT_PAUSE_SECONDS
            self._epoll.unregister(self._listener)
            return
        if not self._is_allowed(peer):
            _log.warning("refused a connection from %s", peer)
            accepted.close()
        elif len(self._connections) + len(self._dialling) >= self._limits.connections:
            _log.warning("refused a connection: %d are open", self._limits.connections)
            accepted.close()
        else:
            self._start_dialling(accepted)

    def _is_allowed(self, peer: object) -> bool:
        if self._allowed_cid is None or self._listener.family != socket.AF_VSOCK:
            return True
        return isinstance(peer, tuple) and peer[0] == self._allowed_cid

    def _start_dialling(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        thread = threading.Thread(
            target=self._dial, args=(accepted,), name="relay-dial", daemon=True
        )
        self._dialling[accepted] = thread
        try:
            thread.start()
        except RuntimeError as error:  # no thread to be had
            _log.warning("refused a connection: %s", error)
            del self._dialling[accepted]
            accepted.close()

    def _dial(self, accepted: socket.socket) -> None:
        dialled = None
        try:
            dialled = dial(
                self._target, seconds=self._limits.connect_seconds, stopping=self._stop_reader
            )
        except InterruptedError:
            pass
        except OSError as error:
            _log.warning("cannot reach %s: %s", self._target, error.strerror or error)
        finally:
            self._dialled.put(_Dialled(accepted, dialled))
            _wake(self._wake_writer)

    def _take_dialled(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_reader.recv(4096)
        for result in self._results():
            if result.dialled is None:
                result.accepted.close()
            else:
                self._join(result.accepted, result.dialled)
            del self._dialling[result.accepted]

    def _results(self) -> list[_Dialled]:
        results = []
        with contextlib.suppress(queue.Empty):
            while True:
                results.append(self._dialled.get_nowait())
        return results

    def _join(self, accepted: socket.socket, dialled: socket.socket) -> None:
        connection = Connection(accepted, dialled)
        self._connections[connection] = self._clock()
        for half in connection.sockets:
            self._halves[half.fileno()] = (connection, half)
            self._wait_for(connection, half)
        _log.debug("connection open: %d", len(self._connections))

    def _move(self, connection: Connection, half: socket.socket, mask: int) -> None:
        self._connections[connection] = self._clock()
        self._connections.move_to_end(connection)
        try:
            connection.move(half, mask, self._buffer)
        except OSError as error:
            self._drop(connection, f"lost ({error.strerror})", logging.INFO, reset=True)
            return
        if connection.done:
            self._drop(connection, "ended")
            return
        for one in connection.sockets:
            self._wait_for(connection, one)
        if not mask & (select.EPOLLIN | select.EPOLLOUT) and not connection.events(half):
            self._forget(half)  # a hang-up is reported again and again until it can be acted on

    def _wait_for(self, connection: Connection, half: socket.socket) -> None:
        events = connection.events(half)
        fd = half.fileno()
        if fd not in self._waits:
            self._epoll.register(fd, events)
        elif self._waits[fd] != events:
            self._epoll.modify(fd, events)
        self._waits[fd] = events

    def _forget(self, half: socket.socket) -> None:
        if self._waits.pop(half.fileno(), None) is not None:
            self._epoll.unregister(half)

    def _drop_idle(self) -> None:
        deadline = self._clock() - self._limits.idle_seconds
        while self._connections:
            connection, active = next(iter(self._connections.items()))
            if active >= deadline:
                return
            self._drop(connection, "idle", logging.INFO)

    def _drop(
        self, connection: Connection, why: str, level: int = logging.DEBUG, *, reset: bool = False
    ) -> None:
        _log.log(
            level,
            "connection %s: %d bytes up, %d down",
            why,
            connection.up.moved,
            connection.down.moved,
        )
        del self._connections[connection]
        for half in connection.sockets:
            self._forget(half)
            del self._halves[half.fileno()]
        connection.close(reset=reset)

    def _close(self) -> None:
        self._listener.close()
        _wake(self._stop_writer)
        for connection in list(self._connections):
            self._drop(connection, "stopped", logging.INFO)
        deadline = time.monotonic() + _DIALLERS_STOP_SECONDS
        for accepted, thread in self._dialling.items():
            thread.join(max(0.0, deadline - time.monotonic()))
            accepted.close()
        for result in self._results():
            result.accepted.close()
            if result.dialled is not None:
                result.dialled.close()
        self._epoll.close()
        for end in (self._wake_reader, self._wake_writer, self._stop_reader, self._stop_writer):
            end.close()


def _wake_pair() -> tuple[socket.socket, socket.socket]:
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    return reader, writer


def _wake(writer: socket.socket) -> None:
    with contextlib.suppress(OSError):  # full: it is awake anyway; closed: it has ended
        writer.send(b"x")

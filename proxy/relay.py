"""The relay: bytes both ways between accepted connections and a target, looked at by nobody.

One thread waits for all sockets (epoll), moves bytes and dials. Only a target whose name must be
resolved is dialled in short-lived threads, since that blocks.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from foobar_shared.addresses import Address
from proxy.diallers import Diallers, Pair
from proxy.pipes import Connection, Half
from proxy.pool import Pool

_log: Final = logging.getLogger(__name__)

_TICK_SECONDS: Final = 1.0
_ACCEPT_PAUSE_SECONDS: Final = 0.1
_ACCEPTS: Final = 8  # in one turn, so that open connections get theirs


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """What peers may take: connections at once, seconds to connect, seconds without a byte."""

    connections: int = 256
    connect_seconds: float = 10.0
    idle_seconds: float = 300.0


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
        self._pool = Pool()
        self._halves: dict[int, Half] = {}  # by descriptor
        self._connections: set[Connection] = set()
        self._wake_reader, self._wake_writer = _wake_pair()
        self._own = (listener.fileno(), self._wake_reader.fileno())
        self._dialling = Diallers(
            target,
            seconds=limits.connect_seconds,
            epoll=self._epoll,
            wake=lambda: _wake(self._wake_writer),
        )
        self._patience = _TICK_SECONDS  # until something is to be done without an event
        self._accept_again = 0.0  # by time.monotonic(); 0 while the listener is registered
        self._look_for_idle = 0.0  # by the clock
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
        self._dialling.interrupt()
        _wake(self._wake_writer)

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
        ready = self._epoll.poll(self._patience)
        now = self._clock()
        half_of = self._halves.get
        strangers = []
        for fd, mask in ready:
            half = half_of(fd)
            if half is None:
                if fd in self._dialling or fd in self._own:
                    strangers.append(fd)  # all others were closed in this turn
                continue
            half.connection.active = now
            try:
                if half.move(mask):
                    self._settle(half, mask)
            except OSError as error:
                self._drop(half.connection, f"lost ({error.strerror})", logging.INFO, reset=True)
        # Only now may descriptors be opened, which may get the numbers of those closed above.
        for fd in strangers:
            self._welcome(fd)
        if strangers or self._accept_again or self._dialling:
            self._look_at_time()
        if now >= self._look_for_idle:
            self._look_for_idle = now + _TICK_SECONDS
            self._drop_idle(now)

    def _look_at_time(self) -> None:
        """Accept again, and give up dialling, when it is time; and learn when to look again."""
        self._patience = _TICK_SECONDS
        if self._accept_again:
            if time.monotonic() >= self._accept_again:
                self._accept_again = 0.0
                self._epoll.register(self._listener, select.EPOLLIN)
            else:
                self._patience = _ACCEPT_PAUSE_SECONDS
        self._dialling.expire()
        left = self._dialling.seconds_left
        if left is not None:
            self._patience = min(self._patience, left)

    def _welcome(self, fd: int) -> None:
        if fd == self._listener.fileno():
            for _ in range(_ACCEPTS):
                if not self._accept():
                    break
        elif fd == self._wake_reader.fileno():
            with contextlib.suppress(BlockingIOError):
                self._wake_reader.recv(4096)
            for pair in self._dialling.finished():
                self._join(pair)
        elif fd in self._dialling:
            self._join(self._dialling.finish(fd))

    def _accept(self) -> bool:
        """Take one connection; whether there may be another."""
        try:
            accepted, peer = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False
        except OSError as error:  # no descriptors, no memory: what is open goes on meanwhile
            _log.warning("cannot accept: %s", error.strerror)
            self._accept_again = time.monotonic() + _ACCEPT_PAUSE_SECONDS
            self._epoll.unregister(self._listener)
            return False
        if not self._is_allowed(peer):
            _log.warning("refused a connection from %s", peer)
            accepted.close()
        elif len(self._connections) + len(self._dialling) >= self._limits.connections:
            _log.warning("refused a connection: %d are open", self._limits.connections)
            accepted.close()
        else:
            accepted.setblocking(False)
            self._join(self._dialling.begin(accepted))
        return True

    def _is_allowed(self, peer: object) -> bool:
        if self._allowed_cid is None or self._listener.family != socket.AF_VSOCK:
            return True
        return isinstance(peer, tuple) and peer[0] == self._allowed_cid

    def _join(self, pair: Pair | None) -> None:
        if pair is None:
            return
        connection = Connection(*pair, self._pool)
        connection.active = self._clock()
        self._connections.add(connection)
        self._halves |= {half.fd: half for half in connection.halves}
        try:
            for half in connection.halves:
                self._wait_for(half)
        except OSError as error:  # no memory for it: what is open goes on
            self._drop(connection, f"lost ({error.strerror})", logging.INFO, reset=True)
            return
        _log.debug("connection open: %d", len(self._connections))

    def _settle(self, half: Half, mask: int) -> None:
        """Wait for what is now to be waited for."""
        connection = half.connection
        if connection.done:
            self._drop(connection, "ended")
            return
        for one in connection.halves:
            self._wait_for(one)
        if not mask & (select.EPOLLIN | select.EPOLLOUT) and not half.wanted():
            self._forget(half)  # a hang-up is reported again and again until it can be acted on

    def _wait_for(self, half: Half) -> None:
        wanted = half.wanted()
        if wanted == half.events:
            return
        if half.events is not None:
            self._epoll.modify(half.fd, wanted)
        elif wanted:
            self._epoll.register(half.fd, wanted)
        else:
            return
        half.events = wanted

    def _forget(self, half: Half) -> None:
        if half.events is not None:
            self._epoll.unregister(half.fd)
            half.events = None

    def _drop_idle(self, now: float) -> None:
        deadline = now - self._limits.idle_seconds
        for connection in [one for one in self._connections if one.active < deadline]:
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
        self._connections.discard(connection)
        for half in connection.halves:
            self._forget(half)
            del self._halves[half.fd]
        connection.close(reset=reset or connection.was_cut)

    def _close(self) -> None:
        self._listener.close()
        for connection in list(self._connections):
            self._drop(connection, "stopped", logging.INFO)
        self._dialling.close()
        self._pool.close()
        self._epoll.close()
        self._wake_reader.close()
        self._wake_writer.close()


def _wake_pair() -> tuple[socket.socket, socket.socket]:
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    return reader, writer


def _wake(writer: socket.socket) -> None:
    with contextlib.suppress(OSError):  # full: it is awake anyway; closed: it has ended
        writer.send(b"x")

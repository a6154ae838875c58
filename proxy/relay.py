"""The relay: bytes both ways between accepted connections and a target, looked at by nobody.

One thread waits for all sockets (epoll) and moves bytes through one buffer; a few others resolve
and dial, which blocks. A connection is two pipes, one for each direction:

    accepted ── pipe ──▶ dialled        end of stream is passed on once all before it is written
    accepted ◀── pipe ── dialled        a pipe that can't write stops reading
"""

from __future__ import annotations

import contextlib
import errno
import logging
import queue
import selectors
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from foobar_shared.addresses import Address, connect

BUFFER_BYTES: Final = 256 * 1024

_log: Final = logging.getLogger(__name__)

_TICK_SECONDS: Final = 1.0
_DIALLERS: Final = 8
_NO_RESOURCES: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_LOST: Final = (ConnectionError, OSError)


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """What peers may take: connections at once, seconds to connect, seconds without a byte."""

    connections: int = 256
    connect_seconds: float = 10.0
    idle_seconds: float = 300.0


class _Pipe:
    """One direction: reads from `source`, writes to `sink`, keeps what the sink did not take."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.rest = b""
        self.ended = False
        self.closed = False
        self.moved = 0

    @property
    def wants_read(self) -> bool:
        return not self.ended and not self.rest

    @property
    def wants_write(self) -> bool:
        return bool(self.rest)

    def read(self, buffer: memoryview) -> None:
        """Move what the source has now to the sink, as far as that takes it."""
        count = self.source.recv_into(buffer)
        self.ended = count == 0
        self.moved += count
        self._write(buffer[:count])

    def write(self) -> None:
        """Write what was kept."""
        self._write(memoryview(self.rest))

    def _write(self, data: memoryview) -> None:
        sent = 0
        if data:
            try:
                sent = self.sink.send(data)
            except BlockingIOError:
                sent = 0
        self.rest = bytes(data[sent:])
        if self.ended and not self.rest and not self.closed:
            self.closed = True
            with contextlib.suppress(OSError):
                self.sink.shutdown(socket.SHUT_WR)


class _Connection:
    """An accepted and a dialled socket, and the two pipes between them."""

    def __init__(self, accepted: socket.socket, dialled: socket.socket, now: float) -> None:
        self.sockets = (accepted, dialled)
        self.pipes = (_Pipe(accepted, dialled), _Pipe(dialled, accepted))
        self.active = now

    @property
    def done(self) -> bool:
        return all(pipe.closed for pipe in self.pipes)

    def events(self, which: socket.socket) -> int:
        """What to wait for on one of the two sockets."""
        mask = 0
        for pipe in self.pipes:
            if pipe.source is which and pipe.wants_read:
                mask |= selectors.EVENT_READ
            if pipe.sink is which and pipe.wants_write:
                mask |= selectors.EVENT_WRITE
        return mask

    def move(self, which: socket.socket, mask: int, buffer: memoryview) -> None:
        """Move bytes on a socket that is ready.

        Raises:
            OSError: one of the two connections is lost.
        """
        for pipe in self.pipes:
            if mask & selectors.EVENT_WRITE and pipe.sink is which and pipe.wants_write:
                pipe.write()
            if mask & selectors.EVENT_READ and pipe.source is which and pipe.wants_read:
                with contextlib.suppress(BlockingIOError):
                    pipe.read(buffer)

    def close(self) -> None:
        for half in self.sockets:
            half.close()


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
            clock: seconds, never going back.
        """
        self._listener = listener
        self._target = target
        self._allowed_cid = allowed_cid
        self._limits = limits
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._connections: set[_Connection] = set()
        self._dialling: set[socket.socket] = set()
        self._dialled: queue.SimpleQueue[tuple[socket.socket, socket.socket | None]] = (
            queue.SimpleQueue()
        )
        self._diallers = ThreadPoolExecutor(_DIALLERS, thread_name_prefix="relay-dial")
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
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
        self._wake()

    def serve_forever(self) -> None:
        """Relay until `stop`, then close everything."""
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        try:
            while not self._stopped:
                self._turn()
        finally:
            self._close()

    def _turn(self) -> None:
        for key, mask in self._selector.select(_TICK_SECONDS):
            if key.fileobj is self._listener:
                self._accept()
            elif key.fileobj is self._wake_reader:
                self._take_dialled()
            elif key.data in self._connections and isinstance(key.fileobj, socket.socket):
                self._move(key.data, key.fileobj, mask)
        self._drop_idle()

    def _accept(self) -> None:
        try:
            accepted, peer = self._listener.accept()
        except OSError as error:
            if error.errno in _NO_RESOURCES:
                _log.warning("cannot accept: %s", error.strerror)
                time.sleep(0.05)
            return
        if not self._is_allowed(peer):
            _log.warning("refused a connection from %s", peer)
            accepted.close()
        elif len(self._connections) + len(self._dialling) >= self._limits.connections:
            _log.warning("refused a connection: %d are open", self._limits.connections)
            accepted.close()
        else:
            accepted.setblocking(False)
            self._dialling.add(accepted)
            self._diallers.submit(self._dial, accepted)

    def _is_allowed(self, peer: object) -> bool:
        if self._allowed_cid is None or self._listener.family != socket.AF_VSOCK:
            return True
        return isinstance(peer, tuple) and peer[0] == self._allowed_cid

    def _dial(self, accepted: socket.socket) -> None:
        try:
            dialled = connect(self._target, seconds=self._limits.connect_seconds)
        except OSError as error:
            _log.warning("cannot reach %s: %s", self._target, error.strerror or error)
            self._dialled.put((accepted, None))
        else:
            self._dialled.put((accepted, dialled))
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_writer.send(b"x")

    def _take_dialled(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_reader.recv(4096)
        while True:
            try:
                accepted, dialled = self._dialled.get_nowait()
            except queue.Empty:
                return
            self._dialling.discard(accepted)
            if dialled is None:
                accepted.close()
            else:
                self._join(accepted, dialled)

    def _join(self, accepted: socket.socket, dialled: socket.socket) -> None:
        dialled.setblocking(False)
        for half in (accepted, dialled):
            if half.family in (socket.AF_INET, socket.AF_INET6):
                half.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(accepted, dialled, self._clock())
        self._connections.add(connection)
        for half in connection.sockets:
            self._selector.register(half, connection.events(half), connection)

    def _move(self, connection: _Connection, which: socket.socket, mask: int) -> None:
        connection.active = self._clock()
        try:
            connection.move(which, mask, self._buffer)
        except OSError:
            self._drop(connection, "lost")
            return
        if connection.done:
            self._drop(connection, "ended")
            return
        for half in connection.sockets:
            self._wait_for(half, connection)

    def _wait_for(self, half: socket.socket, connection: _Connection) -> None:
        events = connection.events(half)
        key = self._selector.get_map().get(half)
        if key is None:
            if events:
                self._selector.register(half, events, connection)
        elif not events:
            self._selector.unregister(half)
        elif key.events != events:
            self._selector.modify(half, events, connection)

    def _drop_idle(self) -> None:
        deadline = self._clock() - self._limits.idle_seconds
        for connection in [one for one in self._connections if one.active < deadline]:
            self._drop(connection, "idle")

    def _drop(self, connection: _Connection, why: str) -> None:
        up, down = (pipe.moved for pipe in connection.pipes)
        _log.info("connection %s: %d bytes up, %d down", why, up, down)
        self._connections.discard(connection)
        for half in connection.sockets:
            with contextlib.suppress(KeyError):
                self._selector.unregister(half)
        connection.close()

    def _close(self) -> None:
        self._listener.close()
        for connection in list(self._connections):
            self._drop(connection, "stopped")
        self._diallers.shutdown(wait=True, cancel_futures=True)
        self._take_dialled()
        for connection in list(self._connections):
            self._drop(connection, "stopped")
        for accepted in self._dialling:
            accepted.close()
        self._selector.close()
        self._wake_reader.close()
        self._wake_writer.close()

"""The relay: passes bytes both ways between accepted connections and one target, unread.

One thread runs an asyncio loop. Resolving a name blocks, so each look-up has its own thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, Self, TypeAlias

from foobar_shared.addresses import Address, TcpAddress, UnixAddress
from foobar_shared.timeouts import RELAY_IDLE, RELAY_TARGET_CONNECT

_log: Final = logging.getLogger(__name__)

_BUFFER_BYTES: Final = 64 * 1024  # for each direction of a connection
_ACCEPT_PAUSE_SECONDS: Final = 0.1
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds (socket(7))

_Candidate: TypeAlias = tuple[int, Any]  # family and socket address


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """Bounds: connections at once, seconds to connect, seconds without a byte."""

    connections: int = 256
    connect_seconds: float = RELAY_TARGET_CONNECT
    idle_seconds: float = RELAY_IDLE


class Relay:
    """Relays every connection to a listener to a target, from `__enter__` to `__exit__`.

    Attributes:
        last_failure: which target could not be reached last and why; None if that never happened.
    """

    def __init__(
        self,
        listener: socket.socket,
        target: Address,
        *,
        allowed_cid: int | None = None,
        limits: RelayLimits = RelayLimits(),
    ) -> None:
        """Create a relay that does not serve yet.

        Args:
            listener: bound and listening; the relay closes it when it ends.
            target: where each connection goes; its name is resolved anew each time.
            allowed_cid: on an AF_VSOCK listener, the only CID that may connect.
            limits: bounds on number and time.
        """
        self._listener = listener
        self._target = target
        self._allowed_cid = allowed_cid
        self._limits = limits
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._lookups: set[Future[list[_Candidate]]] = set()
        self._thread = threading.Thread(target=self.serve_forever, name="relay", daemon=True)
        self.last_failure: str | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join()

    def stop(self) -> None:
        """Make `serve_forever` end; may be called from any thread or signal handler."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended
            self._loop.call_soon_threadsafe(self._stopping.set)

    def serve_forever(self) -> None:
        """Relay until `stop`, then close all sockets, including the listener.

        A look-up that hangs is left behind in its thread; it holds no socket of the relay.
        """
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._listener.close()
            self._loop.close()

    async def _serve(self) -> None:
        self._listener.setblocking(False)
        self._start_accepting()
        await self._stopping.wait()
        self._loop.remove_reader(self._listener)
        for connection in self._connections:
            connection.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    def _start_accepting(self) -> None:
        if not self._stopping.is_set():
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        try:
            accepted, peer = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:  # no descriptors or no memory: open connections go on meanwhile
            _log.warning("cannot accept: %s", error.strerror)
            self._loop.remove_reader(self._listener)
            self._loop.call_later(_ACCEPT_PAUSE_SECONDS, self._start_accepting)
            return
        if not self._is_allowed(peer):
            _log.warning("refused a connection from %s", peer)
            accepted.close()
        elif max(len(self._connections), len(self._lookups)) >= self._limits.connections:
            _log.warning("refused a connection: %d are open", self._limits.connections)
            accepted.close()
        else:
            accepted.setblocking(False)
            connection = self._loop.create_task(self._relay(accepted))
            self._connections.add(connection)
            connection.add_done_callback(self._connections.discard)
            # Not in the task, since a stop can cancel it before it runs at all.
            connection.add_done_callback(lambda _: accepted.close())

    def _is_allowed(self, peer: object) -> bool:
        if self._allowed_cid is None or self._listener.family != socket.AF_VSOCK:
            return True
        return isinstance(peer, tuple) and peer[0] == self._allowed_cid

    async def _relay(self, accepted: socket.socket) -> None:
        try:
            dialled = await self._dial()
        except OSError as error:
            self.last_failure = f"{self._target}: {_reason(error)}"
            _log.warning("cannot reach %s", self.last_failure)
            return
        with dialled:
            _log.debug("connection open: %d", len(self._connections))
            await _carry(accepted, dialled, self._limits.idle_seconds)

    async def _dial(self) -> socket.socket:
        """Connect to the target: try its addresses in order, each for an equal share of the time.

        Raises:
            OSError: the last address's failure, or the look-up's.
        """
        deadline = self._loop.time() + self._limits.connect_seconds
        async with asyncio.timeout_at(deadline):
            candidates = await self._candidates()
        failure: OSError = TimeoutError()
        for tried, candidate in enumerate(candidates):
            share = (deadline - self._loop.time()) / (len(candidates) - tried)
            try:
                async with asyncio.timeout(share):
                    return await _connect(candidate)
            except OSError as error:
                failure = error
        raise failure

    async def _candidates(self) -> list[_Candidate]:
        if isinstance(self._target, UnixAddress):
            return [(socket.AF_UNIX, self._target.path)]
        if not isinstance(self._target, TcpAddress):
            return [(socket.AF_VSOCK, (self._target.cid, self._target.port))]
        # The loop's own executor would make a stop wait for a look-up that hangs.
        answer: Future[list[_Candidate]] = Future()
        answer.set_running_or_notify_cancel()  # so that its thread can always set a result
        self._lookups.add(answer)
        answer.add_done_callback(self._lookups.discard)
        thread = threading.Thread(target=_resolve, args=(self._target, answer), daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread left
            answer.set_exception(OSError(errno.EAGAIN, str(error)))
        return await asyncio.wrap_future(answer)


def _resolve(target: TcpAddress, answer: Future[list[_Candidate]]) -> None:
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except UnicodeError:  # an empty label, or one of more than 63 characters
        answer.set_exception(socket.gaierror(socket.EAI_NONAME, "Not a host name"))
    except OSError as error:
        answer.set_exception(error)
    else:
        answer.set_result([(family, sockaddr) for family, _, _, _, sockaddr in found])


async def _connect(candidate: _Candidate) -> socket.socket:
    family, sockaddr = candidate
    dialled = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        await asyncio.get_running_loop().sock_connect(dialled, sockaddr)
        dialled.getpeername()  # raises for a unix listener with a full queue
    except BaseException:
        dialled.close()
        raise
    return dialled


def _reason(error: OSError) -> str:
    """Return the system's text for `error`; asyncio's own names addresses, or nothing."""
    if isinstance(error, socket.gaierror):
        return error.strerror or str(error)
    return os.strerror(error.errno or errno.ETIMEDOUT)


async def _carry(accepted: socket.socket, dialled: socket.socket, idle_seconds: float) -> None:
    """Pass bytes both ways until both directions end, a peer resets, or nothing moves."""
    internet = [
        end for end in (accepted, dialled) if end.family in (socket.AF_INET, socket.AF_INET6)
    ]
    for end in internet:
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # An urgent byte is a byte of the stream, too (RFC 6093 section 5).
        end.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    loop = asyncio.get_running_loop()
    up, down = _Direction(accepted, dialled), _Direction(dialled, accepted)
    why, level, is_lost = "stopped", logging.INFO, False
    idle = asyncio.timeout(idle_seconds)

    def postpone() -> None:
        if not idle.expired():
            idle.reschedule(loop.time() + idle_seconds)

    try:
        async with idle, asyncio.TaskGroup() as group:
            for direction in (up, down):
                group.create_task(direction.carry(postpone))
        why, level = "ended", logging.DEBUG
    except* OSError as caught:
        is_lost = not idle.expired()
        why = f"lost ({getattr(caught.exceptions[0], 'strerror', '')})" if is_lost else "idle"
    finally:
        if is_lost or up.is_cut or down.is_cut:
            for end in internet:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        _log.log(level, "connection %s: %d bytes up, %d down", why, up.moved, down.moved)


class _Direction:
    """One direction of a connection, and what became of its bytes."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.moved = 0
        self.is_cut = False  # some bytes, or the end, can't reach the sink

    async def carry(self, postpone: Callable[[], None]) -> None:
        """Pass bytes on, then their end; read more only when the sink has taken all.

        Args:
            postpone: called whenever bytes moved.

        Raises:
            OSError: a peer reset its connection, or the network lost it.
        """
        loop = asyncio.get_running_loop()
        buffer = memoryview(bytearray(_BUFFER_BYTES))
        while count := await loop.sock_recv_into(self.source, buffer):
            self.moved += count
            postpone()
            self.is_cut = True
            try:
                await loop.sock_sendall(self.sink, buffer[:count])
            except (BrokenPipeError, ConnectionResetError) as error:
                # The sink's peer reads no more, but what it wrote before must still be read.
                self.is_cut = isinstance(error, ConnectionResetError)
                return
            self.is_cut = False
            postpone()
            await asyncio.sleep(0)  # other connections get their turn
        with contextlib.suppress(OSError):
            self.sink.shutdown(socket.SHUT_WR)

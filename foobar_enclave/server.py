"""Serves lines on a listening socket: many connections at a time, each bounded in time."""

from __future__ import annotations

import contextlib
import errno
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from foobar_shared.errors import LineTooLongError
from foobar_shared.framing import LineSocket
from foobar_shared.messages import ErrorResponse, encode_response

# The listener itself is unusable; every other failure of accept() may pass.
_UNUSABLE: Final = {errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP}
_DRAIN_BYTES: Final = 1024 * 1024
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a peer may take; times in seconds.

    Attributes:
        connections: served at the same time; one more gets an error line and is closed.
        idle: until a line must begin.
        line: from a line's first byte to its last.
        write: until an answer must be taken.
        drain: how long what follows an over-long line is read and thrown away.
        stop: how long a request may go on once the server is told to stop.
        accept_pause: after a failure to accept, such as for want of descriptors.
    """

    connections: int = 128
    idle: float = 60.0
    line: float = 10.0
    write: float = 10.0
    drain: float = 1.0
    stop: float = 5.0
    accept_pause: float = 0.5


class EnclaveServer:
    """Answers every line on every connection with what `handle` returns for it."""

    def __init__(
        self,
        listener: socket.socket,
        handle: Callable[[bytes], bytes],
        *,
        limits: Limits = Limits(),
    ) -> None:
        """A server that accepts nothing yet.

        Args:
            listener: a listening stream socket, which stays its owner's to close.
            handle: a request line without its line feed to a response line with it.
            limits: see `Limits`.
        """
        self._listener = listener
        self._handle = handle
        self._limits = limits
        self._stopping = False
        self._waker, self._wakened = socket.socketpair()
        self._waker.setblocking(False)
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._lock = threading.Lock()

    def serve_forever(self) -> None:
        """Accept and serve until `stop` is called; returns when every connection has ended.

        Raises:
            OSError: the listener is not a listening socket any more.
        """
        self._listener.setblocking(False)
        # PollSelector needs no descriptor of its own, which may be what there is a want of.
        with self._waker, self._wakened, selectors.PollSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._wakened, selectors.EVENT_READ)
            try:
                while not self._stopping:
                    for key, _ in selector.select():
                        if key.fileobj is self._listener:
                            self._accept()
            finally:
                self._stopping = True
                self._end_connections()

    def stop(self) -> None:
        """End `serve_forever`; safe from other threads and from signal handlers."""
        self._stopping = True
        with contextlib.suppress(OSError):  # it has ended, or is told already
            self._waker.send(b"\0")

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # the peer was gone before its turn
        except OSError as error:
            if error.errno in _UNUSABLE:
                raise
            _logger.warning("event=accept outcome=%s", errno.errorcode.get(error.errno or 0))
            self._wakened.settimeout(self._limits.accept_pause)
            with contextlib.suppress(TimeoutError):
                self._wakened.recv(1, socket.MSG_PEEK)
            return
        if not self._start(connection):
            _logger.warning("event=connection outcome=busy")
            self._refuse(connection)

    def _start(self, connection: socket.socket) -> bool:
        """Whether the connection has got a thread."""
        thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
        with self._lock:
            if len(self._connections) >= self._limits.connections:
                return False
            self._connections[thread] = connection
        try:
            thread.start()
        except RuntimeError:  # the system has no thread left
            with self._lock:
                del self._connections[thread]
            return False
        return True

    def _refuse(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.setblocking(False)
            connection.send(_error_line("the enclave is busy: try again later") + b"\n")

    def _serve(self, connection: socket.socket) -> None:
        outcome = "closed"
        try:
            with connection:
                self._converse(connection)
        except TimeoutError:
            outcome = "too-slow"
        except OSError as error:
            outcome = type(error).__name__
        except Exception as error:  # noqa: BLE001 - a traceback on the console might hold a secret
            outcome = f"defect:{type(error).__name__}"
        finally:
            with self._lock:
                del self._connections[threading.current_thread()]
            _logger.info("event=connection outcome=%s", outcome)

    def _converse(self, connection: socket.socket) -> None:
        lines = LineSocket(connection)
        limits = self._limits
        while not self._stopping:
            try:
                line = lines.read_line(idle=limits.idle, within=limits.line)
            except LineTooLongError as error:
                lines.send_line(_error_line(str(error)), within=limits.write)
                self._drain(connection)
                return
            if line is None:
                return
            lines.send_line(self._handle(line).removesuffix(b"\n"), within=limits.write)

    def _drain(self, connection: socket.socket) -> None:
        """Read what the peer is still sending: a close before it would lose the peer our answer."""
        connection.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + self._limits.drain
        remaining = _DRAIN_BYTES
        while remaining > 0 and (seconds := deadline - time.monotonic()) > 0:
            connection.settimeout(seconds)
            chunk = connection.recv(65536)
            if not chunk:
                return
            remaining -= len(chunk)

    def _end_connections(self) -> None:
        """Let requests that are being answered end, and cut what is left after the limit."""
        deadline = time.monotonic() + self._limits.stop
        for how in (socket.SHUT_RD, socket.SHUT_RDWR):
            with self._lock:
                connections = list(self._connections.items())
            for _, connection in connections:
                with contextlib.suppress(OSError):  # it has just ended by itself
                    connection.shutdown(how)
            for thread, _ in connections:
                thread.join(max(0.0, deadline - time.monotonic()))


def _error_line(text: str) -> bytes:
    return encode_response(ErrorResponse(text))

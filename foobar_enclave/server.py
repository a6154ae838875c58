"""Serves request lines over bounded connections, a thread each.

A failure ends its own connection only, and only its kind is logged. The parent can always deny
service, so only memory, number and time are bounded.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from foobar_enclave.errors import BusyError
from foobar_shared.errors import LineTooLongError
from foobar_shared.framing import CHUNK, MAX_COMPUTE_LINE, LineSocket
from foobar_shared.messages import ErrorResponse, encode_response
from foobar_shared.timeouts import ANSWER_WRITE, REQUEST_IDLE, REQUEST_LINE, SERVER_STOP

_POLL_SECONDS: Final = 0.2  # how soon `stop` is noticed
_DRAIN_SECONDS: Final = 1.0
_ACCEPT_PAUSE_SECONDS: Final = 0.5
# The listener itself is unusable; every other failure of accept() may pass.
_UNUSABLE: Final = {errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP}
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections are served at once, and the time-outs (see `timeouts`) in seconds."""

    connections: int = 80
    idle: float = REQUEST_IDLE
    line: float = REQUEST_LINE
    write: float = ANSWER_WRITE
    stop: float = SERVER_STOP


class EnclaveServer:
    """Answers every line on every connection with what `handle` returns for it."""

    def __init__(
        self,
        listener: socket.socket,
        handle: Callable[[bytes], bytes],
        limits: Limits = Limits(),
    ) -> None:
        """Prepare a server that accepts nothing yet.

        Args:
            listener: a listening stream socket, which is not closed.
            handle: turns a request line without line feed into a response line with it; called
                from several threads.
            limits: see `Limits`.
        """
        self._listener = listener
        self._handle = handle
        self._limits = limits
        self._stopping = False

    def stop(self) -> None:
        """End `serve_forever`; safe from other threads and from signal handlers."""
        self._stopping = True

    def serve_forever(self) -> None:
        """Serve until `stop` is called and running requests have ended, or their time has.

        Raises:
            OSError: the listener is not a listening socket any more.
        """
        self._listener.settimeout(_POLL_SECONDS)
        served: dict[threading.Thread, socket.socket] = {}
        while not self._stopping:
            connection = self._accept()
            served = {thread: its for thread, its in served.items() if thread.is_alive()}
            if connection is None:
                continue
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            try:
                if len(served) >= self._limits.connections:
                    raise BusyError
                thread.start()
            except (BusyError, RuntimeError):  # RuntimeError: the system has no thread left
                _refuse(connection)
            else:
                served[thread] = connection
        for connection in served.values():
            with contextlib.suppress(OSError):  # it has just ended
                connection.shutdown(socket.SHUT_RD)  # as if its peer had nothing more to say
        deadline = time.monotonic() + self._limits.stop
        for thread in served:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _accept(self) -> socket.socket | None:
        try:
            connection, _ = self._listener.accept()
        except (TimeoutError, ConnectionAbortedError):
            return None
        except OSError as error:
            if error.errno in _UNUSABLE:
                raise
            _logger.warning("event=accept outcome=%s", errno.errorcode.get(error.errno or 0))
            time.sleep(_ACCEPT_PAUSE_SECONDS)  # for example until a descriptor is free
            return None
        return connection

    def _serve(self, connection: socket.socket) -> None:
        outcome = "closed"
        try:
            with connection:
                self._answer(connection)
        except (OSError, LineTooLongError) as error:
            outcome = type(error).__name__
        except Exception as error:  # noqa: BLE001 - a traceback on the console might hold a secret
            outcome = f"defect:{type(error).__name__}"
        _logger.info("event=connection outcome=%s", outcome)

    def _answer(self, connection: socket.socket) -> None:
        lines = LineSocket(connection)
        limits, longest = self._limits, MAX_COMPUTE_LINE
        while not self._stopping:
            try:
                line = lines.read_line(idle=limits.idle, within=limits.line, longest=longest)
            except LineTooLongError as error:
                lines.send_line(_error_line(error), within=limits.write)
                _drain(connection)
                raise
            if line is None:
                return
            lines.send_line(self._handle(line).removesuffix(b"\n"), within=limits.write)


def _error_line(error: Exception) -> bytes:
    return encode_response(ErrorResponse(str(error)))


def _refuse(connection: socket.socket) -> None:
    _logger.warning("event=connection outcome=busy")
    with connection, contextlib.suppress(OSError):
        LineSocket(connection).send_line(_error_line(BusyError()), within=0)


def _drain(connection: socket.socket) -> None:
    """Throw away what the peer still sends: a close before it would lose the peer our answer."""
    connection.shutdown(socket.SHUT_WR)
    deadline = time.monotonic() + _DRAIN_SECONDS
    while (seconds := deadline - time.monotonic()) > 0:
        connection.settimeout(seconds)
        if not connection.recv(CHUNK):
            return

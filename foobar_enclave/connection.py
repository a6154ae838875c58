"""One connection to the enclave: what its peer has sent, what it is to get, and until when."""

from __future__ import annotations

import socket
from typing import Final

from foobar_shared.framing import CHUNK, LineBuffer

_DRAIN_BYTES: Final = 1024 * 1024


class Connection:
    """A peer's stream socket, which never blocks.

    Attributes:
        socket: connected; this object's to close.
        lines: what has arrived and was not answered yet.
        line: a request that waits for its turn; nothing is read meanwhile.
        deadline: by the server's clock: when the peer is too slow.
        is_apart: a thread answers a request.
        is_last: what is being sent is the last answer.
        is_draining: nothing is answered any more, and what still arrives is thrown away.
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self.socket = connected
        self.lines = LineBuffer()
        self.line: bytes | None = None
        self.deadline = 0.0
        self.is_apart = False
        self.is_last = False
        self.is_draining = False
        self._outgoing = memoryview(b"")
        self._may_drain = _DRAIN_BYTES

    @property
    def is_sending(self) -> bool:
        """Whether the peer has yet to take a part of an answer."""
        return bool(self._outgoing)

    def receive(self) -> bool:
        """Take what has arrived; whether more may follow.

        Raises:
            ConnectionError: the peer closed in the middle of a line, or the connection failed.
        """
        try:
            chunk = self.socket.recv(CHUNK)
        except BlockingIOError:
            return True
        if self.is_draining:
            self._may_drain -= len(chunk)
            return bool(chunk) and self._may_drain > 0
        if not chunk and len(self.lines):
            raise ConnectionResetError("connection closed in the middle of a line")
        self.lines.add(chunk)
        return bool(chunk)

    def send(self, answer: bytes) -> None:
        """Send as much of an answer as the peer takes now; `flush` sends what is left."""
        self._outgoing = memoryview(answer)
        self.flush()

    def flush(self) -> None:
        """Send as much as the peer takes now of what it has not taken.

        Raises:
            ConnectionError: the connection failed.
        """
        try:
            self._outgoing = self._outgoing[self.socket.send(self._outgoing) :]
        except BlockingIOError:
            return

    def drain(self) -> None:
        """From now on, throw away what the peer is still sending.

        A close before it would lose the peer our answer.
        """
        self.is_draining = True
        self.socket.shutdown(socket.SHUT_WR)

"""Lines over a stream socket, bounded in length and in time in both directions."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Final

from foobar_shared.errors import LineTooLongError

MAX_LINE: Final = 64 * 1024
"""Longest line in bytes, its line feed included (the original's `bufio.Scanner` buffer)."""

MAX_COMPUTE_LINE: Final = 1024 * 1024
"""Longest line of a request that hands over many messages at once."""

CHUNK: Final = 16 * 1024
"""Bytes to read at a time."""


class LineSocket:
    """Reads and writes lines on a connected stream socket, which it does not close.

    Every call sets the socket's time-out anew. `clock` counts seconds and never goes back.
    """

    def __init__(
        self, connection: socket.socket, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._socket = connection
        self._clock = clock
        self._buffer = bytearray()

    def read_line(self, *, idle: float, within: float, longest: int = MAX_LINE) -> bytes | None:
        """Return the next line without its line feed, or None where the peer closed before it.

        Args:
            idle: seconds until the line must begin.
            within: seconds from its first byte to its last, however many bytes come in between.
            longest: bytes that a line may have with its line feed.

        Raises:
            LineTooLongError: more than `longest` bytes without a line feed.
            TimeoutError: the line did not begin or end in time.
            ConnectionError: the peer closed in the middle of a line, or the connection failed.
        """
        if not self._buffer and not self._receive(idle):
            return None
        deadline = self._clock() + within
        searched = 0
        while (end := self._buffer.find(b"\n", searched, longest)) < 0:
            searched = len(self._buffer)
            if searched >= longest:
                raise LineTooLongError(f"line longer than {longest} bytes")
            if not self._receive(deadline - self._clock()):
                raise ConnectionResetError("connection closed in the middle of a line")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def send_line(self, line: bytes, *, within: float, longest: int = MAX_LINE) -> None:
        """Send `line` and a line feed, at most `longest` bytes in all.

        Raises:
            LineTooLongError: they are more; nothing was sent.
            TimeoutError: the peer did not take them within `within` seconds.
            ConnectionError: the connection failed.
        """
        if len(line) >= longest:
            raise LineTooLongError(f"line longer than {longest} bytes")
        self._socket.settimeout(within)
        self._socket.sendall(line + b"\n")

    def _receive(self, seconds: float) -> bool:
        if seconds <= 0:
            raise TimeoutError("the peer is too slow")
        self._socket.settimeout(seconds)
        chunk = self._socket.recv(CHUNK)
        self._buffer += chunk
        return bool(chunk)

"""Lines over a stream socket: bounded in length and in time, in both directions."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Final

from foobar_shared.errors import LineTooLongError

MAX_LINE: Final = 64 * 1024
"""Longest line in bytes, its line feed included (the original's `bufio.Scanner` buffer)."""

_CHUNK: Final = 16 * 1024


class LineSocket:
    """Reads and writes lines on a connected stream socket, which it does not close.

    The socket's own time-out is set anew for every call. `clock` counts seconds and never goes
    back (`time.monotonic`).
    """

    def __init__(
        self, connection: socket.socket, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._socket = connection
        self._clock = clock
        self._buffer = bytearray()

    def read_line(self, *, idle: float, within: float) -> bytes | None:
        """The next line without its line feed, or None where the peer has closed in between.

        Args:
            idle: seconds to wait for a line to begin.
            within: seconds from its first byte to its last, so that a peer that sends a byte now
                and then is as bounded as one that sends none.

        Raises:
            LineTooLongError: more than `MAX_LINE` bytes without a line feed.
            TimeoutError: the line did not begin or end in time.
            ConnectionError: the peer closed in the middle of a line, or the connection failed.
        """
        if not self._buffer and not self._receive(idle):
            return None
        deadline = self._clock() + within
        searched = 0
        while (end := self._buffer.find(b"\n", searched, MAX_LINE)) < 0:
            searched = len(self._buffer)
            if searched >= MAX_LINE:
                raise LineTooLongError(f"line longer than {MAX_LINE} bytes")
            if not self._receive(deadline - self._clock()):
                raise ConnectionResetError("connection closed in the middle of a line")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def send_line(self, line: bytes, *, within: float) -> None:
        """Send `line` and a line feed.

        Raises:
            LineTooLongError: `line` and its line feed are longer than `MAX_LINE` bytes.
            TimeoutError: the peer did not take it within `within` seconds.
            ConnectionError: the connection failed.
        """
        if len(line) >= MAX_LINE:
            raise LineTooLongError(f"line longer than {MAX_LINE} bytes")
        self._socket.settimeout(within)
        self._socket.sendall(line + b"\n")

    def _receive(self, seconds: float) -> bool:
        if seconds <= 0:
            raise TimeoutError("the peer is too slow")
        self._socket.settimeout(seconds)
        chunk = self._socket.recv(_CHUNK)
        self._buffer += chunk
        return bool(chunk)

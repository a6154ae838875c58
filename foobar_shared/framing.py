"""Lines over a stream: bounded in length, and over a socket in time too, in both directions."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Final

from foobar_shared.errors import LineTooLongError

MAX_LINE: Final = 64 * 1024
"""Longest line in bytes, its line feed included (the original's `bufio.Scanner` buffer)."""

CHUNK: Final = 16 * 1024
"""Bytes to read at a time."""


class LineBuffer:
    """Cuts a stream of bytes into lines. Holds at most `MAX_LINE` and what was added last."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._searched = 0

    def __len__(self) -> int:
        return len(self._bytes)

    def add(self, chunk: bytes) -> None:
        """Append what has arrived; only where `next_line` has just returned None."""
        self._bytes += chunk

    def next_line(self) -> bytes | None:
        """The first line without its line feed, or None where it has not ended yet.

        Raises:
            LineTooLongError: it is longer than `MAX_LINE` bytes, if it ever ends.
        """
        end = self._bytes.find(b"\n", self._searched, MAX_LINE)
        if end < 0:
            self._searched = len(self._bytes)
            if self._searched >= MAX_LINE:
                raise LineTooLongError(f"line longer than {MAX_LINE} bytes")
            return None
        line = bytes(self._bytes[:end])
        del self._bytes[: end + 1]
        self._searched = 0
        return line


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
        self._buffer = LineBuffer()

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
        if not len(self._buffer) and not self._receive(idle):
            return None
        deadline = self._clock() + within
        while (line := self._buffer.next_line()) is None:
            if not self._receive(deadline - self._clock()):
                raise ConnectionResetError("connection closed in the middle of a line")
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
        chunk = self._socket.recv(CHUNK)
        self._buffer.add(chunk)
        return bool(chunk)

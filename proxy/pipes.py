"""The two directions of a relayed connection: what to wait for, and moving what is there.

accepted ── pipe ──▶ dialled      the end of a stream is passed on once all before it is written
accepted ◀── pipe ── dialled      a pipe whose sink takes no more stops reading its source
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from typing import Final

_INTERNET: Final = (socket.AF_INET, socket.AF_INET6)
_GONE: Final = select.EPOLLHUP | select.EPOLLERR
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds (socket(7))


class Pipe:
    """One direction: reads from `source`, writes to `sink`, keeps what the sink did not take."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.closed = False  # the source's end was passed on, or the sink takes no more
        self.moved = 0
        self._rest = memoryview(b"")

    @property
    def wants_read(self) -> bool:
        """Whether the source is to be read: never while the sink has not taken the last read."""
        return not (self.closed or self._rest)

    @property
    def wants_write(self) -> bool:
        """Whether bytes wait for the sink."""
        return bool(self._rest)

    def read(self, buffer: memoryview) -> None:
        """Move what the source has now, at most a buffer of it, as far as the sink takes it."""
        try:
            count = self.source.recv_into(buffer)
        except BlockingIOError:
            return
        if count == 0:  # and all before it is written, for nothing is read until it is
            self.closed = True
            with contextlib.suppress(OSError):
                self.sink.shutdown(socket.SHUT_WR)
            return
        self.moved += count
        sent = self._send(buffer[:count])
        if sent < count and not self.closed:
            self._rest = memoryview(bytes(buffer[sent:count]))  # the buffer is everybody's

    def write(self) -> None:
        """Move what was kept, as far as the sink takes it."""
        sent = self._send(self._rest)
        self._rest = memoryview(b"") if self.closed else self._rest[sent:]

    def _send(self, data: memoryview) -> int:
        try:
            return self.sink.send(data)
        except BlockingIOError:
            return 0
        except BrokenPipeError:
            # The sink's peer reads no more. What it wrote before may still be on its way, so only
            # this direction is over.
            self.closed = True
            return 0


class Connection:
    """An accepted and a dialled socket, both non-blocking, and the two pipes between them."""

    def __init__(self, accepted: socket.socket, dialled: socket.socket) -> None:
        self.sockets = (accepted, dialled)
        self.up = Pipe(accepted, dialled)
        self.down = Pipe(dialled, accepted)
        for half in self.sockets:
            if half.family in _INTERNET:
                half.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def done(self) -> bool:
        """Whether both directions are over."""
        return self.up.closed and self.down.closed

    def events(self, which: socket.socket) -> int:
        """The epoll events to wait for on one of the two sockets; 0 for only its loss."""
        out, back = self._pipes(which)
        mask = select.EPOLLIN if out.wants_read else 0
        return mask | (select.EPOLLOUT if back.wants_write else 0)

    def move(self, which: socket.socket, mask: int, buffer: memoryview) -> None:
        """Move bytes on a socket for which epoll reported `mask`.

        Raises:
            OSError: a peer reset its connection, or the network lost it.
        """
        out, back = self._pipes(which)
        if mask & (select.EPOLLOUT | _GONE) and back.wants_write:
            back.write()
        if mask & (select.EPOLLIN | _GONE) and out.wants_read:
            out.read(buffer)
        elif mask & _GONE and out.closed:
            back.closed = True  # the peer has sent all it had, and is there no more to receive

    def close(self, *, reset: bool = False) -> None:
        """Close both sockets; with `reset`, TCP peers are told that the stream was cut off."""
        for half in self.sockets:
            if reset and half.family in _INTERNET:
                with contextlib.suppress(OSError):
                    half.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            half.close()

    def _pipes(self, which: socket.socket) -> tuple[Pipe, Pipe]:
        """The pipe that `which` feeds, and the one that feeds it."""
        return (self.up, self.down) if which is self.sockets[0] else (self.down, self.up)

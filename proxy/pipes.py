"""The two directions of a relayed connection: what to wait for, and moving what is there.

accepted ── pipe ──▶ dialled      the end of a stream is passed on once all before it is written
accepted ◀── pipe ── dialled      a pipe whose sink takes no more stops reading its source

Bytes are copied through a buffer. Where a TCP source brings many, splice(2) moves them instead,
which saves the copies; from unix sockets it costs more than it saves, and vsock cannot.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
from typing import Final

from proxy.pool import KernelPipe, Pool

_INTERNET: Final = (socket.AF_INET, socket.AF_INET6)
_GONE: Final = select.EPOLLHUP | select.EPOLLERR
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds (socket(7))

_MANY: Final = 64 * 1024  # bytes of one read from which on splicing is cheaper than copying
_FEW: Final = 16 * 1024  # and down to which it is not dearer
_CANNOT_SPLICE: Final = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


class Pipe:
    """One direction: reads from `source`, writes to `sink`, keeps what the sink did not take."""

    def __init__(self, source: socket.socket, sink: socket.socket, pool: Pool) -> None:
        self.source = source
        self.sink = sink
        self.closed = False  # the source's end was passed on, or the sink takes no more
        self.moved = 0
        self.waiting = 0  # bytes that the sink has not taken yet
        self._pool = pool
        self._can_splice = source.family in _INTERNET
        self._many = False  # the last read brought much
        self._carrier: memoryview | KernelPipe | None = None  # holds what waits
        self._rest = memoryview(b"")  # of the carrier, where that is a buffer

    def read(self) -> None:
        """Move what the source has now, at most a carrier full, as far as the sink takes it.

        Only while nothing waits: what the sink has not taken stops the source.
        """
        carrier = self._pool.pipe() if self._many and self._can_splice else None
        if carrier is None:
            self._read_into(self._pool.buffer())
        else:
            self._splice_into(carrier)

    def write(self) -> None:
        """Move what was kept, as far as the sink takes it."""
        try:
            self.waiting -= self._send()
        except BlockingIOError:
            return
        except BrokenPipeError:
            # The sink's peer reads no more. What it wrote before may still be on its way, so only
            # this direction is over.
            self.closed = True
            self.drop()
        else:
            if not self.waiting:
                self._give_back()

    def drop(self) -> None:
        """Let go of what waits."""
        if isinstance(self._carrier, KernelPipe):
            self._carrier.close()
            self._carrier = None
        elif self._carrier is not None:
            self._give_back()
        self.waiting = 0

    def _read_into(self, buffer: memoryview) -> None:
        self._carrier = buffer
        try:
            count = self.source.recv_into(buffer)
        except OSError as error:
            self._give_back()
            if isinstance(error, BlockingIOError):
                return
            raise
        self._many = count >= _MANY
        self._rest = buffer[:count]
        self._pass_on(count)

    def _splice_into(self, pipe: KernelPipe) -> None:
        self._carrier = pipe
        try:
            count = os.splice(
                self.source.fileno(), pipe.writer, self._pool.size, flags=os.SPLICE_F_NONBLOCK
            )
        except OSError as error:
            self._give_back()
            if isinstance(error, BlockingIOError):
                return
            if error.errno not in _CANNOT_SPLICE:
                raise
            self._can_splice = False  # and nothing was taken: epoll reports it again
            return
        self._many = count >= _FEW
        self._pass_on(count)

    def _pass_on(self, count: int) -> None:
        if count == 0:  # and all before it is written, for nothing is read until it is
            self.closed = True
            self._give_back()
            with contextlib.suppress(OSError):
                self.sink.shutdown(socket.SHUT_WR)
            return
        self.moved += count
        self.waiting = count
        self.write()

    def _send(self) -> int:
        if isinstance(self._carrier, KernelPipe):
            return os.splice(
                self._carrier.reader,
                self.sink.fileno(),
                self.waiting,
                flags=os.SPLICE_F_NONBLOCK,
            )
        sent = self.sink.send(self._rest)
        self._rest = self._rest[sent:]
        return sent

    def _give_back(self) -> None:
        if self._carrier is not None:
            self._pool.give_back(self._carrier)
        self._carrier = None
        self._rest = memoryview(b"")


class Half:
    """One of a connection's two sockets, with the pipe that it feeds and the one that feeds it."""

    __slots__ = ("back", "connection", "events", "fd", "out", "socket")

    def __init__(self, connection: Connection, out: Pipe, back: Pipe) -> None:
        self.connection = connection
        self.socket = out.source
        self.fd = self.socket.fileno()
        self.out = out
        self.back = back
        self.events: int | None = None  # as registered with epoll; None while it is not

    def wanted(self) -> int:
        """The epoll events to wait for; 0 for only its loss."""
        out = self.out
        mask = 0 if out.closed or out.waiting else select.EPOLLIN
        return mask | select.EPOLLOUT if self.back.waiting else mask

    def move(self, mask: int) -> None:
        """Move bytes after epoll reported `mask`.

        Raises:
            OSError: a peer reset its connection, or the network lost it.
        """
        out, back = self.out, self.back
        if back.waiting and mask & (select.EPOLLOUT | _GONE):
            back.write()
        if not (out.closed or out.waiting) and mask & (select.EPOLLIN | _GONE):
            out.read()
        elif mask & _GONE and out.closed:
            back.closed = True  # the peer has sent all it had, and is there no more to receive


class Connection:
    """An accepted and a dialled socket, both non-blocking, and the two pipes between them."""

    def __init__(self, accepted: socket.socket, dialled: socket.socket, pool: Pool) -> None:
        self.up = Pipe(accepted, dialled, pool)
        self.down = Pipe(dialled, accepted, pool)
        self.halves = (Half(self, self.up, self.down), Half(self, self.down, self.up))
        self.active = 0.0  # when something last happened, by the relay's clock
        for half in self.halves:
            if half.socket.family in _INTERNET:
                half.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def done(self) -> bool:
        """Whether both directions are over."""
        return self.up.closed and self.down.closed

    def close(self, *, reset: bool = False) -> None:
        """Close both sockets; with `reset`, TCP peers are told that the stream was cut off."""
        for half in self.halves:
            half.out.drop()
            if reset and half.socket.family in _INTERNET:
                with contextlib.suppress(OSError):
                    half.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            half.socket.close()

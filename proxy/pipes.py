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
import socket
import struct
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from typing import Final

from proxy.pool import KernelPipe, Pool

_INTERNET: Final = (socket.AF_INET, socket.AF_INET6)
_GONE: Final = EPOLLHUP | EPOLLERR
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds (socket(7))

_NOTHING: Final = memoryview(b"")
_MANY: Final = 64 * 1024  # bytes of one read from which on splicing is cheaper than copying
_FEW: Final = 16 * 1024  # and down to which it is not dearer
_AT_ONCE: Final = os.SPLICE_F_NONBLOCK
_CANNOT_SPLICE: Final = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


class Pipe:
    """One direction: reads from `source`, writes to `sink`, keeps what the sink did not take."""

    __slots__ = (
        "_can_splice",
        "_kept",
        "_many",
        "_pool",
        "_rest",
        "closed",
        "is_from_tcp",
        "moved",
        "sink",
        "source",
        "waiting",
        "was_reset",
    )

    def __init__(self, source: socket.socket, sink: socket.socket, pool: Pool) -> None:
        self.source = source
        self.sink = sink
        self.closed = False  # the source's end was passed on, or the sink takes no more
        self.was_reset = False  # the sink's peer has cut its connection off
        self.moved = 0
        self.waiting = 0  # bytes that the sink has not taken yet
        self._pool = pool
        self.is_from_tcp = source.family in _INTERNET
        self._can_splice = self.is_from_tcp
        self._many = False  # the last read brought so much that splicing pays
        self._kept: memoryview | KernelPipe | None = None  # what the waiting bytes are in
        self._rest = _NOTHING  # the waiting bytes themselves, where that is a buffer

    def read(self) -> None:
        """Move what the source has now, at most a buffer of it, as far as the sink takes it.

        Only while nothing waits: what the sink has not taken stops the source.

        Raises:
            OSError: a peer reset its connection, or the network lost it.
        """
        kernel = self._pool.pipe() if self._many else None
        try:
            if kernel is not None and self._splice(kernel):
                return
            buffer = self._pool.buffer
            count = self.source.recv_into(buffer)
        except BlockingIOError:
            return
        if count == 0:
            self._end()
            return
        self.moved += count
        self._many = self._can_splice and count >= _MANY
        sent = self._taken(buffer[:count])
        if sent < count and not self.closed:
            self._pool.keep_buffer()
            self._kept, self._rest, self.waiting = buffer, buffer[sent:count], count - sent

    def write(self) -> None:
        """Move what was kept, as far as the sink takes it.

        Raises:
            OSError: a peer reset its connection, or the network lost it.
        """
        if isinstance(self._kept, KernelPipe):
            sent = self._taken_from(self._kept, self.waiting)
        else:
            sent = self._taken(self._rest)
            self._rest = self._rest[sent:]
        self.waiting -= sent
        if self.closed or not self.waiting:
            self.drop()

    def drop(self) -> None:
        """Let go of what is kept."""
        if isinstance(self._kept, KernelPipe):
            if self.waiting:
                self._kept.close()
            else:
                self._pool.give_back_pipe(self._kept)
        elif self._kept is not None:
            self._pool.give_back_buffer(self._kept)
        self._kept = None
        self._rest = _NOTHING
        self.waiting = 0

    def _splice(self, kernel: KernelPipe) -> bool:
        """Move what can be spliced; whether that is anything.

        If not, only reading tells why: before an urgent byte (tcp(7)), splice(2) takes nothing and
        says that it is the end, or that there is nothing yet.
        """
        try:
            count = os.splice(self.source.fileno(), kernel.writer, self._pool.size, flags=_AT_ONCE)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _CANNOT_SPLICE:
                raise
            self._can_splice = self._many = False
            return False
        if count == 0:
            return False
        self.moved += count
        self._many = count >= _FEW
        self._pool.keep_pipe()  # whatever happens now, no other direction gets these bytes
        self._kept, self.waiting = kernel, count
        self.write()
        return True

    def _end(self) -> None:
        self.closed = True  # and all before it is written, for nothing is read until it is
        with contextlib.suppress(OSError):
            self.sink.shutdown(socket.SHUT_WR)

    def _taken(self, data: memoryview) -> int:
        try:
            return self.sink.send(data)
        except BlockingIOError:
            return 0
        except (BrokenPipeError, ConnectionResetError) as error:
            self._refused(error)
            return 0

    def _taken_from(self, kernel: KernelPipe, count: int) -> int:
        try:
            return os.splice(kernel.reader, self.sink.fileno(), count, flags=_AT_ONCE)
        except BlockingIOError:
            return 0
        except (BrokenPipeError, ConnectionResetError) as error:
            self._refused(error)
            return 0
        except OSError as error:
            if error.errno not in _CANNOT_SPLICE:
                raise
            self._keep_copy(kernel)
            return 0

    def _refused(self, error: OSError) -> None:
        """The sink's peer reads no more.

        What it wrote before may still be on its way, so only this direction is over.
        """
        self.closed = True
        self.was_reset = isinstance(error, ConnectionResetError)

    def _keep_copy(self, kernel: KernelPipe) -> None:
        """Take what waits out of a kernel pipe, for a sink that cannot be spliced to."""
        self._can_splice = self._many = False
        buffer = self._pool.buffer
        self._pool.keep_buffer()
        count = os.readv(kernel.reader, [buffer])
        self._pool.give_back_pipe(kernel)
        self._kept, self._rest = buffer, buffer[:count]


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
        mask = 0 if self.out.closed or self.out.waiting else EPOLLIN
        return mask | EPOLLOUT if self.back.waiting else mask

    def move(self, mask: int) -> bool:
        """Move bytes after epoll reported `mask`.

        Returns:
            Whether there may be something else to wait for than before.

        Raises:
            OSError: a peer reset its connection, or the network lost it.
        """
        out, back = self.out, self.back
        if back.waiting and mask & (EPOLLOUT | _GONE):
            back.write()
            if not (back.waiting or back.closed):
                back.read()  # most likely there is more, and waiting for it would cost a turn
        if not (out.closed or out.waiting) and mask & (EPOLLIN | _GONE):
            out.read()
        if mask & _GONE and out.closed:
            back.closed = True  # the peer has sent all it had, and is there no more to receive
        return mask != EPOLLIN or out.closed or out.waiting > 0


class Connection:
    """An accepted and a dialled socket, both non-blocking, and the two pipes between them."""

    def __init__(self, accepted: socket.socket, dialled: socket.socket, pool: Pool) -> None:
        self.up = Pipe(accepted, dialled, pool)
        self.down = Pipe(dialled, accepted, pool)
        self.halves = (Half(self, self.up, self.down), Half(self, self.down, self.up))
        self.active = 0.0  # when something last happened, by the relay's clock
        for half in self.halves:
            if half.out.is_from_tcp:
                half.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # An urgent byte is a byte of the stream, too (RFC 6093 section 5).
                half.socket.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)

    @property
    def done(self) -> bool:
        """Whether both directions are over."""
        return self.up.closed and self.down.closed

    @property
    def was_cut(self) -> bool:
        """Whether a peer's reset, or bytes that are thrown away, make it less than it was to be."""
        return any(pipe.was_reset or pipe.waiting for pipe in (self.up, self.down))

    def close(self, *, reset: bool = False) -> None:
        """Close both sockets; with `reset`, TCP peers are told that the stream was cut off."""
        for half in self.halves:
            half.out.drop()
            if reset and half.out.is_from_tcp:
                with contextlib.suppress(OSError):
                    half.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            half.socket.close()

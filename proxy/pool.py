"""What a relay carries bytes in: buffers and kernel pipes, lent to a direction while bytes wait."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import Final

BUFFER_BYTES: Final = 256 * 1024

_SPARE: Final = 4  # of each kind, kept for the next direction that needs one


class KernelPipe:
    """A pipe that splice(2) moves bytes through, without their being copied to this process."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # A user beyond his share of pipe buffers (pipe(7)) keeps the smaller one that he got.
        with contextlib.suppress(OSError):
            fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, BUFFER_BYTES)

    def close(self) -> None:
        """Give both ends back to the system."""
        os.close(self.reader)
        os.close(self.writer)


class Pool:
    """One empty buffer and kernel pipe that all directions of a relay share until one keeps it."""

    def __init__(self, *, size: int = BUFFER_BYTES) -> None:
        self.size = size  # bytes that a buffer holds, and the most that a kernel pipe is given
        self.buffer = memoryview(bytearray(size))
        self._pipe: KernelPipe | None = None
        self._buffers: list[memoryview] = []
        self._pipes: list[KernelPipe] = []

    def keep_buffer(self) -> None:
        """Leave the shared buffer to a direction in which bytes wait.

        Raises:
            OSError: there is no memory for another.
        """
        try:
            self.buffer = self._buffers.pop() if self._buffers else memoryview(bytearray(self.size))
        except MemoryError:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from None

    def give_back_buffer(self, buffer: memoryview) -> None:
        """Take a buffer back from which nothing waits any more."""
        if len(self._buffers) < _SPARE:
            self._buffers.append(buffer)

    def pipe(self) -> KernelPipe | None:
        """The shared kernel pipe; None where none can be made now."""
        if self._pipe is None:
            with contextlib.suppress(OSError):  # no descriptors: bytes are copied meanwhile
                self._pipe = self._pipes.pop() if self._pipes else KernelPipe()
        return self._pipe

    def keep_pipe(self) -> None:
        """Leave the shared kernel pipe to a direction in which bytes wait."""
        self._pipe = None

    def give_back_pipe(self, pipe: KernelPipe) -> None:
        """Take a kernel pipe back in which nothing waits any more."""
        if len(self._pipes) < _SPARE:
            self._pipes.append(pipe)
        else:
            pipe.close()

    def close(self) -> None:
        """Close the kernel pipes."""
        if self._pipe is not None:
            self._pipes.append(self._pipe)
        self._pipe = None
        while self._pipes:
            self._pipes.pop().close()

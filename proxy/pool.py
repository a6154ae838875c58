"""What a relay carries bytes in: buffers and kernel pipes, lent to a direction while bytes wait."""

from __future__ import annotations

import contextlib
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
    """The empty ones. All directions of a relay share one of each kind until one keeps it."""

    def __init__(self, *, size: int = BUFFER_BYTES) -> None:
        self.size = size  # bytes that a buffer holds, and the most that a kernel pipe is given
        self._buffers: list[memoryview] = []
        self._pipes: list[KernelPipe] = []

    def buffer(self) -> memoryview:
        """An empty buffer of `size` bytes, to be given back."""
        return self._buffers.pop() if self._buffers else memoryview(bytearray(self.size))

    def pipe(self) -> KernelPipe | None:
        """An empty kernel pipe, to be given back or closed; None where none can be made now."""
        if self._pipes:
            return self._pipes.pop()
        try:
            return KernelPipe()
        except OSError:  # no descriptors: bytes are copied meanwhile
            return None

    def give_back(self, empty: memoryview | KernelPipe) -> None:
        """Take back what is empty again."""
        if isinstance(empty, KernelPipe):
            if len(self._pipes) < _SPARE:
                self._pipes.append(empty)
            else:
                empty.close()
        elif len(self._buffers) < _SPARE:
            self._buffers.append(empty)

    def close(self) -> None:
        """Close the kernel pipes."""
        while self._pipes:
            self._pipes.pop().close()

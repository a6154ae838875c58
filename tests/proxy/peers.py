"""What the relay's tests do at both ends of it."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SECONDS = 10.0


def noise(seed: int, size: int) -> bytes:
    """Return `size` bytes that are the same for the same seed."""
    return random.Random(seed).randbytes(size)  # noqa: S311


def send_all(
    sender: socket.socket, data: bytes, *, then: Callable[[], None] | None = None
) -> threading.Thread:
    """Send `data` and the end of the stream, or do what `then` does, in a thread."""

    def run() -> None:
        sender.sendall(data)
        if then is None:
            sender.shutdown(socket.SHUT_WR)
        else:
            then()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def send_until_full(sender: socket.socket, data: bytes) -> int:
    """Send until nothing more is taken for 0.2 s, or all is; return how many bytes were taken."""
    before = sender.gettimeout()
    sender.settimeout(0.2)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < len(data):
            sent += sender.send(data[sent : sent + 65536])
    sender.settimeout(before)
    return sent


def receive_all(receiver: socket.socket) -> bytes:
    """Return all bytes up to the end of the stream."""
    chunks = []
    while chunk := receiver.recv(65536):
        chunks.append(chunk)
    return b"".join(chunks)


def receive_until_reset(receiver: socket.socket) -> bytes:
    """Return all bytes up to a reset, which must come."""
    received = bytearray()
    try:
        while chunk := receiver.recv(65536):
            received += chunk
    except ConnectionResetError:
        return bytes(received)
    raise AssertionError("the stream ended without a reset")


def exchange(client: socket.socket, server: socket.socket) -> None:
    """Send a byte each way."""
    for sender, receiver in ((client, server), (server, client)):
        sender.sendall(b"x")
        assert receiver.recv(2) == b"x"


def reset(peer: socket.socket) -> None:
    """Close a TCP connection with a reset."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def is_over(peer: socket.socket) -> bool:
    """Return whether the connection ends without a byte, in either way."""
    try:
        return peer.recv(1) == b""
    except ConnectionError:
        return True


def eventually(condition: Callable[[], bool]) -> bool:
    """Return whether `condition` comes true within a few seconds."""
    deadline = time.monotonic() + 5
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextlib.contextmanager
def deaf_target() -> Iterator[socket.socket]:
    """Give a TCP listener whose queue is full: connecting to it hangs."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener

"""What the relay's tests are at both ends of it."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from foobar_shared.addresses import Address, connect
from proxy.relay import Relay

SECONDS = 10.0


class Clock:
    """A clock that goes only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Link:
    """A relay, and connections through it."""

    def __init__(self, relay: Relay, place: Address, target: socket.socket) -> None:
        self.relay = relay
        self.place = place
        self._target = target
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.close()

    def client(self) -> socket.socket:
        """A connection to the relay, whether or not it takes it."""
        return self._open.enter_context(connect(self.place, seconds=SECONDS))

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """A connection to the relay, and the one it makes to the target for it."""
        before = set(self.relay._connections)
        client, server = self.client(), self.accept()
        assert eventually(lambda: bool(self.relay._connections - before))
        return client, server

    def accept(self) -> socket.socket:
        """The next connection that the relay makes to the target."""
        server, _ = self._target.accept()
        server.settimeout(SECONDS)
        return self._open.enter_context(server)

    def wake(self) -> None:
        """Have the relay look at its clock now."""
        self.relay._wake_writer.send(b"x")


def noise(seed: int, size: int) -> bytes:
    """`size` bytes that are the same for the same seed."""
    return random.Random(seed).randbytes(size)  # noqa: S311


def send_all(
    sender: socket.socket, data: bytes, *, then: Callable[[], None] | None = None
) -> threading.Thread:
    """Send `data` and the end of the stream, or what `then` does, from a thread."""

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
    """Send until nothing more is taken for a while, or all is; the bytes that were taken."""
    before = sender.gettimeout()
    sender.settimeout(0.2)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < len(data):
            sent += sender.send(data[sent : sent + 65536])
    sender.settimeout(before)
    return sent


def receive_all(receiver: socket.socket) -> bytes:
    """All bytes up to the end of the stream."""
    chunks = []
    while chunk := receiver.recv(65536):
        chunks.append(chunk)
    return b"".join(chunks)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def reset(peer: socket.socket) -> None:
    """Close a TCP connection with a reset."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def is_over(peer: socket.socket) -> bool:
    """Whether the connection ends, in either way, within the timeout of the socket."""
    try:
        return receive_all(peer) == b""
    except ConnectionError:
        return True


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether `condition` comes true within a few seconds."""
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
    """A TCP listener whose queue is full: connecting to it hangs."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener

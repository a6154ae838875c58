"""One end of a stream that carries SIZE bytes each way, and blocks each sender at first.

`serve` accepts one connection, `connect` makes one. `connect` sends, shuts down its half and then
receives; `serve` receives to the end and then sends. An end does not read before the file `--go`
exists. A sender that is blocked prints `held up at N`. Each end prints the SHA-256 of what it
received.
"""

import argparse
import hashlib
import random
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from foobar_shared.addresses import connect, listen, parse_address

SIZE: Final = 8 * 1024 * 1024
HELD_UP: Final = "held up at"
READY: Final = "listening"
SECONDS: Final = 100.0

_HELD_UP_SECONDS: Final = 2.0
_CHUNK: Final = 64 * 1024
_POLL_SECONDS: Final = 0.05
# TCP would take megabytes that nobody reads: with those at the relay's end, more than SIZE.
_BUFFER: Final = 64 * 1024


def content(side: str) -> bytes:
    """Return the SIZE bytes that `serve` or `connect` sends; they do not repeat."""
    return random.Random(side).randbytes(SIZE)  # noqa: S311 - a test pattern


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one end of the stream."""
    options = _options(arguments)
    data = content(options.side)
    if options.side == "connect":
        with connect(options.address, seconds=SECONDS) as connection:
            _send(connection, data)
            connection.shutdown(socket.SHUT_WR)
            _receive(connection, options.go)
    else:
        with listen(options.address) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
            _say(READY)
            connection, _ = listener.accept()
        with connection:
            connection.settimeout(SECONDS)
            _receive(connection, options.go)
            _send(connection, data)


def _send(connection: socket.socket, data: bytes) -> None:
    connection.settimeout(_HELD_UP_SECONDS)
    view = memoryview(data)
    sent = 0
    while sent < len(view):
        try:
            sent += connection.send(view[sent : sent + _CHUNK])
        except TimeoutError:
            _say(f"{HELD_UP} {sent}")
            connection.settimeout(SECONDS)
    connection.settimeout(SECONDS)


def _receive(connection: socket.socket, go: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while not go.exists():
        if time.monotonic() > deadline:
            sys.exit(f"{go} does not come")
        time.sleep(_POLL_SECONDS)
    digest, received = hashlib.sha256(), 0
    while chunk := connection.recv(_CHUNK):
        digest.update(chunk)
        received += len(chunk)
    _say(f"received {received} {digest.hexdigest()}")


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.vm.guest.streams", description=__doc__)
    parser.add_argument("side", choices=["serve", "connect"])
    parser.add_argument("address", type=parse_address)
    parser.add_argument("--go", type=Path, required=True)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()

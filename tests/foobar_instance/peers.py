"""A unix socket with somebody at its far end who is not an enclave."""

import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from foobar_shared.addresses import UnixAddress, listen
from foobar_shared.framing import LineSocket

SECONDS = 20.0


@contextmanager
def serving(serve: Callable[[socket.socket], None]) -> Iterator[UnixAddress]:
    """The address where each connection, one after the other, is handled by `serve`."""

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(SECONDS)
                try:
                    serve(connection)
                except OSError:
                    continue

    # A unix socket's path has at most 107 bytes: pytest's own folders are too deep.
    with tempfile.TemporaryDirectory(prefix="fi-") as folder:
        address = UnixAddress(str(Path(folder) / "s"))
        with listen(address) as listener:
            thread = Thread(target=accept)
            thread.start()
            try:
                yield address
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                thread.join()


@contextmanager
def answering(answer: Callable[[bytes], bytes]) -> Iterator[UnixAddress]:
    """The address where each request line is answered with the line that `answer` returns."""

    def serve(connection: socket.socket) -> None:
        lines = LineSocket(connection)
        while (line := lines.read_line(idle=SECONDS, within=SECONDS)) is not None:
            lines.send_line(answer(line), within=SECONDS)

    with serving(serve) as address:
        yield address

"""A parent instance that lies: an enclave in the middle, and relays that are none."""

import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Thread

from foobar_shared.addresses import Address, UnixAddress, connect, listen
from foobar_shared.framing import LineSocket

SECONDS = 30.0
Exchange = Callable[[bytes], bytes]
Tamper = Callable[[bytes, Exchange], bytes]


@contextmanager
def serving(address: UnixAddress, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """Handles each connection to `address` with `serve`, one after the other."""

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    serve(connection)
                except OSError:
                    continue

    with listen(address) as listener:
        thread = Thread(target=accept)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextmanager
def enclave_in_the_middle(enclave: Address, tamper: Tamper) -> Iterator[str]:
    """An address where `tamper` answers each request line, with the real enclave at hand."""

    def exchange(line: bytes) -> bytes:
        with connect(enclave, seconds=SECONDS) as upstream:
            lines = LineSocket(upstream)
            lines.send_line(line, within=SECONDS)
            answer = lines.read_line(idle=SECONDS, within=SECONDS)
        assert answer is not None
        return answer

    def serve(connection: socket.socket) -> None:
        lines = LineSocket(connection)
        while (line := lines.read_line(idle=SECONDS, within=SECONDS)) is not None:
            lines.send_line(tamper(line, exchange), within=SECONDS)

    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fe-"))
        address = UnixAddress(f"{folder}/enclave")
        stack.enter_context(serving(address, serve))
        yield str(address)


def plain_server(answer: bytes) -> Callable[[socket.socket], None]:
    """Answers anything with `answer`, without TLS."""

    def serve(connection: socket.socket) -> None:
        connection.settimeout(SECONDS)
        connection.recv(65536)
        connection.sendall(answer)

    return serve


def cut(connection: socket.socket) -> None:
    """Takes the first bytes and hangs up."""
    connection.settimeout(SECONDS)
    connection.recv(1)

"""Peers on loopback: somebody who is not an enclave, and an HTTP service that is not AWS."""

import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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

    # A unix socket's path has at most 107 bytes: pytest's own directories are too deep.
    with tempfile.TemporaryDirectory(prefix="fi-") as directory:
        address = UnixAddress(str(Path(directory) / "s"))
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


@dataclass(frozen=True)
class HttpRequest:
    method: str
    path: str
    headers: Message
    body: bytes


@contextmanager
def http_answering(answer: Callable[[HttpRequest], tuple[int, bytes]]) -> Iterator[str]:
    """The URL where each HTTP request is answered with the status and body of `answer`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, page = answer(HttpRequest(self.command, self.path, self.headers, body))
            self.send_response(status)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        do_PUT = do_POST = do_GET  # noqa: N815 - names that http.server looks for

        def log_message(self, *_: object) -> None:
            """Tests are quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()

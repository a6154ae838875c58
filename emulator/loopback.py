"""An HTTP or HTTPS server on a local address while a context lasts."""

from __future__ import annotations

import ssl
import sys
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, Self, TypeAlias

SocketAddress: TypeAlias = tuple[str, int]
"""An IPv4 address of this machine, and a port; 0 for a free one."""

ANY_LOOPBACK_PORT: Final[SocketAddress] = ("127.0.0.1", 0)


class LoopbackServer(ThreadingHTTPServer):
    """Serve at an address, over TLS where a context is given."""

    daemon_threads = True

    def __init__(
        self,
        handler: type[BaseHTTPRequestHandler],
        address: SocketAddress,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(address, handler)
        if tls is not None:
            # The handshake is made at the first read, in the connection's own thread.
            self.socket = tls.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, *arguments: object) -> None:
        """Show defects, and nothing for a client that goes away or trusts another CA."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(*arguments)  # type: ignore[arg-type]


class QuietHandler(BaseHTTPRequestHandler):
    """HTTP/1.1 with connections kept open, and no log: what clients send holds secrets."""

    protocol_version = "HTTP/1.1"
    timeout = 30
    wbufsize = -1  # headers and body leave together

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def reply(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Send an answer, and close the connection after one that is not 200."""
        # The body of a refused request may not have been read, so nothing may follow it.
        self.close_connection = self.close_connection or status != 200
        closing = {"Connection": "close"} if self.close_connection else {}
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | closing | dict(headers)).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

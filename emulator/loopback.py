"""An HTTP server that ends when it is told to, every connection included."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, Self, TypeAlias

_SOCKET_SECONDS: Final = 30
SocketAddress: TypeAlias = tuple[str, int]
"""An IPv4 address of this machine, and a port; 0 for one that is free."""

ANY_LOOPBACK_PORT: Final[SocketAddress] = ("127.0.0.1", 0)

_Request: TypeAlias = socket.socket | tuple[bytes, socket.socket]


class LoopbackServer(ThreadingHTTPServer):
    """Serves at an address, over TLS where a context is given, while the context manager lasts."""

    daemon_threads = False

    def __init__(
        self,
        handler: type[BaseHTTPRequestHandler],
        *,
        tls: ssl.SSLContext | None = None,
        address: SocketAddress = ANY_LOOPBACK_PORT,
    ) -> None:
        super().__init__(address, handler)
        self._tls = tls
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.05}, name=type(self).__name__
        )
        self._connections: dict[int, socket.socket] = {}
        self._lock = threading.Lock()

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        with self._lock:
            for connection in self._connections.values():
                with contextlib.suppress(OSError):  # the client was faster
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def process_request(self, request: _Request, client_address: object) -> None:
        """Give an accepted connection its thread."""
        # A duplicate to end it by: the TLS socket takes the original's descriptor over.
        duplicate = socket.socket(fileno=os.dup(_socket(request).fileno()))
        with self._lock:
            self._connections[id(request)] = duplicate
        super().process_request(request, client_address)

    def finish_request(self, request: _Request, client_address: object) -> None:
        """Serve one connection, in its own thread.

        The TLS handshake is made here, so that a client that says nothing keeps nobody waiting.
        """
        connection = _socket(request)
        connection.settimeout(_SOCKET_SECONDS)
        try:
            if self._tls is None:
                super().finish_request(connection, client_address)
            else:
                with self._tls.wrap_socket(connection, server_side=True) as wrapped:
                    super().finish_request(wrapped, client_address)
        finally:
            with self._lock:
                self._connections.pop(id(request)).close()

    def handle_error(self, *_: object) -> None:
        """Nothing for a client that goes away or trusts another CA; defects are shown."""
        if not isinstance(sys.exception(), OSError):
            traceback.print_exc()


class QuietHandler(BaseHTTPRequestHandler):
    """HTTP/1.1 with connections kept open, and no log: what clients send holds secrets."""

    protocol_version = "HTTP/1.1"
    timeout = _SOCKET_SECONDS
    sys_version = ""

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def finish(self) -> None:
        """Flush and close; a client that has gone needs neither."""
        with contextlib.suppress(OSError):
            super().finish()


def _socket(request: _Request) -> socket.socket:
    """The connection in what socketserver calls a request (a pair for datagrams)."""
    return request if isinstance(request, socket.socket) else request[1]

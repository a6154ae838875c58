"""An NSM over a SOCK_SEQPACKET socket pair: each packet is one request or one response."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Callable

from foobar_enclave.nsm import REQUEST_MAX, RESPONSE_MAX


class SocketTransport:
    """The enclave's end, in place of `/dev/nsm`. Thread-safe."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._mutex = threading.Lock()

    def exchange(self, request: bytes) -> bytes:
        """Return the NSM's CBOR response to a CBOR request.

        Raises:
            OSError: EMSGSIZE for a request over 4096 bytes, EIO where the other end is gone.
        """
        if len(request) > REQUEST_MAX:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        with self._mutex:
            self._channel.send(request)
            response = self._channel.recv(RESPONSE_MAX)
        if not response:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return response


def serve_requests(channel: socket.socket, exchange: Callable[[bytes], bytes]) -> None:
    """Answer requests, as the hypervisor does, until either end is closed."""
    with contextlib.suppress(OSError):  # the enclave went away in the middle
        while request := channel.recv(REQUEST_MAX + 1):
            channel.send(exchange(request))

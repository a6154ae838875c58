"""The emulated module's channel: bounds, order, and what the enclave sees when it breaks."""

from __future__ import annotations

import errno
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from emulator.channel import SocketTransport, serve_requests
from foobar_enclave.nsm import REQUEST_MAX


def code_of(transport: SocketTransport, request: bytes) -> int | None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the code is compared
        transport.exchange(request)
    return caught.value.errno


def test_each_request_gets_its_own_response_until_the_channel_breaks() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server = threading.Thread(target=serve_requests, args=(far, bytes.swapcase))
    server.start()
    transport = SocketTransport(near)
    requests = [b"request %d" % number for number in range(400)]
    with near, ThreadPoolExecutor(8) as threads:
        assert list(threads.map(transport.exchange, requests)) == [b.upper() for b in requests]
        assert code_of(transport, bytes(REQUEST_MAX + 1)) == errno.EMSGSIZE
        assert transport.exchange(b"next") == b"NEXT"
        far.shutdown(socket.SHUT_RDWR)
        server.join()
        assert code_of(transport, b"asked") in (errno.EIO, errno.EPIPE)
    far.close()


def test_a_channel_that_ends_before_the_response_is_an_input_output_error() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, ThreadPoolExecutor(1) as threads:
        asked = threads.submit(code_of, SocketTransport(near), b"asked")
        far.recv(100)
        far.close()
        assert asked.result(5) == errno.EIO

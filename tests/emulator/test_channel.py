"""The emulated module's channel: bounds, order, and what the enclave sees when it breaks."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from emulator.channel import REQUEST_MAX, SocketTransport, serve_requests

THREADS = 8
EACH = 100


@pytest.fixture
def transport() -> Iterator[SocketTransport]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server = threading.Thread(target=serve_requests, args=(far, bytes.swapcase))
    with near, far:
        server.start()
        yield SocketTransport(near)
        near.shutdown(socket.SHUT_RDWR)
        server.join()


def test_each_thread_gets_the_response_to_its_own_request(transport: SocketTransport) -> None:
    def ask(thread: int) -> list[bytes]:
        return [transport.exchange(b"request %d of %d" % (n, thread)) for n in range(EACH)]

    with ThreadPoolExecutor(THREADS) as threads:
        answers = list(threads.map(ask, range(THREADS)))
    assert answers == [
        [b"REQUEST %d OF %d" % (n, thread) for n in range(EACH)] for thread in range(THREADS)
    ]


def test_a_request_that_is_too_long_is_refused_as_by_the_driver(transport: SocketTransport) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)) as caught:
        transport.exchange(bytes(REQUEST_MAX + 1))
    assert caught.value.errno == errno.EMSGSIZE
    assert transport.exchange(b"next") == b"NEXT"


def test_a_channel_whose_other_end_is_gone_is_an_input_output_error() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near:
        transport = SocketTransport(near)
        with ThreadPoolExecutor(1) as threads:
            asked = threads.submit(transport.exchange, b"asked")
            far.recv(100)
            far.close()
            with pytest.raises(OSError, match=os.strerror(errno.EIO)) as caught:
                asked.result(5)
        assert caught.value.errno == errno.EIO

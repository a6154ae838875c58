from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from foobar_shared.addresses import TcpAddress, UnixAddress, listen
from proxy.relay import Relay
from tests.proxy.conftest import Link
from tests.proxy.peers import (
    deaf_target,
    descriptors,
    eventually,
    exchange,
    is_over,
    receive_until_reset,
    reset,
    send_until_full,
)

Start = Callable[..., Link]


def stop(link: Link) -> float:
    """Stop the relay and return how many seconds that took."""
    began = time.monotonic()
    link.relay.__exit__(None, None, None)
    return time.monotonic() - began


def test_stopping_closes_open_connections_and_the_listener(start: Start) -> None:
    link = start()
    pairs = [link.pair() for _ in range(3)]
    for pair in pairs:
        exchange(*pair)
    stop(link)
    for pair in pairs:
        assert all(is_over(end) for end in pair)
    with pytest.raises(ConnectionRefusedError):
        link.client()
    assert link.logged("connection stopped: 1 bytes up, 1 down")


def test_stopping_resets_a_stream_that_is_not_whole(start: Start) -> None:
    link = start()
    client, server = link.pair()
    send_until_full(client, bytes(16 * 1024 * 1024))
    stop(link)
    assert receive_until_reset(server)


def test_stopping_does_not_wait_for_a_target_that_does_not_answer(start: Start) -> None:
    with deaf_target() as deaf:
        link = start(target=TcpAddress(*deaf.getsockname()))
        client = link.client()
        assert stop(link) < 5
        assert is_over(client)


def test_stopping_does_not_wait_for_a_look_up(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, done = threading.Event(), threading.Event()

    def resolve(*_: object, **__: object) -> list[object]:
        asked.set()
        done.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    threads = threading.active_count()
    link = start(target=TcpAddress("slow.example", 443))
    client = link.client()
    assert asked.wait(5)
    assert stop(link) < 5
    assert is_over(client)
    done.set()
    assert eventually(lambda: threading.active_count() == threads)


def test_stop_before_serving_and_twice(tmp_path: Path) -> None:
    before = descriptors()
    relay = Relay(listen(UnixAddress(str(tmp_path / "front"))), TcpAddress("127.0.0.1", 9))
    relay.stop()
    relay.serve_forever()
    relay.stop()
    assert descriptors() == before


def test_connections_leave_no_descriptor_and_no_thread(start: Start) -> None:
    link = start("tcp", "tcp")
    exchange(*link.pair())
    before = descriptors()
    threads = threading.active_count()
    for number in range(60):
        client, server = link.pair()
        exchange(client, server)
        first, second = (client, server) if number % 2 else (server, client)
        if number % 3:
            first.close()
        else:
            reset(first)
        second.close()
    assert eventually(lambda: descriptors() == before)
    assert eventually(lambda: threading.active_count() == threads)

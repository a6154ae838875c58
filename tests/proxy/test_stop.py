from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from foobar_shared.addresses import TcpAddress, UnixAddress, connect, listen
from proxy.diallers import _Outcome
from proxy.relay import Relay
from tests.proxy.peers import Link, deaf_target, descriptors, eventually, is_over, send_until_full

Start = Callable[..., Link]


def relay_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("relay")]


def test_stopping_closes_open_connections_and_the_listener(start: Start) -> None:
    link = start("unix", "tcp")
    pairs = [link.pair() for _ in range(3)]
    send_until_full(pairs[0][0], bytes(16 * 1024 * 1024))
    link.relay.__exit__(None, None, None)
    for client, server in pairs[1:]:
        assert is_over(client)
        assert is_over(server)
    with pytest.raises(ConnectionRefusedError):
        link.client()
    assert relay_threads() == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_stopping_does_not_wait_for_a_target_that_does_not_answer(
    tmp_path: Path, host: str
) -> None:
    place = UnixAddress(str(tmp_path / "front"))
    before = descriptors()
    with deaf_target() as deaf:
        inside = descriptors()
        relay = Relay(listen(place), TcpAddress(host, deaf.getsockname()[1]))
        with connect_through(relay, place) as client:
            assert eventually(lambda: len(relay._dialling) == 1)
            began = time.monotonic()
            relay.__exit__(None, None, None)
            assert time.monotonic() - began < 0.4
            assert is_over(client)
        assert relay_threads() == []
        assert descriptors() == inside
    assert descriptors() == before


def test_stopping_does_not_wait_for_a_name_that_does_not_resolve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = UnixAddress(str(tmp_path / "front"))
    answer, asked = threading.Event(), threading.Event()

    def resolve(*_: object, **__: object) -> list[object]:
        asked.set()
        answer.wait(10)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 9))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    before = descriptors()
    relay = Relay(listen(place), TcpAddress("slow.example", 443))
    with connect_through(relay, place) as client:
        assert asked.wait(5)
        began = time.monotonic()
        relay.__exit__(None, None, None)
        assert time.monotonic() - began < 1
        assert is_over(client)
    answer.set()
    assert eventually(lambda: relay_threads() == [])
    assert descriptors() == before


def connect_through(relay: Relay, place: UnixAddress) -> socket.socket:
    relay.__enter__()
    return connect(place, seconds=5)


def test_stop_before_serving_and_twice(tmp_path: Path) -> None:
    before = descriptors()
    relay = Relay(listen(UnixAddress(str(tmp_path / "front"))), TcpAddress("127.0.0.1", 9))
    relay.stop()
    relay.serve_forever()
    relay.stop()
    assert descriptors() == before


def test_target_that_answers_during_the_stop_is_closed(tmp_path: Path) -> None:
    relay = Relay(listen(UnixAddress(str(tmp_path / "front"))), TcpAddress("127.0.0.1", 9))
    accepted, dialled = socket.socketpair()
    relay._dialling._outcomes.put(_Outcome(accepted, dialled))
    relay.stop()
    relay.serve_forever()
    assert accepted.fileno() == dialled.fileno() == -1


def test_200_connections_leave_no_descriptor(start: Start) -> None:
    link = start("unix", "tcp")
    before = descriptors()
    for number in range(200):
        client, server = link.pair()
        client.sendall(b"x")
        assert server.recv(1) == b"x"
        first, second = (client, server) if number % 2 else (server, client)
        first.close()
        second.close()
    assert eventually(lambda: descriptors() == before)
    assert eventually(lambda: relay_threads() == ["relay"])


def test_200_refused_connections_leave_no_descriptor(tmp_path: Path) -> None:
    with listen(TcpAddress("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    place = UnixAddress(str(tmp_path / "front"))
    with Relay(listen(place), TcpAddress("127.0.0.1", port)):
        before = descriptors()
        for _ in range(200):
            with connect(place, seconds=5) as client:
                assert is_over(client)
        assert eventually(lambda: descriptors() == before)


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_connection_whose_client_has_closed_first_has_ended(
    start: Start, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    caplog.set_level(logging.DEBUG, "proxy")
    link = start(kind, "tcp")
    client, server = link.pair()
    client.sendall(b"last words")
    client.close()
    assert server.recv(100) == b"last words"
    assert server.recv(100) == b""
    server.sendall(b"goodbye, to nobody")  # as TLS's close_notify
    server.close()
    assert eventually(lambda: not link.relay._connections)
    texts = [record.getMessage() for record in caplog.records]
    assert [text.split(":")[0] for text in texts] == ["connection open", "connection ended"]
    assert "10 bytes up" in texts[-1]


def test_idle_relay_does_not_spin_on_a_peer_that_has_hung_up(start: Start) -> None:
    link = start("unix", "tcp")
    client, _server = link.pair()
    send_until_full(client, bytes(16 * 1024 * 1024))
    client.close()
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1
    assert len(link.relay._connections) == 1

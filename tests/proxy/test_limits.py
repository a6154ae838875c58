from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from foobar_shared.addresses import (
    Address,
    TcpAddress,
    UnixAddress,
    VsockAddress,
    connect,
    listen,
)
from proxy.dial import place_of
from proxy.relay import Relay, RelayLimits
from tests.proxy.peers import SECONDS, Clock, Link, deaf_target, eventually, is_over, reset

Start = Callable[..., Link]


class FakeVsockListener(socket.socket):
    """A unix listener that says it is AF_VSOCK, and whose peers have the CIDs it is told."""

    cids: Iterator[object]

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_VSOCK

    def accept(self) -> tuple[socket.socket, object]:
        accepted, _ = super().accept()
        return accepted, next(self.cids)


class FailingListener(socket.socket):
    """A listener with no descriptors left for its first few connections."""

    failures: int

    def accept(self) -> tuple[socket.socket, object]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


def bound(listener: socket.socket, path: Path) -> UnixAddress:
    listener.bind(str(path))
    listener.listen()
    return UnixAddress(str(path))


def test_connections_beyond_the_bound_are_closed(start: Start) -> None:
    link = start(limits=RelayLimits(connections=2))
    first, second = link.pair(), link.pair()
    assert is_over(link.client())
    for client, server in (first, second):
        client.sendall(b"x")
        assert server.recv(1) == b"x"


def test_a_place_is_free_again_when_a_connection_has_ended(start: Start) -> None:
    link = start(limits=RelayLimits(connections=1))
    client, server = link.pair()
    client.close()
    server.close()
    assert eventually(lambda: not link.relay._connections)
    client, server = link.pair()
    client.sendall(b"x")
    assert server.recv(1) == b"x"


def test_idle_connection_is_closed_and_an_active_one_is_not(start: Start, clock: Clock) -> None:
    link = start(limits=RelayLimits(idle_seconds=60))
    active, idle = link.pair(), link.pair()
    clock.now += 59
    active[0].sendall(b"x")
    assert active[1].recv(1) == b"x"
    clock.now += 2
    link.wake()
    assert is_over(idle[0])
    assert is_over(idle[1])
    active[1].sendall(b"y")
    assert active[0].recv(1) == b"y"


def test_connection_is_kept_until_the_idle_limit(start: Start, clock: Clock) -> None:
    link = start(limits=RelayLimits(idle_seconds=60))
    client, server = link.pair()
    clock.now += 60
    for _ in range(2):  # so that the relay has looked at its clock once at the least
        link.pair()
    client.sendall(b"x")
    assert server.recv(1) == b"x"


def test_unreachable_target_closes_the_client_at_once(tmp_path: Path) -> None:
    with listen(TcpAddress("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    place = UnixAddress(str(tmp_path / "front"))
    with Relay(listen(place), TcpAddress("127.0.0.1", port)), connect(place, seconds=5) as client:
        before = time.monotonic()
        assert is_over(client)
        assert time.monotonic() - before < 1


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example"])
def test_name_that_cannot_be_one_closes_the_client(tmp_path: Path, host: str) -> None:
    place = UnixAddress(str(tmp_path / "front"))
    with Relay(listen(place), TcpAddress(host, 443)), connect(place, seconds=5) as client:
        assert is_over(client)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_target_that_does_not_answer_is_given_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, host: str
) -> None:
    place = UnixAddress(str(tmp_path / "front"))
    limits = RelayLimits(connect_seconds=0.1)
    with deaf_target() as deaf:
        target = TcpAddress(host, deaf.getsockname()[1])
        with Relay(listen(place), target, limits=limits) as relay:
            with connect(place, seconds=5) as client:
                began = time.monotonic()
                assert is_over(client)
                assert 0.1 <= time.monotonic() - began < 0.9
            assert eventually(lambda: not relay._dialling)
    assert len(caplog.records) == 1  # localhost may be ::1 too, where nothing listens
    assert "cannot reach" in caplog.text


def test_target_is_given_up_in_time_also_where_nothing_else_happens(tmp_path: Path) -> None:
    """For longer than a turn that waits for nothing lasts."""
    place = UnixAddress(str(tmp_path / "front"))
    with deaf_target() as deaf:
        target = TcpAddress(*deaf.getsockname())
        with (
            Relay(listen(place), target, limits=RelayLimits(connect_seconds=1.2)),
            connect(place, seconds=5) as client,
        ):
            began = time.monotonic()
            assert is_over(client)
            assert 1.1 <= time.monotonic() - began < 2.2


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_target_that_refuses_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, host: str
) -> None:
    with listen(TcpAddress("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    place = UnixAddress(str(tmp_path / "front"))
    with Relay(listen(place), TcpAddress(host, port)), connect(place, seconds=5) as client:
        assert is_over(client)
    assert f"cannot reach {host}:{port}: Connection refused" in caplog.text


def test_unix_target_that_is_not_there_closes_the_client(tmp_path: Path) -> None:
    place, target = UnixAddress(str(tmp_path / "front")), UnixAddress(str(tmp_path / "none"))
    with Relay(listen(place), target), connect(place, seconds=5) as client:
        assert is_over(client)


@pytest.mark.parametrize(
    ("target", "place"),
    [
        (UnixAddress("/run/x"), (socket.AF_UNIX, "/run/x")),
        (VsockAddress(16, 1000), (socket.AF_VSOCK, (16, 1000))),
        (TcpAddress("192.0.2.1", 443), (socket.AF_INET, ("192.0.2.1", 443))),
        (TcpAddress("2001:db8::1", 443), (socket.AF_INET6, ("2001:db8::1", 443))),
        (TcpAddress("kms.example", 443), TcpAddress("kms.example", 443)),
        (TcpAddress("127.1", 443), TcpAddress("127.1", 443)),
    ],
)
def test_only_names_are_resolved(target: Address, place: object) -> None:
    assert place_of(target) == place


def test_next_address_of_the_name_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    front = UnixAddress(str(tmp_path / "front"))
    with deaf_target() as deaf, listen(TcpAddress("127.0.0.1", 0)) as good:
        places = [deaf.getsockname(), *[good.getsockname()] * 9]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        limits = RelayLimits(connect_seconds=4)
        relay = Relay(listen(front), TcpAddress("many.example", 443), limits=limits)
        with relay, connect(front, seconds=5) as client:
            good.settimeout(2)
            server, _ = good.accept()
            with server:
                client.sendall(b"x")
                server.settimeout(SECONDS)
                assert server.recv(1) == b"x"


def test_only_the_allowed_cid_is_relayed(tmp_path: Path) -> None:
    listener = FakeVsockListener(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.cids = iter([(17, 5), (3, 5), "", (16, 5)])
    place = bound(listener, tmp_path / "front")
    with listen(TcpAddress("127.0.0.1", 0)) as target:
        target.settimeout(SECONDS)
        with Relay(listener, TcpAddress(*target.getsockname()), allowed_cid=16):
            for _ in range(3):
                with connect(place, seconds=5) as refused:
                    assert is_over(refused)
            with connect(place, seconds=5) as client:
                server, _ = target.accept()
                with server:
                    client.sendall(b"x")
                    assert server.recv(1) == b"x"


def test_every_cid_is_relayed_if_none_is_named(tmp_path: Path) -> None:
    listener = FakeVsockListener(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.cids = iter([(17, 5)])
    place = bound(listener, tmp_path / "front")
    with listen(TcpAddress("127.0.0.1", 0)) as target:
        target.settimeout(SECONDS)
        with Relay(listener, TcpAddress(*target.getsockname())), connect(place, seconds=5):
            server, _ = target.accept()
            server.close()


def test_want_of_descriptors_delays_and_does_not_stop_the_others(tmp_path: Path) -> None:
    listener = FailingListener(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.failures = 0
    place = bound(listener, tmp_path / "front")
    with listen(TcpAddress("127.0.0.1", 0)) as target:
        target.settimeout(SECONDS)
        with Relay(listener, TcpAddress(*target.getsockname())), connect(place, seconds=5) as old:
            server, _ = target.accept()
            listener.failures = 2
            with connect(place, seconds=5) as late, server:
                server.settimeout(0.08)  # less than a pause
                for _ in range(50):
                    old.sendall(b"x")
                    assert server.recv(1) == b"x"
                accepted, _ = target.accept()
                with accepted:
                    late.sendall(b"y")
                    assert accepted.recv(1) == b"y"
        assert listener.failures == 0


@pytest.mark.parametrize("who", [0, 1])
def test_reset_is_passed_on_as_a_reset(start: Start, who: int) -> None:
    link = start("tcp", "tcp")
    ends = link.pair()
    ends[0].sendall(b"x")
    assert ends[1].recv(1) == b"x"
    reset(ends[who])
    with pytest.raises(ConnectionResetError):
        ends[1 - who].recv(1)
    assert eventually(lambda: not link.relay._connections)


def test_reset_after_the_end_of_stream_is_noticed_while_nothing_moves(start: Start) -> None:
    link = start("tcp", "tcp")
    client, server = link.pair()
    client.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""
    reset(client)
    assert eventually(lambda: not link.relay._connections)


def test_client_that_is_gone_before_the_target_answers(start: Start) -> None:
    link = start("unix", "tcp")
    link.client().close()
    assert link.accept().recv(1) == b""
    assert eventually(lambda: not link.relay._dialling and not link.relay._connections)
    client, server = link.pair()
    client.sendall(b"x")
    assert server.recv(1) == b"x"

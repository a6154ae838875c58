from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from foobar_shared.addresses import Address, TcpAddress, UnixAddress, VsockAddress, connect, listen
from proxy.relay import Relay, RelayLimits
from tests.proxy.conftest import Link
from tests.proxy.peers import SECONDS, deaf_target, descriptors, eventually, exchange, is_over

Start = Callable[..., Link]
LOCAL_CID = 1  # VMADDR_CID_LOCAL, where the kernel has vsock_loopback


class FakeVsockListener(socket.socket):
    """A unix listener that says it is AF_VSOCK, and whose peers have the CIDs it is told."""

    cids: Iterator[object]

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_VSOCK

    def accept(self) -> tuple[socket.socket, object]:
        accepted, _ = super().accept()
        return accepted, next(self.cids)


def answers(*places: object) -> Callable[..., object]:
    """Return a resolver that finds these IPv4 addresses."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]
    return lambda *_, **__: found


def closed_port() -> int:
    with listen(TcpAddress("127.0.0.1", 0)) as closed:
        port: int = closed.getsockname()[1]
    return port


def test_connections_beyond_the_bound_are_closed(start: Start) -> None:
    link = start(limits=RelayLimits(connections=2))
    pairs = link.pair(), link.pair()
    assert is_over(link.client())
    assert link.logged("refused a connection: 2 are open")
    for pair in pairs:
        exchange(*pair)
        for end in pair:
            end.close()
    assert link.logged("connection ended")
    exchange(*link.pair())


def test_idle_connection_is_closed_and_an_active_one_is_not(start: Start) -> None:
    link = start(limits=RelayLimits(idle_seconds=1))
    began = time.monotonic()
    active, idle = link.pair(), link.pair()
    while not select.select([idle[0]], [], [], 0.05)[0]:
        exchange(*active)
    assert time.monotonic() - began > 0.9
    assert is_over(idle[0])
    assert is_over(idle[1])
    assert link.logged("connection idle: 0 bytes up, 0 down")
    exchange(*active)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.threat("16")
def test_unreachable_target_closes_the_client_at_once(start: Start, host: str) -> None:
    target = TcpAddress(host, closed_port())
    link = start(target=target)
    assert link.relay.last_failure is None
    before = descriptors()
    assert is_over(link.client())
    assert eventually(lambda: descriptors() == before + 1)  # the client
    assert link.relay.last_failure == f"{target}: Connection refused"
    assert link.logged(f"cannot reach {link.relay.last_failure}")


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example"])
def test_name_that_cannot_be_one_closes_the_client(start: Start, host: str) -> None:
    link = start(target=TcpAddress(host, 443))
    assert is_over(link.client())
    assert link.relay.last_failure == f"{host}:443: Not a host name"


def test_name_that_is_not_known_is_said(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    link = start(target=TcpAddress("kms.example", 443))
    assert is_over(link.client())
    assert link.relay.last_failure == "kms.example:443: Name or service not known"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (UnixAddress("/nonexistent/x"), "No such file or directory"),
        (VsockAddress(2**32 - 1, 9), ""),  # the reason depends on the machine's vsock
    ],
)
def test_other_targets_that_are_not_there(start: Start, target: Address, reason: str) -> None:
    link = start(target=target, limits=RelayLimits(connect_seconds=0.1))
    assert is_over(link.client())
    assert (link.relay.last_failure or "").startswith(f"{target}: {reason}")


def test_unix_target_with_a_full_queue_closes_the_client(start: Start, tmp_path: Path) -> None:
    target = UnixAddress(str(tmp_path / "full.sock"))
    with listen(target, backlog=0), connect(target, seconds=SECONDS):
        link = start(target=target)
        assert is_over(link.client())
        assert link.logged(f"cannot reach {target}: ")


def test_target_that_does_not_answer_is_given_up(start: Start) -> None:
    with deaf_target() as deaf:
        target = TcpAddress(*deaf.getsockname())
        link = start(target=target, limits=RelayLimits(connect_seconds=0.1))
        client = link.client()
        began = time.monotonic()
        assert is_over(client)
        assert 0.05 < time.monotonic() - began < 5
        assert link.relay.last_failure == f"{target}: Connection timed out"


def test_next_address_of_the_name_is_tried(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    with deaf_target() as deaf, listen(TcpAddress("127.0.0.1", 0)) as good:
        good.settimeout(SECONDS)
        places = [deaf.getsockname(), *[good.getsockname()] * 9]
        monkeypatch.setattr(socket, "getaddrinfo", answers(*places))
        limits = RelayLimits(connect_seconds=4)
        client = start(target=TcpAddress("many.example", 443), limits=limits).client()
        server, _ = good.accept()
        with server:
            server.settimeout(SECONDS)
            exchange(client, server)


def test_look_up_that_hangs_holds_nothing_else_up(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = threading.Event()
    with listen(TcpAddress("127.0.0.1", 0)) as good:
        good.settimeout(SECONDS)
        found = answers(good.getsockname())

        def hang(*_: object, **__: object) -> object:
            monkeypatch.setattr(socket, "getaddrinfo", found)
            done.wait(SECONDS)
            return found()

        monkeypatch.setattr(socket, "getaddrinfo", hang)
        limits = RelayLimits(connect_seconds=1)
        link = start(target=TcpAddress("slow.example", 443), limits=limits)
        hanging, other = link.client(), link.client()
        server, _ = good.accept()
        with server:
            server.settimeout(SECONDS)
            exchange(other, server)
        assert is_over(hanging)
        assert link.relay.last_failure == "slow.example:443: Connection timed out"
    done.set()


def test_look_ups_that_hang_are_bounded(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: done.wait(SECONDS) and [])
    limits = RelayLimits(connections=1, connect_seconds=0.05)
    link = start(target=TcpAddress("slow.example", 443), limits=limits)
    assert is_over(link.client())
    assert link.logged("Connection timed out")
    assert is_over(link.client())
    assert link.logged("refused a connection: 1 are open")
    done.set()


@pytest.mark.parametrize(("allowed", "refused"), [(16, [(17, 5), (3, 5), ""]), (None, [])])
@pytest.mark.threat("16")
def test_only_the_allowed_cid_is_relayed(
    tmp_path: Path, allowed: int | None, refused: list[object]
) -> None:
    listener = FakeVsockListener(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.cids = iter([*refused, (allowed or 17, 5)])
    place = UnixAddress(str(tmp_path / "front"))
    listener.bind(place.path)
    listener.listen()
    with listen(TcpAddress("127.0.0.1", 0)) as target:
        target.settimeout(SECONDS)
        with Relay(listener, TcpAddress(*target.getsockname()), allowed_cid=allowed):
            for _ in refused:
                with connect(place, seconds=SECONDS) as client:
                    assert is_over(client)
            with connect(place, seconds=SECONDS) as client:
                server, _ = target.accept()
                with server:
                    server.settimeout(SECONDS)
                    exchange(client, server)


@pytest.mark.parametrize("allowed", [LOCAL_CID, 16])
def test_vsock_both_ways(allowed: int) -> None:
    try:
        target = listen(VsockAddress(LOCAL_CID, 21001))
    except OSError as error:
        pytest.skip(f"needs vsock_loopback: {error.strerror}")
    place = VsockAddress(LOCAL_CID, 21000)
    target.settimeout(SECONDS)
    with (
        target,
        Relay(listen(place), VsockAddress(LOCAL_CID, 21001), allowed_cid=allowed),
        connect(place, seconds=SECONDS) as client,
    ):
        if allowed != LOCAL_CID:
            assert is_over(client)
            return
        server, _ = target.accept()
        with server:
            server.settimeout(SECONDS)
            exchange(client, server)
            client.shutdown(socket.SHUT_WR)
            assert server.recv(1) == b""
            server.sendall(b"answer")
            assert client.recv(6) == b"answer"

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from foobar_shared.addresses import Address, TcpAddress, UnixAddress, listen
from proxy.relay import Relay, RelayLimits
from tests.proxy.peers import Clock, Link


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def start(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., Link]]:
    """Starts a relay, between a socket of each kind: `start("unix", "tcp", ...)`."""
    with contextlib.ExitStack() as stack:

        def link(
            front: str = "unix", back: str = "tcp", *, limits: RelayLimits | None = None
        ) -> Link:
            outer, place = _listener(tmp_path, "front", front)
            target, target_place = _listener(tmp_path, "back", back)
            stack.enter_context(target)
            relay = stack.enter_context(
                Relay(outer, target_place, limits=limits or RelayLimits(), clock=clock)
            )
            return stack.enter_context(Link(relay, place, target))

        yield link


def _listener(folder: Path, name: str, kind: str) -> tuple[socket.socket, Address]:
    if kind == "unix":
        place: Address = UnixAddress(str(folder / f"{name}.sock"))
        listener = listen(place)
    else:
        listener = listen(TcpAddress("127.0.0.1", 0))
        place = TcpAddress("127.0.0.1", listener.getsockname()[1])
    listener.settimeout(10)
    return listener, place

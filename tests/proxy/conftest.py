from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from foobar_shared.addresses import Address, TcpAddress, UnixAddress, connect, listen
from proxy.relay import Relay, RelayLimits
from tests.proxy.peers import SECONDS, eventually


class Link:
    """A relay, and connections through it."""

    def __init__(
        self,
        relay: Relay,
        place: Address,
        target: socket.socket,
        caplog: pytest.LogCaptureFixture,
        stack: contextlib.ExitStack,
    ) -> None:
        self.relay = relay
        self._place = place
        self._target = target
        self._caplog = caplog
        self._stack = stack

    def client(self) -> socket.socket:
        """Return a connection to the relay, whether or not it takes it."""
        return self._stack.enter_context(connect(self._place, seconds=SECONDS))

    def server(self) -> socket.socket:
        """Return the next connection that the relay makes to the target."""
        server, _ = self._target.accept()
        server.settimeout(SECONDS)
        return self._stack.enter_context(server)

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Return a connection to the relay, and the one it makes to the target for it."""
        return self.client(), self.server()

    def logged(self, text: str) -> bool:
        """Wait until the relay has logged `text`."""
        return eventually(lambda: text in self._caplog.text)


@pytest.fixture
def start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., Link]]:
    """Start a relay; by default from a unix socket to a TCP listener of the test's own."""
    caplog.set_level(logging.DEBUG, "proxy")
    with contextlib.ExitStack() as stack:

        def link(
            front: str = "unix",
            back: str = "tcp",
            *,
            target: Address | None = None,
            limits: RelayLimits | None = None,
        ) -> Link:
            outer, place = _listener(tmp_path / "front.sock", front)
            inner, inner_place = _listener(tmp_path / "back.sock", back)
            stack.enter_context(inner)
            relay = stack.enter_context(
                Relay(outer, target or inner_place, limits=limits or RelayLimits())
            )
            return Link(relay, place, inner, caplog, stack)

        yield link


def _listener(path: Path, kind: str) -> tuple[socket.socket, Address]:
    place: Address = UnixAddress(str(path)) if kind == "unix" else TcpAddress("127.0.0.1", 0)
    listener = listen(place)
    listener.settimeout(SECONDS)
    if kind == "tcp":
        place = TcpAddress(*listener.getsockname())
    return listener, place

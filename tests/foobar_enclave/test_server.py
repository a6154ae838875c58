from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, Self

import pytest

from foobar_enclave.server import EnclaveServer, Limits
from foobar_shared.addresses import UnixAddress, listen
from foobar_shared.framing import MAX_COMPUTE_LINE, MAX_LINE

WAIT = 5.0
QUICK = Limits(idle=WAIT, line=WAIT, write=WAIT, stop=1.0)


def echo(line: bytes) -> bytes:
    return b'{"echo":%d}\n' % len(line)


class Peer:
    """A client that says what it likes."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(WAIT)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self) -> bytes:
        return self.file.readline()

    def ask(self, line: bytes) -> bytes:
        self.send(line + b"\n")
        return self.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()


class Running:
    """A server in a thread, and connections to it."""

    def __init__(
        self,
        path: str,
        listener: socket.socket,
        handle: Callable[[bytes], bytes] = echo,
        limits: Limits = QUICK,
    ) -> None:
        self.path = path
        self.server = EnclaveServer(listener, handle, limits)
        self.failure: OSError | None = None
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        try:
            self.server.serve_forever()
        except OSError as error:
            self.failure = error

    def connect(self) -> Peer:
        return Peer(self.path)

    def stop(self) -> None:
        self.server.stop()
        self.thread.join(WAIT)
        assert not self.thread.is_alive()


Start = Callable[..., Running]


@pytest.fixture
def start(socket_folder: Path) -> Iterator[Start]:
    path = str(socket_folder / "enclave")
    with contextlib.ExitStack() as stack:

        def start(
            handle: Callable[[bytes], bytes] = echo,
            limits: Limits = QUICK,
            wrap: type[socket.socket] | None = None,
        ) -> Running:
            listener = stack.enter_context(listen(UnixAddress(path)))
            if wrap is not None:
                listener = stack.enter_context(wrap(fileno=listener.detach()))
            running = Running(path, listener, handle, limits)
            stack.callback(running.stop)
            return running

        yield start


def was_cut_off(peer: Peer, data: bytes, times: int) -> bool:
    """Whether the connection ended while `data` was being sent so many times."""
    try:
        for _ in range(times):
            peer.send(data)
    except ConnectionError:
        return True
    return False


def test_many_lines_on_one_connection_each_get_their_answer(start: Start) -> None:
    with start().connect() as peer:
        for length in (0, 1, 1000, MAX_LINE, MAX_COMPUTE_LINE - 1):
            assert peer.ask(b"x" * length) == echo(b"x" * length)
        peer.send(b"a\nbb\nc")
        peer.send(b"cc\n")
        assert [peer.read() for _ in range(3)] == [echo(b"a"), echo(b"bb"), echo(b"ccc")]


def test_a_request_that_waits_holds_up_nobody(start: Start) -> None:
    together = threading.Barrier(3)

    def handle(line: bytes) -> bytes:
        if line == b"waits":
            together.wait(WAIT)
        return echo(line)

    running = start(handle)
    with running.connect() as one, running.connect() as two, running.connect() as three:
        one.send(b"waits\n")
        two.send(b"waits\n")
        assert three.ask(b"y") == echo(b"y")
        three.send(b"waits\n")
        assert [peer.read() for peer in (one, two, three)] == [echo(b"waits")] * 3


@pytest.mark.threat("13")
def test_weakness_13_an_overlong_line_gets_an_error_and_the_connection_is_closed(
    start: Start,
) -> None:
    running = start()
    with running.connect() as peer:
        # More than any buffer between holds: the error arrives where the peer goes on sending.
        peer.send(b"x" * (MAX_COMPUTE_LINE + 500_000))
        assert json.loads(peer.read()) == {"error": "line longer than 1048576 bytes"}
        assert peer.read() == b""
    with running.connect() as peer:
        assert peer.ask(b"x") == echo(b"x")


def test_a_peer_that_never_stops_sending_is_cut_off(start: Start) -> None:
    def endless(peer: Peer) -> bool:
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            if was_cut_off(peer, b"x" * MAX_LINE, 1):
                return True
            time.sleep(0.01)
        return False

    with start().connect() as peer:
        peer.send(b"x" * MAX_COMPUTE_LINE)
        assert endless(peer)


@pytest.mark.threat("13")
def test_weakness_13_one_connection_too_many_is_told_and_closed(start: Start) -> None:
    assert Limits().connections == 80
    running = start(limits=Limits(connections=2, stop=1.0))
    with running.connect() as one, running.connect() as two:
        assert one.ask(b"x") == two.ask(b"x") == echo(b"x")
        with running.connect() as three:
            assert json.loads(three.read()) == {"error": "the enclave is busy: try again later"}
            assert three.read() == b""
        assert one.ask(b"y") == echo(b"y")
        two.socket.shutdown(socket.SHUT_RDWR)
        for _ in range(100):  # until the server has seen the second's end
            with running.connect() as four, contextlib.suppress(OSError):
                if four.ask(b"z") == echo(b"z"):
                    break
        else:
            pytest.fail("no place became free")


@pytest.mark.parametrize("sent", [b"", b"half a line"], ids=["idle", "slow"])
@pytest.mark.threat("13")
def test_weakness_13_idle_and_slow_peers_are_dropped(sent: bytes, start: Start) -> None:
    running = start(limits=Limits(idle=0.05, line=0.05, stop=1.0))
    with running.connect() as peer:
        peer.send(sent)
        assert peer.read() == b""


def test_weakness_13_a_peer_that_does_not_read_is_dropped(start: Start) -> None:
    running = start(
        lambda _: b"x" * 60000 + b"\n", limits=Limits(write=0.1, idle=WAIT, line=WAIT, stop=1.0)
    )
    with running.connect() as peer:
        assert was_cut_off(peer, b"\n" * 100, 100_000)


def test_a_defect_of_the_handler_costs_its_connection_only(
    start: Start, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(line: bytes) -> bytes:
        if line == b"break":
            raise ZeroDivisionError("canary")
        return echo(line)

    caplog.set_level(logging.DEBUG)
    running = start(broken)
    with running.connect() as other:
        assert other.ask(b"x") == echo(b"x")
        with running.connect() as peer:
            assert peer.ask(b"break") == b""
        assert other.ask(b"x") == echo(b"x")
    running.stop()
    assert "outcome=defect:ZeroDivisionError" in caplog.text
    assert "canary" not in caplog.text + "".join(capfd.readouterr())


class Starved(socket.socket):
    """A listener whose first call of accept() fails for want of descriptors."""

    calls = 0
    error: OSError = OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def accept(self) -> tuple[socket.socket, object]:
        self.calls += 1
        if self.calls == 1:
            raise self.error
        return super().accept()


class Aborted(Starved):
    """A listener whose first peer was gone before its turn."""

    error = ConnectionAbortedError(errno.ECONNABORTED, "gone")


class Broken(Starved):
    """A listener that is none."""

    error = OSError(errno.EINVAL, os.strerror(errno.EINVAL))


@pytest.mark.parametrize("listener", [Starved, Aborted])
def test_a_failure_to_accept_does_not_end_the_server(
    listener: type[Starved], start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    started = time.monotonic()
    with start(wrap=listener).connect() as peer:
        assert peer.ask(b"x") == echo(b"x")
    spins = time.monotonic() - started < 0.4
    assert spins == (listener is Aborted)
    assert caplog.messages == ([] if listener is Aborted else ["event=accept outcome=EMFILE"])


def test_a_listener_that_is_none_ends_the_server(start: Start) -> None:
    running = start(wrap=Broken)
    running.thread.join(WAIT)
    assert running.failure is not None
    assert running.failure.errno == errno.EINVAL


def test_a_system_without_threads_left_refuses_and_goes_on(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_: threading.Thread) -> NoReturn:
        raise RuntimeError("can't start new thread")

    running = start()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        with running.connect() as peer:
            assert b"busy" in peer.read()
    with running.connect() as peer:
        assert peer.ask(b"x") == echo(b"x")


def test_a_stop_ends_idle_connections_at_once(start: Start) -> None:
    running = start()
    with running.connect() as idle, running.connect() as half:
        assert idle.ask(b"x") == half.ask(b"x") == echo(b"x")
        half.send(b"half a line")
        started = time.monotonic()
        running.stop()
        assert time.monotonic() - started < 1
        assert idle.read() == b""
        with contextlib.suppress(ConnectionResetError):  # its half a line may have been unread
            assert half.read() == b""


def test_a_stop_lets_a_request_end_that_is_being_answered(start: Start) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(line: bytes) -> bytes:
        begun.set()
        go_on.wait(WAIT)
        return echo(line)

    running = start(slow, limits=Limits(stop=WAIT))
    with running.connect() as peer:
        peer.send(b"x\ny\n")
        assert begun.wait(WAIT)
        running.server.stop()
        go_on.set()
        assert peer.read() == echo(b"x")
        assert peer.read() == b"", "the next line is not begun"


def test_a_stop_does_not_wait_for_ever(start: Start) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def stuck(line: bytes) -> bytes:
        begun.set()
        go_on.wait(WAIT)
        return echo(line)

    running = start(stuck, limits=Limits(stop=0.1))
    with running.connect() as peer:
        peer.send(b"x\n")
        assert begun.wait(WAIT)
        started = time.monotonic()
        running.stop()
        assert time.monotonic() - started < 2
    go_on.set()

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, Self

import pytest

from foobar_enclave.limits import Limits
from foobar_enclave.loop import ConnectionLoop, Handler
from foobar_enclave.server import EnclaveServer
from foobar_shared.addresses import UnixAddress, listen
from foobar_shared.framing import CHUNK, MAX_LINE

WAIT = 5.0
QUICK = Limits(idle=WAIT, line=WAIT, write=WAIT, drain=0.2, stop=1.0, accept_pause=0.05)


Reply = Callable[[bytes], None]


def echo(line: bytes) -> bytes:
    return b'{"echo":%d}\n' % len(line)


def handle_echo(line: bytes, reply: Reply) -> None:
    reply(echo(line))


class Running:
    """A server in a thread, and connections to it."""

    def __init__(
        self,
        path: str,
        handle: Handler,
        limits: Limits,
        listener: socket.socket,
        may_wait: Callable[[bytes], bool],
    ) -> None:
        self.path = path
        self.listener = listener
        self.server = EnclaveServer(listener, handle, may_wait=may_wait, limits=limits)
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

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def was_cut_off(peer: Peer, data: bytes, times: int) -> bool:
    """Whether the connection ended while `data` was being sent so many times."""
    try:
        for _ in range(times):
            peer.send(data)
    except ConnectionError:
        return True
    return False


def read_all(source: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while source.recv(65536):
            pass


Start = Callable[..., Running]


@pytest.fixture
def start(socket_folder: Path) -> Iterator[Start]:
    with contextlib.ExitStack() as stack:

        def start(
            handle: Handler = handle_echo,
            limits: Limits = QUICK,
            may_wait: Callable[[bytes], bool] = lambda _: False,
            wrap: Callable[[socket.socket], socket.socket] = lambda listener: listener,
        ) -> Running:
            path = str(socket_folder / "server")
            listener = wrap(stack.enter_context(listen(UnixAddress(path))))
            stack.callback(listener.close)
            running = Running(path, handle, limits, listener, may_wait)
            stack.callback(running.stop)
            return running

        yield start


def test_many_lines_on_one_connection_each_get_their_answer(start: Start) -> None:
    with start().connect() as peer:
        for length in (0, 1, 1000, MAX_LINE - 1):
            assert peer.ask(b"x" * length) == echo(b"x" * length)


def test_lines_sent_at_once_are_answered_in_turn(start: Start) -> None:
    with start().connect() as peer:
        peer.send(b"a\nbb\nccc\n")
        assert [peer.read() for _ in range(3)] == [echo(b"a"), echo(b"bb"), echo(b"ccc")]


def test_a_line_in_pieces_is_one_line(start: Start) -> None:
    with start().connect() as peer:
        for piece in (b"a", b"bc", b"\n"):
            peer.send(piece)
        assert peer.read() == echo(b"abc")


def test_requests_that_wait_are_answered_at_the_same_time(start: Start) -> None:
    together = threading.Barrier(3)

    def wait_for_the_others(line: bytes, reply: Reply) -> None:
        together.wait(WAIT)
        reply(echo(line))

    running = start(wait_for_the_others, may_wait=lambda _: True)
    with running.connect() as one, running.connect() as two, running.connect() as three:
        for peer in (one, two, three):
            peer.send(b"x\n")
        assert [peer.read() for peer in (one, two, three)] == [echo(b"x")] * 3


def test_a_request_that_waits_holds_up_nobody(start: Start) -> None:
    go_on = threading.Event()

    def handle(line: bytes, reply: Reply) -> None:
        if line == b"waits":
            go_on.wait(WAIT)
        reply(echo(line))

    running = start(handle, may_wait=lambda line: line == b"waits")
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(running.connect()) for _ in range(5)]
        for peer in peers[:3]:  # each thread has one of them
            peer.send(b"waits\nx\n")
        assert [peer.ask(b"y") for peer in peers[3:]] == [echo(b"y")] * 2
        go_on.set()
        for peer in peers[:3]:
            assert [peer.read(), peer.read()] == [echo(b"waits"), echo(b"x")]


def test_connections_are_dealt_evenly(start: Start) -> None:
    running = start()
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            assert stack.enter_context(running.connect()).ask(b"x") == echo(b"x")
        assert [len(loop) for loop in running.server._loops] == [3, 3]


def test_first_come_first_served() -> None:
    """Who sends many lines at once has one answered before it is the others' turn."""
    answered: list[bytes] = []

    def handle(line: bytes, reply: Reply) -> None:
        answered.append(line)
        reply(echo(line))
        if len(answered) == 33:
            loop.stop()

    loop = ConnectionLoop(handle, may_wait=lambda _: False, limits=QUICK)
    with contextlib.ExitStack() as stack:
        for sent in (b"a\n" * 30, b"b\n", b"c\n" * 2):
            ours, theirs = socket.socketpair()
            stack.enter_context(theirs).sendall(sent)
            loop.give(ours)
        loop.run()
    assert answered == [b"a", b"b", b"c", b"a", b"c", *[b"a"] * 28]


def test_nothing_more_is_read_while_a_line_waits_for_its_turn() -> None:
    """Else a peer that sends and does not wait would fill the memory."""
    sizes: list[int] = []

    def handle(line: bytes, reply: Reply) -> None:
        sizes.extend(len(connection.lines) for connection in loop._connections)
        reply(echo(line))

    loop = ConnectionLoop(handle, may_wait=lambda _: False, limits=QUICK)
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=loop.run)
    with theirs:
        theirs.settimeout(60)  # for all of it, on a machine that has other things to do
        loop.give(ours)
        thread.start()
        reader = threading.Thread(target=read_all, args=(theirs,))
        reader.start()
        theirs.sendall(b"x\n" * 200_000)
        loop.stop()
        thread.join(WAIT)
        reader.join(WAIT)
    assert len(sizes) > 1000
    assert max(sizes) <= CHUNK


@pytest.mark.parametrize("apart", [False, True])
def test_a_connection_that_cannot_be_watched_costs_itself_only(
    start: Start, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the system has no memory for it."""
    running = start(may_wait=lambda line: line == b"waits")
    with running.connect() as other:
        assert other.ask(b"x") == echo(b"x")
        with running.connect() as peer:
            if apart:
                assert peer.ask(b"x") == echo(b"x")
            with monkeypatch.context() as patch:
                patch.setattr(selectors.EpollSelector, "register", no_memory)
                with contextlib.suppress(OSError):
                    peer.send(b"waits\n")
                    assert peer.read() == b""
        assert other.ask(b"x") == echo(b"x")
    assert running.failure is None


def no_memory(*_: object) -> NoReturn:
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def test_a_thread_that_fails_ends_the_server(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ConnectionLoop, "_turn", no_memory)
    running = start()
    running.thread.join(WAIT)
    assert not running.thread.is_alive()
    assert running.failure is not None
    assert running.failure.errno == errno.ENOMEM


def test_weakness_13_an_overlong_line_gets_an_error_and_the_connection_is_closed(
    start: Start,
) -> None:
    running = start()
    with running.connect() as peer:
        peer.send(b"x" * (MAX_LINE + 1000))
        assert json.loads(peer.read()) == {"error": "line longer than 65536 bytes"}
        assert peer.read() == b""
    with running.connect() as peer:
        assert peer.ask(b"x") == echo(b"x")


def test_the_error_arrives_even_where_the_peer_goes_on_sending(start: Start) -> None:
    with start().connect() as peer:
        peer.send(b"x" * (10 * MAX_LINE))
        peer.send(b"x" * (5 * MAX_LINE))
        assert b"line longer" in peer.read()


def test_a_peer_that_never_stops_sending_is_cut_off(start: Start) -> None:
    with start().connect() as peer:
        assert was_cut_off(peer, b"x" * MAX_LINE, 1000)


def test_weakness_13_one_connection_too_many_is_told_and_closed(start: Start) -> None:
    running = start(limits=Limits(connections=2, stop=1.0))
    with running.connect() as one, running.connect() as two:
        assert one.ask(b"x") == two.ask(b"x") == echo(b"x")
        with running.connect() as three:
            assert json.loads(three.read()) == {"error": "the enclave is busy: try again later"}
            assert three.read() == b""
        assert one.ask(b"y") == echo(b"y")
        two.close()
        for _ in range(100):  # until the second's end was seen
            with running.connect() as four, contextlib.suppress(OSError):
                if four.ask(b"z") == echo(b"z"):
                    break
        else:
            pytest.fail("no place became free")


def test_the_bounds_by_default() -> None:
    assert Limits().connections == 128
    assert Limits().keys == 4
    assert max(Limits().idle, Limits().line, Limits().write) <= 60


@pytest.mark.parametrize("sent", [b"", b"half a line"], ids=["idle", "slow"])
def test_weakness_13_idle_and_slow_peers_are_dropped(sent: bytes, start: Start) -> None:
    running = start(limits=Limits(connections=1, idle=0.05, line=0.05, stop=1.0))
    with running.connect() as peer:
        peer.send(sent)
        assert peer.read() == b""


def test_weakness_13_a_peer_that_drips_bytes_is_dropped(start: Start) -> None:
    running = start(limits=Limits(idle=WAIT, line=0.1, stop=1.0))
    started = time.monotonic()
    with running.connect() as peer, contextlib.suppress(OSError):
        while time.monotonic() - started < WAIT:
            peer.send(b"x")
            time.sleep(0.01)
    assert time.monotonic() - started < 2


def test_weakness_13_a_peer_that_does_not_read_is_dropped(start: Start) -> None:
    running = start(
        lambda _, reply: reply(b"x" * 60000 + b"\n"),
        limits=Limits(write=0.1, idle=WAIT, line=WAIT, stop=1.0),
    )
    with running.connect() as peer:
        assert was_cut_off(peer, b"\n" * 100, 100_000)


def test_peers_that_go_away_do_not_end_the_server(start: Start) -> None:
    running = start()
    for sent in (b"", b"half", b"x\n", b"x\n" * 1000):
        peer = running.connect()
        peer.send(sent)
        peer.close()
    with running.connect() as peer:
        assert peer.ask(b"x") == echo(b"x")


@pytest.mark.parametrize("apart", [False, True])
def test_a_defect_of_the_handler_costs_its_connection_only(
    start: Start, apart: bool, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(line: bytes, reply: Reply) -> None:
        if line == b"break":
            raise ZeroDivisionError("canary")
        reply(echo(line))

    caplog.set_level(logging.DEBUG)
    running = start(broken, may_wait=lambda _: apart)
    with running.connect() as peer:
        assert peer.ask(b"break") == b""
    with running.connect() as peer:
        assert peer.ask(b"x") == echo(b"x")
    running.stop()
    assert "outcome=defect:ZeroDivisionError" in caplog.text
    assert "canary" not in caplog.text + "".join(capfd.readouterr())


class Starved(socket.socket):
    """A listener whose first calls of accept() fail for want of descriptors."""

    failures = 3
    calls = 0

    def accept(self) -> tuple[socket.socket, object]:
        self.calls += 1
        if self.calls <= self.failures:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


def starved(listener: socket.socket) -> Starved:
    return Starved(fileno=listener.detach())


def test_want_of_descriptors_neither_ends_the_server_nor_makes_it_spin(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    running = start(wrap=starved)
    started = time.monotonic()
    with running.connect() as peer:
        assert peer.ask(b"x") == echo(b"x")
    assert time.monotonic() - started >= 3 * QUICK.accept_pause
    assert isinstance(running.listener, Starved)
    assert running.listener.calls == 4
    assert caplog.messages.count("event=accept outcome=EMFILE") == 3


def test_a_peer_that_is_gone_before_its_turn_is_passed_over(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    class Aborted(Starved):
        def accept(self) -> tuple[socket.socket, object]:
            try:
                return super().accept()
            except OSError:
                raise ConnectionAbortedError(errno.ECONNABORTED, "gone") from None

    running = start(wrap=lambda listener: Aborted(fileno=listener.detach()))
    with running.connect() as peer:
        assert peer.ask(b"x") == echo(b"x")
    assert not [message for message in caplog.messages if "event=accept" in message]


def test_the_pause_after_a_failure_ends_at_a_stop(start: Start) -> None:
    def always(listener: socket.socket) -> Starved:
        made = starved(listener)
        made.failures = 1000
        return made

    running = start(limits=Limits(accept_pause=60.0), wrap=always)
    with running.connect():
        while not isinstance(running.listener, Starved) or running.listener.calls == 0:
            time.sleep(0.001)
        started = time.monotonic()
        running.stop()
    assert time.monotonic() - started < 2


def test_a_system_without_threads_left_refuses_and_goes_on(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = start(may_wait=lambda line: line == b"waits")
    with running.connect() as peer:
        assert peer.ask(b"x") == echo(b"x"), "it runs"
    real = threading.Thread.start

    def none_left(_: threading.Thread) -> NoReturn:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    with running.connect() as peer:
        assert b"busy" in peer.ask(b"waits")
        assert peer.ask(b"x") == echo(b"x")
        monkeypatch.setattr(threading.Thread, "start", real)
        assert peer.ask(b"waits") == echo(b"waits")


def test_a_listener_that_is_none_ends_the_server(start: Start) -> None:
    class Broken(socket.socket):
        def accept(self) -> NoReturn:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    running = start(wrap=lambda listener: Broken(fileno=listener.detach()))
    with running.connect():
        running.thread.join(WAIT)
    assert running.failure is not None
    assert running.failure.errno == errno.EINVAL


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
    assert not [thread for thread in threading.enumerate() if "_run" in thread.name]


@pytest.mark.parametrize("apart", [False, True])
def test_a_stop_lets_a_request_end_that_is_being_answered(start: Start, apart: bool) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(line: bytes, reply: Reply) -> None:
        begun.set()
        go_on.wait(WAIT)
        reply(echo(line))

    running = start(slow, limits=Limits(stop=WAIT), may_wait=lambda _: apart)
    with running.connect() as peer:
        peer.send(b"x\ny\n")
        assert begun.wait(WAIT)
        running.server.stop()
        go_on.set()
        assert peer.read() == echo(b"x")
        assert peer.read() == b"", "the next line is not begun"


@pytest.mark.parametrize("apart", [False, True])
def test_a_stop_does_not_wait_for_ever(
    start: Start, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foobar_enclave.server._GRACE_SECONDS", 0.1)
    begun, go_on = threading.Event(), threading.Event()

    def stuck(line: bytes, reply: Reply) -> None:
        begun.set()
        go_on.wait(WAIT)
        reply(echo(line))

    running = start(stuck, limits=Limits(stop=0.1), may_wait=lambda _: apart)
    with running.connect() as peer:
        peer.send(b"x\n")
        assert begun.wait(WAIT)
        running.stop()
        if not apart:  # the module hangs, and the thread that asks it: both end with the process
            go_on.set()
            assert peer.read() == echo(b"x")
        assert peer.read() == b""
    go_on.set()


def test_a_server_can_be_stopped_before_it_serves_and_twice(socket_folder: Path) -> None:
    with listen(UnixAddress(str(socket_folder / "s"))) as listener:
        server = EnclaveServer(listener, handle_echo)
        server.stop()
        server.stop()
        server.serve_forever()
        server.stop()
        assert listener.fileno() >= 0, "the listener is its owner's"

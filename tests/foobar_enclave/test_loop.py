"""One thread's share of the connections, turn by turn, by a clock that the tests set."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import socket
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from foobar_enclave.connection import Connection
from foobar_enclave.limits import Limits
from foobar_enclave.loop import ConnectionLoop
from foobar_shared.framing import MAX_LINE

LIMITS = Limits(idle=60, line=10, write=20, drain=1, stop=5)
LARGE = b"x" * 3_000_000 + b"\n"
Reply = Callable[[bytes], None]


class Driven:
    """A loop whose turns and whose time a test decides."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.handled: list[bytes] = []
        self.answer: Callable[[bytes], bytes] = lambda line: line + b"!\n"
        self.loop = ConnectionLoop(
            self._handle,
            may_wait=lambda line: line.startswith(b"waits"),
            limits=LIMITS,
            clock=lambda: self.now,
        )

    def _handle(self, line: bytes, reply: Reply) -> None:
        self.handled.append(line)
        reply(self.answer(line))

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.loop._patience = 0.0
            self.loop._turn()

    def connect(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        theirs.settimeout(5)
        self.loop.give(ours)
        self.turn()
        return theirs

    def after(self, seconds: float) -> None:
        self.now += seconds
        self.turn()

    @property
    def patience(self) -> float | None:
        """Until when the loop would wait, as the last turn has left it."""
        self.turn()
        return self.loop._patience


@pytest.fixture
def driven() -> Iterator[Driven]:
    driven = Driven()
    with driven.loop._waker, driven.loop._wakened, driven.loop._selector:
        yield driven
        for connection in driven.loop._connections:
            connection.socket.close()


def is_closed(peer: socket.socket) -> bool:
    """Whether the peer's end is all that is left, once what was sent is read."""
    peer.setblocking(False)
    try:
        while peer.recv(65536):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    finally:
        peer.settimeout(5)
    return True


def test_each_turn_answers_one_line(driven: Driven) -> None:
    with driven.connect() as one, driven.connect() as two:
        one.sendall(b"1\n2\n")
        two.sendall(b"3\n")
        for expected in ([b"1"], [b"1", b"3"], [b"1", b"3", b"2"]):
            driven.turn()
            assert driven.handled == expected


def test_it_waits_as_long_as_nothing_is_to_be_done(driven: Driven) -> None:
    assert driven.patience is None
    with driven.connect() as one, driven.connect() as two:
        assert driven.patience == LIMITS.idle
        driven.now += 15
        assert driven.patience == LIMITS.idle - 15
        one.sendall(b"half a line")
        assert driven.patience == LIMITS.line
        two.sendall(b"1\n2\n")
        driven.turn()
        assert driven.loop._patience == 0.0, "a line waits for its turn"
        driven.turn()
        assert driven.loop._patience == LIMITS.line


def test_an_answer_that_is_taken_in_pieces_arrives_whole(driven: Driven) -> None:
    driven.answer = lambda _: LARGE
    with driven.connect() as peer:
        for _ in range(2):
            peer.sendall(b"large\n")
            driven.turn()
            received = bytearray()
            while not received.endswith(b"\n"):
                received += peer.recv(1 << 20)
                driven.turn()
            assert received == LARGE
        assert driven.patience == LIMITS.idle


def test_nothing_is_read_while_an_answer_is_not_taken(driven: Driven) -> None:
    driven.answer = lambda _: LARGE
    with driven.connect() as peer:
        peer.sendall(b"1\n")
        driven.turn()
        peer.sendall(b"2\n")
        driven.turn(5)
        assert driven.handled == [b"1"]


def test_an_answer_must_be_taken_in_time(driven: Driven) -> None:
    driven.answer = lambda _: LARGE
    with driven.connect() as peer:
        peer.sendall(b"x\n")
        driven.turn()
        driven.after(LIMITS.write - 1)
        assert not is_closed(peer)
        driven.after(1)
        assert is_closed(peer)


def test_a_line_must_begin_in_time_and_end_in_time(driven: Driven) -> None:
    with driven.connect() as peer:
        peer.sendall(b"whole\nhalf")
        driven.turn(2)
        driven.after(LIMITS.line - 1)
        peer.sendall(b"more")
        driven.turn()
        assert not is_closed(peer)
        driven.after(1)
        assert is_closed(peer)
    with driven.connect() as peer:
        peer.sendall(b"whole\n")
        driven.turn()
        driven.after(LIMITS.idle - 1)
        assert not is_closed(peer)
        driven.after(1)
        assert is_closed(peer)


def test_a_line_that_waits_for_its_turn_has_all_time(driven: Driven) -> None:
    with driven.connect() as one, driven.connect() as two:
        one.sendall(b"1\n")
        two.sendall(b"2\n")
        driven.turn()
        (connection,) = driven.loop._with_line
        assert connection.deadline == math.inf
        driven.after(1000)
        assert two.recv(10) == b"2!\n"


def test_who_was_in_time_is_not_cut_off_for_anothers_slow_request(driven: Driven) -> None:
    def slowly(line: bytes) -> bytes:
        if line == b"slow":
            prompt.sendall(b"d\n")
            driven.now += 1000
        return line + b"!\n"

    driven.answer = slowly
    with driven.connect() as slow, driven.connect() as prompt:
        prompt.sendall(b"begun an")
        driven.turn()
        slow.sendall(b"slow\n")
        driven.turn(2)
        assert prompt.recv(20) == b"begun and!\n"


def test_after_an_over_long_line_the_peer_is_told_and_drained_for_a_while(driven: Driven) -> None:
    with driven.connect() as peer:
        peer.sendall(b"x" * MAX_LINE)
        driven.turn(MAX_LINE // 1000)
        assert json.loads(peer.recv(1000)) == {"error": "line longer than 65536 bytes"}
        assert peer.recv(1000) == b"", "it sees that this is all"
        peer.sendall(b"x")
        driven.after(LIMITS.drain / 2)
        assert len(driven.loop) == 1
        driven.after(LIMITS.drain / 2)
        assert len(driven.loop) == 0


def test_connections_count_from_when_they_are_given(driven: Driven) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        driven.loop.give(ours)
        assert len(driven.loop) == 1
        driven.turn()
        assert len(driven.loop) == 1
        theirs.close()
        driven.turn()
        assert len(driven.loop) == 0


def test_a_connection_that_is_just_beginning_counts_once(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread may ask at any moment, and would turn connections away too soon."""
    counts: list[int] = []
    begin = driven.loop._begin

    def observed(connection: Connection) -> None:
        counts.append(len(driven.loop))
        begin(connection)
        counts.append(len(driven.loop))

    monkeypatch.setattr(driven.loop, "_begin", observed)
    with driven.connect(), driven.connect():
        assert counts == [1, 1, 2, 2]


def test_a_connection_that_cannot_begin_does_not_count(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Connection) -> NoReturn:
        raise OSError(errno.ENOMEM, "no memory")

    monkeypatch.setattr(driven.loop, "_read_on", fails)
    with driven.connect() as peer:
        assert is_closed(peer)
        assert len(driven.loop) == 0


def outcomes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [text.partition("outcome=")[2] for text in caplog.messages if "connection" in text]


def test_how_connections_end_is_logged(driven: Driven, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for sent in (b"", b"half a line", b"x\n"):
        with driven.connect() as peer:
            peer.sendall(sent)
            driven.turn()
        driven.turn()
    driven.answer = lambda _: LARGE
    with driven.connect() as peer:
        peer.sendall(b"x\n")
        driven.turn()
    driven.turn()
    driven.connect().detach()
    driven.after(1000)
    assert outcomes(caplog) == [
        "closed",
        "ConnectionResetError",
        "ConnectionResetError",  # its answer was never read
        "BrokenPipeError",
        "too-slow",
    ]


def test_a_request_that_waits_has_one_thread_however_fast_its_peer_asks(driven: Driven) -> None:
    """A thread that has answered may still be held up, by a slow console for one."""
    console = threading.Event()
    threads = threading.active_count()

    def handle(line: bytes, reply: Reply) -> None:
        reply(line + b"!\n")
        console.wait(5)

    driven.loop._handle = handle
    with driven.connect() as peer:
        peer.sendall(b"waits\n" * 100)
        driven.turn(200)
        assert threading.active_count() == threads + 1
        console.set()
        peer.setblocking(False)
        received = b""
        while received.count(b"\n") < 100:
            driven.turn()
            with contextlib.suppress(BlockingIOError):
                received += peer.recv(4096)


def stop(driven: Driven) -> threading.Thread:
    """The rest of the loop's life, in a thread."""
    driven.loop._selector.register(driven.loop._wakened, 1)
    driven.loop.stop()
    thread = threading.Thread(target=driven.loop._finish)
    thread.start()
    return thread


def test_a_stop_lets_answers_be_taken_and_requests_that_have_come_be_answered(
    driven: Driven,
) -> None:
    with driven.connect() as large, driven.connect() as waiting, driven.connect() as idle:
        driven.answer = lambda line: LARGE if line == b"large" else line + b"!\n"
        large.sendall(b"large\n")
        driven.turn()
        waiting.sendall(b"1\n2\n")
        idle.sendall(b"half")
        for key, _ in driven.loop._selector.select(0):  # the half of a turn before it answers
            driven.loop._move(key.data)
        ours, new = socket.socketpair()
        driven.loop.give(ours)
        thread = stop(driven)
        assert waiting.recv(10) == b"1!\n"
        assert waiting.recv(10) == b"", "the next is not begun"
        assert is_closed(idle)
        received = bytearray()
        while not received.endswith(b"\n"):
            received += large.recv(1 << 20)
        assert received == LARGE
        thread.join(5)
        assert not thread.is_alive()
        with ours, new:
            assert len(driven.loop) == 1, "who came too late is not begun with"


def test_a_stop_cuts_off_what_takes_too_long(driven: Driven) -> None:
    never, soon = threading.Event(), threading.Event()

    def answer(line: bytes) -> bytes:
        if line.startswith(b"waits"):
            (soon if line.endswith(b"soon") else never).wait(5)
        return LARGE

    driven.answer = answer
    with driven.connect() as large, driven.connect() as apart, driven.connect() as later:
        large.sendall(b"large\n")
        apart.sendall(b"waits\n")
        later.sendall(b"waits soon\n")
        driven.turn(3)
        thread = stop(driven)
        while math.isinf(driven.loop._stop_by):
            pass
        soon.set()
        assert later.recv(1) == b"x", "it began to be answered during the stop"
        driven.now += LIMITS.stop
        driven.loop._wake()
        thread.join(5)
        assert not thread.is_alive()
        assert is_closed(apart)
        assert is_closed(large)
        assert is_closed(later)
        never.set()


def test_what_is_given_at_the_end_is_closed(driven: Driven) -> None:
    early, late = socket.socketpair(), socket.socketpair()
    driven.loop.give(early[0])
    driven.loop.stop()
    driven.loop.run()
    driven.loop.give(late[0])
    for _, theirs in (early, late):
        with theirs:
            assert is_closed(theirs)
    assert driven.handled == []

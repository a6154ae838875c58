"""Lines over a socket, bounded in length and time."""

import socket
from collections.abc import Iterator
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foobar_shared.errors import LineTooLongError
from foobar_shared.framing import MAX_LINE, LineSocket


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def read(line_socket: LineSocket) -> bytes | None:
    return line_socket.read_line(idle=5, within=5)


@given(
    lines=st.lists(st.binary().map(lambda line: line.replace(b"\n", b"")), max_size=5),
    cut=st.integers(1, 7),
)
def test_lines_arrive_however_they_are_cut(lines: list[bytes], cut: int) -> None:
    ours, theirs = socket.socketpair()
    stream = b"".join(line + b"\n" for line in lines)
    with ours, theirs:
        for start in range(0, len(stream), cut):
            theirs.sendall(stream[start : start + cut])
        theirs.close()
        reader = LineSocket(ours)
        assert [read(reader) for _ in lines] == lines
        assert read(reader) is None


def test_longest_line(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    line = b"x" * (MAX_LINE - 1)
    sender = Thread(target=LineSocket(theirs).send_line, args=(line,), kwargs={"within": 5})
    sender.start()
    assert read(LineSocket(ours)) == line
    sender.join()


def test_longer_line_is_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    sender = Thread(target=theirs.sendall, args=(b"x" * MAX_LINE + b"\n",))
    sender.start()
    with pytest.raises(LineTooLongError):
        read(LineSocket(ours))
    sender.join()


def test_too_long_a_line_is_not_sent(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(LineTooLongError):
        LineSocket(pair[0]).send_line(b"x" * MAX_LINE, within=5)


def test_end_of_stream_in_the_middle_of_a_line(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(b"half")
    theirs.close()
    with pytest.raises(ConnectionResetError):
        read(LineSocket(ours))


def test_a_silent_peer_times_out(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(TimeoutError):
        LineSocket(pair[0]).read_line(idle=0.01, within=5)


def test_a_slow_peer_is_bounded_from_its_first_byte(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    ticks = iter(range(0, 100, 3))

    def clock() -> float:
        theirs.sendall(b"x")  # one byte whenever the reader looks at the clock
        return next(ticks)

    theirs.sendall(b"x")
    with pytest.raises(TimeoutError, match="too slow"):
        LineSocket(ours, clock=clock).read_line(idle=5, within=10)


def test_sending_to_a_peer_that_takes_nothing_times_out(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with pytest.raises(TimeoutError):
        LineSocket(ours).send_line(b"x" * (MAX_LINE - 1), within=0.01)

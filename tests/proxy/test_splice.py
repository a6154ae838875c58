from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, TypeAlias

import pytest

from foobar_shared.addresses import TcpAddress, UnixAddress, connect, listen
from proxy.pipes import Pipe
from proxy.pool import BUFFER_BYTES, KernelPipe, Pool
from proxy.relay import Relay
from tests.proxy.peers import (
    Link,
    descriptors,
    digest,
    eventually,
    is_over,
    noise,
    receive_all,
    reset,
    send_all,
    send_until_full,
)

Start: TypeAlias = Callable[..., Link]

MIB = 1024 * 1024


class Splices:
    """Counts what is spliced, and refuses it where it is told to."""

    def __init__(self) -> None:
        self.taken = 0
        self.refused = 0
        self.refuse = 0  # the number of the error
        self._splice = os.splice

    def __call__(self, source: int, sink: int, count: int, *, flags: int) -> int:
        if self.refuse:
            self.refused += 1
            raise OSError(self.refuse, os.strerror(self.refuse))
        moved = self._splice(source, sink, count, flags=flags)
        self.taken += moved
        return moved


@pytest.fixture
def splices(monkeypatch: pytest.MonkeyPatch) -> Splices:
    counted = Splices()
    monkeypatch.setattr(os, "splice", counted)
    return counted


@contextlib.contextmanager
def internet_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    with near, far:
        yield near, far


@contextlib.contextmanager
def pipe_from_tcp(
    pool: Pool | None = None,
) -> Iterator[tuple[socket.socket, Pipe, socket.socket]]:
    """A writer, a pipe from TCP to a unix socket, and a reader."""
    with contextlib.closing(pool or Pool()) as lender, internet_pair() as (writer, source):
        sink, reader = socket.socketpair()
        with sink, reader:
            for one in (source, sink):
                one.setblocking(False)
            reader.settimeout(5)
            pipe = Pipe(source, sink, lender)
            try:
                yield writer, pipe, reader
            finally:
                pipe.drop()


def pump(pipe: Pipe, reader: socket.socket, size: int, *, chunk: int = MIB) -> bytes:
    """Have the pipe work until `size` bytes are read from the reader, `chunk` at a time."""
    got = bytearray()
    reader.setblocking(False)

    def is_all() -> bool:
        if pipe.waiting:
            pipe.write()
        else:
            pipe.read()
        with contextlib.suppress(BlockingIOError):
            got.extend(reader.recv(chunk))
        return len(got) >= size

    assert eventually(is_all)
    reader.settimeout(5)
    return bytes(got)


def begin_splicing(writer: socket.socket, pipe: Pipe, reader: socket.socket) -> None:
    """Bring so much that the next read splices."""
    writer.sendall(bytes(MIB // 4))
    pump(pipe, reader, MIB // 4)
    pipe._many = True  # the last of it may have been little
    assert pipe._can_splice


def fill(writer: socket.socket, pipe: Pipe) -> bytes:
    """Bring bytes until some wait in a kernel pipe; what was brought."""
    sent = b""
    for seed in range(64):
        data = noise(seed, 65536)
        writer.sendall(data)
        sent += data
        pipe._many = True
        pipe.read()
        if pipe.waiting:
            assert isinstance(pipe._kept, KernelPipe)
            return sent
    raise AssertionError("the sink takes everything")


@pytest.mark.parametrize("front", ["unix", "tcp"])
@pytest.mark.parametrize("back", ["unix", "tcp"])
def test_long_streams_arrive_unchanged_both_ways(
    start: Start, splices: Splices, front: str, back: str
) -> None:
    client, server = start(front, back).pair()
    up, down = noise(1, 24 * MIB), noise(2, 24 * MIB)
    senders = [send_all(client, up), send_all(server, down)]
    arrived: list[str] = []
    reading = send_all(client, b"", then=lambda: arrived.append(digest(receive_all(client))))
    assert digest(receive_all(server)) == digest(up)
    for thread in (*senders, reading):
        thread.join(10)
    assert arrived == [digest(down)]
    assert (splices.taken > 0) == ("tcp" in (front, back))


def test_small_messages_are_copied(start: Start, splices: Splices) -> None:
    client, server = start("tcp", "tcp").pair()
    for number in range(50):
        client.sendall(noise(number, 200))
        assert server.recv(4096) == noise(number, 200)
    assert splices.taken == 0


def test_splicing_ends_when_reads_get_small(splices: Splices) -> None:
    with pipe_from_tcp() as (writer, pipe, reader):
        begin_splicing(writer, pipe, reader)
        splices.taken = 0
        for text in (b"one", b"two"):
            writer.sendall(text)
            assert pump(pipe, reader, len(text)) == text
        assert splices.taken == 2 * len(b"one")  # in and out


def test_what_the_sink_does_not_take_stays_and_stops_the_source(start: Start) -> None:
    link = start("tcp", "unix")
    client, server = link.pair()
    data = noise(3, 24 * MIB)
    sent = send_until_full(client, data)
    assert sent < len(data)
    (connection,) = link.relay._connections
    assert isinstance(connection.up._kept, KernelPipe)
    assert 0 < connection.up.waiting <= BUFFER_BYTES
    server.sendall(b"the other way is free")
    assert client.recv(30) == b"the other way is free"
    send_all(client, data[sent:])
    assert digest(receive_all(server)) == digest(data)


def test_partial_writes_keep_the_order() -> None:
    with pipe_from_tcp() as (writer, pipe, reader):
        sent = fill(writer, pipe)
        assert pump(pipe, reader, len(sent), chunk=5000) == sent


def test_end_of_stream_comes_after_what_waits() -> None:
    with pipe_from_tcp() as (writer, pipe, reader):
        sent = fill(writer, pipe)
        writer.shutdown(socket.SHUT_WR)
        assert pump(pipe, reader, len(sent)) == sent
        assert not pipe.closed
        pipe.read()
        assert pipe.closed
        assert reader.recv(1) == b""


def test_nothing_to_read_changes_nothing() -> None:
    with pipe_from_tcp() as (writer, pipe, reader):
        begin_splicing(writer, pipe, reader)
        before = pipe.moved
        pipe.read()
        assert (pipe.moved, pipe.waiting, pipe.closed) == (before, 0, False)


def test_end_of_stream_is_seen_while_splicing() -> None:
    with pipe_from_tcp() as (writer, pipe, reader):
        begin_splicing(writer, pipe, reader)
        writer.close()
        pipe.read()
        assert pipe.closed
        assert reader.recv(1) == b""


@pytest.mark.parametrize("front", ["unix", "tcp"])
@pytest.mark.parametrize("ends", [False, True])
def test_urgent_byte_neither_stops_nor_ends_the_stream(
    start: Start, splices: Splices, front: str, ends: bool
) -> None:
    client, server = start(front, "tcp").pair()
    before, after = noise(1, 4 * MIB), noise(2, MIB)

    def rest() -> None:
        server.send(b"!", socket.MSG_OOB)
        server.sendall(after)
        if ends:
            server.shutdown(socket.SHUT_WR)

    sender = send_all(server, before, then=rest)
    client.settimeout(5)
    expected = before + b"!" + after
    got = bytearray()
    while len(got) < len(expected) and (chunk := client.recv(65536)):
        got += chunk
    assert digest(bytes(got)) == digest(expected)
    sender.join(5)
    assert splices.taken > 0
    if ends:
        assert client.recv(1) == b""


def test_reset_while_bytes_wait_closes_everything(start: Start) -> None:
    link = start("tcp", "unix")
    before = descriptors()
    client, server = link.pair()
    send_until_full(client, bytes(24 * MIB))
    reset(client)
    receive_all(server)
    server.close()
    assert eventually(lambda: not link.relay._connections)
    spares = len(link.relay._dialling) + 2 * len(_idle_pipes(link.relay._pool))
    assert eventually(lambda: descriptors() <= before + spares)


def test_stopping_closes_kernel_pipes(tmp_path: Path) -> None:
    before = descriptors()
    target = UnixAddress(str(tmp_path / "back"))
    front = listen(TcpAddress("127.0.0.1", 0))
    place = TcpAddress("127.0.0.1", front.getsockname()[1])
    with listen(target) as behind, Relay(front, target) as relay:
        behind.settimeout(5)
        with connect(place, seconds=5) as client, behind.accept()[0]:
            send_until_full(client, bytes(24 * MIB))
            (connection,) = relay._connections
            assert isinstance(connection.up._kept, KernelPipe)
            relay._pool.pipe()  # a spare one, too
            relay.__exit__(None, None, None)
    assert descriptors() == before


def test_reader_that_goes_leaves_no_bytes_to_the_next_connection(start: Start) -> None:
    link = start("tcp", "unix")
    client, server = link.pair()
    send_until_full(client, b"A" * (24 * MIB))
    server.close()
    assert is_over(client) or eventually(lambda: not link.relay._connections)
    client.close()
    assert eventually(lambda: not link.relay._connections)
    client, server = link.pair()
    data = b"B" * (4 * MIB)
    send_all(client, data)
    assert receive_all(server) == data


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ECONNRESET])
def test_bytes_of_a_sink_that_fails_are_thrown_away(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with contextlib.closing(Pool()) as pool, pipe_from_tcp(pool) as (writer, pipe, reader):
        begin_splicing(writer, pipe, reader)
        splice = os.splice

        def fail_to_write(source: int, sink: int, count: int, *, flags: int) -> int:
            if sink == pipe.sink.fileno():
                raise OSError(number, os.strerror(number))
            return splice(source, sink, count, flags=flags)

        monkeypatch.setattr(os, "splice", fail_to_write)
        writer.sendall(b"left over")
        with contextlib.suppress(ConnectionResetError):
            pipe.read()
        pipe.drop()
        spare = pool.pipe()
        assert spare is not None
        with pytest.raises(BlockingIOError):
            os.read(spare.reader, 10)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_source_that_cannot_be_spliced_is_copied(splices: Splices, number: int) -> None:
    with pipe_from_tcp() as (writer, pipe, reader):
        begin_splicing(writer, pipe, reader)
        splices.refuse = number
        for seed in range(2):
            data = noise(seed, 100_000)
            writer.sendall(data)
            assert pump(pipe, reader, len(data)) == data
        assert splices.refused == 1


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_sink_that_cannot_be_spliced_gets_a_copy(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with pipe_from_tcp() as (writer, pipe, reader):
        begin_splicing(writer, pipe, reader)
        splice, refused = os.splice, 0

        def refuse_to_write(source: int, sink: int, count: int, *, flags: int) -> int:
            nonlocal refused
            if sink == pipe.sink.fileno():
                refused += 1
                raise OSError(number, os.strerror(number))
            return splice(source, sink, count, flags=flags)

        monkeypatch.setattr(os, "splice", refuse_to_write)
        for seed in range(2):
            data = noise(seed, 100_000)
            writer.sendall(data)
            assert pump(pipe, reader, len(data)) == data
        assert refused == 1


class VsockLike(socket.socket):
    """Says that it is AF_VSOCK."""

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_VSOCK


def test_vsock_source_is_never_spliced(splices: Splices) -> None:
    with internet_pair() as (writer, source), contextlib.closing(Pool()) as pool:
        sink, reader = socket.socketpair()
        with sink, reader, VsockLike(fileno=os.dup(source.fileno())) as vsock:
            for one in (vsock, sink):
                one.setblocking(False)
            pipe = Pipe(vsock, sink, pool)
            data = noise(9, MIB)
            sender = send_all(writer, data)
            assert pump(pipe, reader, len(data)) == data
            sender.join(5)
    assert splices.taken == 0


def test_other_errors_of_splicing_are_the_connections_end(splices: Splices) -> None:
    with pipe_from_tcp() as (writer, pipe, reader):
        begin_splicing(writer, pipe, reader)
        splices.refuse = errno.ECONNRESET
        with pytest.raises(ConnectionResetError):
            pipe.read()


def test_without_descriptors_bytes_are_copied(
    monkeypatch: pytest.MonkeyPatch, splices: Splices
) -> None:
    def none_left(_: int) -> tuple[int, int]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pipe2", none_left)
    with pipe_from_tcp() as (writer, pipe, reader):
        begin_splicing(writer, pipe, reader)
        writer.sendall(b"more")
        assert pump(pipe, reader, 4) == b"more"
    assert splices.taken == 0


def test_want_of_memory_costs_a_connection_and_not_the_relay(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = start("unix", "unix")
    other, behind = link.pair()
    client, _ = link.pair()

    def no_memory(_: int) -> NoReturn:
        raise MemoryError

    monkeypatch.setattr("proxy.pool.bytearray", no_memory, raising=False)
    with contextlib.suppress(ConnectionError):
        send_until_full(client, bytes(24 * MIB))
    assert eventually(lambda: len(link.relay._connections) == 1)
    other.sendall(b"x")
    assert behind.recv(1) == b"x"


def test_pool_lends_to_one_at_a_time() -> None:
    with contextlib.closing(Pool(size=16)) as pool:
        first = pool.buffer
        pool.keep_buffer()
        assert pool.buffer is not first
        pool.give_back_buffer(first)
        pool.keep_buffer()
        assert pool.buffer is first
        pipe = pool.pipe()
        assert pool.pipe() is pipe
        pool.keep_pipe()
        assert pool.pipe() is not pipe
        assert pipe is not None
        pool.give_back_pipe(pipe)


def test_pool_keeps_few_and_closes_all() -> None:
    before = descriptors()
    pool = Pool()
    pipes = []
    for _ in range(20):
        pipe = pool.pipe()
        assert pipe is not None
        pipes.append(pipe)
        pool.keep_pipe()
    for pipe in pipes:
        pool.give_back_pipe(pipe)
    for buffer in [memoryview(bytearray(16)) for _ in range(20)]:
        pool.give_back_buffer(buffer)
    assert len(_idle_pipes(pool)) == len(pool._buffers) == 4
    pool.close()
    assert descriptors() == before


def _idle_pipes(pool: Pool) -> list[KernelPipe]:
    return pool._pipes + ([] if pool._pipe is None else [pool._pipe])

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.pipes import Connection
from proxy.pool import BUFFER_BYTES, Pool
from tests.proxy.peers import (
    Link,
    digest,
    eventually,
    noise,
    receive_all,
    send_all,
    send_until_full,
)

Start = Callable[..., Link]
MIB = 1024 * 1024
KINDS = pytest.mark.parametrize(("front", "back"), [("unix", "tcp"), ("tcp", "unix")])


@KINDS
def test_8_mib_each_way_at_once_arrive_as_they_were(start: Start, front: str, back: str) -> None:
    client, server = start(front, back).pair()
    up, down = noise(1, 8 * MIB), noise(2, 8 * MIB)
    received: dict[str, bytes] = {}
    at_server = threading.Thread(target=lambda: received.update(up=receive_all(server)))
    senders = [send_all(client, up), send_all(server, down)]
    at_server.start()
    received["down"] = receive_all(client)
    for thread in (at_server, *senders):
        thread.join(10)
    assert digest(received["up"]) == digest(up)
    assert digest(received["down"]) == digest(down)


@KINDS
def test_answer_after_the_clients_end_of_stream(start: Start, front: str, back: str) -> None:
    client, server = start(front, back).pair()
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    assert receive_all(server) == b"question"
    server.sendall(b"answer")
    server.close()
    assert receive_all(client) == b"answer"


@KINDS
def test_question_after_the_targets_end_of_stream(start: Start, front: str, back: str) -> None:
    client, server = start(front, back).pair()
    server.sendall(b"greeting")
    server.shutdown(socket.SHUT_WR)
    assert receive_all(client) == b"greeting"
    client.sendall(b"late word")
    client.close()
    assert receive_all(server) == b"late word"


def test_end_of_stream_waits_for_what_the_sink_has_not_taken(start: Start) -> None:
    client, server = start("unix", "tcp").pair()
    data = noise(3, 8 * MIB)
    send_all(client, data)
    assert server.recv(1, socket.MSG_PEEK) == data[:1]
    assert digest(receive_all(server)) == digest(data)


@KINDS
def test_reader_that_does_not_read_stops_the_writer(start: Start, front: str, back: str) -> None:
    link = start(front, back)
    client, server = link.pair()
    data = noise(4, 16 * MIB)
    sent = send_until_full(client, data)
    assert sent < len(data)
    (connection,) = link.relay._connections
    assert connection.up.waiting <= BUFFER_BYTES
    send_all(client, data[sent:])
    assert digest(receive_all(server)) == digest(data)


def test_full_direction_does_not_hold_the_other_up(start: Start) -> None:
    client, server = start("unix", "tcp").pair()
    assert send_until_full(client, bytes(16 * MIB)) < 16 * MIB
    server.sendall(b"still here")
    assert client.recv(10) == b"still here"


def test_client_that_closes_while_the_target_is_slow_loses_nothing(start: Start) -> None:
    link = start("unix", "tcp")
    client, server = link.pair()
    data = noise(5, 12 * MIB)
    sender = send_all(client, data, then=client.close)
    assert digest(receive_all(server)) == digest(data)
    sender.join(10)
    assert eventually(lambda: not link.relay._connections)


def test_client_that_reads_no_more_may_go_on_writing(start: Start) -> None:
    client, server = start("unix", "tcp").pair()
    client.shutdown(socket.SHUT_RD)
    server.sendall(b"nobody wants this")
    client.sendall(b"first")
    assert server.recv(5) == b"first"
    client.sendall(b"second")
    client.shutdown(socket.SHUT_WR)
    assert receive_all(server) == b"second"


def test_an_answer_is_not_lost_with_what_was_asked_after_it() -> None:
    """A peer that answers and closes, and reads no more, resets what is still being sent to it."""
    accepted, client = socket.socketpair()
    with (
        contextlib.closing(Pool()) as pool,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as dialled,
        accepted,
        client,
    ):
        server, _ = listener.accept()
        client.sendall(b"question")
        dialled.sendall(b"unread")
        assert eventually(lambda: server.recv(6, socket.MSG_PEEK) == b"unread")
        server.sendall(b"answer")
        server.close()
        watched = select.poll()
        watched.register(dialled, 0)
        assert watched.poll(5000), "the reset has come"
        for one in (accepted, dialled):
            one.setblocking(False)
        connection = Connection(accepted, dialled, pool)
        ours, theirs = connection.halves
        ours.move(select.EPOLLIN)
        for _ in range(2):
            theirs.move(select.EPOLLIN | select.EPOLLHUP)
        client.settimeout(5)
        assert receive_all(client) == b"answer"
        assert connection.done
        assert connection.was_cut, "what was asked has not arrived"


chunks = st.lists(st.binary(min_size=1, max_size=3000), max_size=12)


@settings(max_examples=60, deadline=None)
@given(up=chunks, down=chunks, buffer_bytes=st.integers(16, 2048), turns=st.lists(st.booleans()))
def test_any_chunks_arrive_in_order(
    up: list[bytes], down: list[bytes], buffer_bytes: int, turns: list[bool]
) -> None:
    client, accepted = socket.socketpair()
    dialled, server = socket.socketpair()
    for one in (client, accepted, dialled, server):
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the least the kernel allows
    connection = Connection(accepted, dialled, Pool(size=buffer_bytes))
    ends = {client: (up, bytearray()), server: (down, bytearray())}
    finished: set[socket.socket] = set()
    unsent = {peer: list(sent) for peer, (sent, _) in ends.items()}
    with client, server:
        for peers_send in itertools.cycle([*turns, True]):
            if connection.done and len(finished) == 2:
                break
            if peers_send:
                for peer, queue in unsent.items():
                    _send_next(peer, queue)
            for half in connection.halves:
                half.move(half.wanted())
            for peer, (_, got) in ends.items():
                if _receive(peer, got):
                    finished.add(peer)
        connection.close()
    assert bytes(ends[server][1]) == b"".join(up)
    assert bytes(ends[client][1]) == b"".join(down)
    assert connection.up.moved == sum(map(len, up))
    assert connection.down.moved == sum(map(len, down))


def _send_next(peer: socket.socket, queue: list[bytes]) -> None:
    if not queue:
        peer.shutdown(socket.SHUT_WR)
        return
    try:
        sent = peer.send(queue[0])
    except BlockingIOError:
        return
    queue[0] = queue[0][sent:]
    if not queue[0]:
        queue.pop(0)


def _receive(peer: socket.socket, got: bytearray) -> bool:
    """Take what is there; whether the stream has ended."""
    try:
        chunk = peer.recv(700)
    except BlockingIOError:
        return False
    got += chunk
    return not chunk

from __future__ import annotations

import fcntl
import socket
import struct
import termios
import threading
from collections.abc import Callable

import pytest

from tests.proxy.conftest import Link
from tests.proxy.peers import (
    exchange,
    noise,
    receive_all,
    receive_until_reset,
    reset,
    send_all,
    send_until_full,
)

Start = Callable[..., Link]
MIB = 1024 * 1024
KINDS = pytest.mark.parametrize(("front", "back"), [("unix", "tcp"), ("tcp", "unix")])


@KINDS
def test_4_mib_each_way_at_once_arrive_as_they_were(start: Start, front: str, back: str) -> None:
    client, server = start(front, back).pair()
    up, down = noise(1, 4 * MIB), noise(2, 4 * MIB)
    received: list[bytes] = []
    at_server = threading.Thread(target=lambda: received.append(receive_all(server)))
    at_server.start()
    senders = [send_all(client, up), send_all(server, down)]
    assert receive_all(client) == down
    for thread in (at_server, *senders):
        thread.join(10)
    assert received == [up]


@KINDS
@pytest.mark.threat("16")
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


@KINDS
@pytest.mark.threat("16")
def test_reader_that_does_not_read_stops_the_writer(start: Start, front: str, back: str) -> None:
    client, server = start(front, back).pair()
    data = noise(3, 16 * MIB)  # more than the sockets on the way hold
    sent = send_until_full(client, data)
    assert sent < len(data)
    server.sendall(b"other way")
    assert client.recv(9) == b"other way"
    send_all(client, data[sent:])
    assert receive_all(server) == data


def test_client_that_closes_while_the_target_is_slow_loses_nothing(start: Start) -> None:
    link = start()
    client, server = link.pair()
    data = noise(4, 12 * MIB)
    sender = send_all(client, data, then=client.close)
    assert receive_all(server) == data
    sender.join(10)
    server.sendall(b"goodbye, to nobody")  # like TLS's close_notify
    server.close()
    assert link.logged(f"connection ended: {len(data)} bytes up, 18 down")


def test_client_that_reads_no_more_may_go_on_writing(start: Start) -> None:
    client, server = start().pair()
    client.shutdown(socket.SHUT_RD)
    server.sendall(b"nobody wants this")
    client.sendall(b"first")
    assert server.recv(5) == b"first"
    client.sendall(b"second")
    client.shutdown(socket.SHUT_WR)
    assert receive_all(server) == b"second"


def test_urgent_byte_is_carried_in_its_place(start: Start) -> None:
    client, server = start("tcp", "tcp").pair()
    client.sendall(b"before ")
    client.send(b"!", socket.MSG_OOB)
    client.sendall(b" after")
    client.shutdown(socket.SHUT_WR)
    assert receive_all(server) == b"before ! after"


@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("size", [0, 32 * 1024])
def test_reset_is_passed_on_after_all_bytes(start: Start, who: int, size: int) -> None:
    link = start("tcp", "tcp")
    ends = link.pair()
    exchange(*ends)
    data = noise(5, size)
    ends[who].sendall(data)
    reset(ends[who])
    assert receive_until_reset(ends[1 - who]) == data
    assert link.logged("connection lost (Connection reset by peer): ")


def test_reset_while_a_slow_reader_holds_bytes_up_loses_none(start: Start) -> None:
    client, server = start("tcp", "unix").pair()
    data = noise(6, 16 * MIB)
    taken = _fill(client, data)
    reset(client)
    assert receive_all(server) == data[:taken]


def test_an_answer_is_not_lost_with_what_was_asked_after_it(start: Start) -> None:
    """A peer that answers and closes without reading resets what is still being sent to it."""
    client, server = start().pair()
    client.sendall(b"question")
    assert server.recv(1, socket.MSG_PEEK) == b"q"
    answer = noise(7, 16 * MIB)  # so that some of it waits for the client while it asks on
    taken = _fill(server, answer)
    server.close()
    client.sendall(b"another question")
    assert receive_all(client) == answer[:taken]


def _fill(sender: socket.socket, data: bytes) -> int:
    """Send until nothing more is taken; return how many bytes have left the sender's kernel."""
    sent = send_until_full(sender, data)
    unacknowledged: int = struct.unpack("i", fcntl.ioctl(sender, termios.TIOCOUTQ, bytes(4)))[0]
    return sent - unacknowledged  # tcp(7), SIOCOUTQ

"""The switch, the NSM and vhost-user below them, against fake machines."""

import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.vm.backends import Backends
from tests.vm.devices import HEADER, REQUEST, RESPONSE, RST, RW, SHUTDOWN, STREAM, Header
from tests.vm.fake_machine import GUEST, MEMORY, QUEUE_SIZE, FakeMachine
from tests.vm.programs import LabError

RX, TX = 0, 1
ROOM = [HEADER.size, 256]


class Net:
    """Machines on a switch, by CID."""

    def __init__(self, backends: Backends, stack: ExitStack) -> None:
        self.backends = backends
        self._stack = stack

    def machine(self, cid: int, *, buffers: int = 4, enabled: bool = True) -> FakeMachine:
        fake = FakeMachine(self.backends.vsock(cid), queues=3, enabled=enabled)
        self._stack.enter_context(fake)
        for _ in range(buffers):
            fake.offer(RX, room=ROOM)
        return fake


@pytest.fixture
def backends() -> Iterator[Backends]:
    with Backends() as backends:
        yield backends


@pytest.fixture
def net(backends: Backends) -> Iterator[Net]:
    with ExitStack() as stack:
        yield Net(backends, stack)


def header(source: int, destination: int, operation: int = RW, length: int = 0) -> Header:
    ports = (1024, 1000) if source < destination else (1000, 1024)
    return Header(source, destination, *ports, length, STREAM, operation, 0, 262144, 0)


def send(machine: FakeMachine, head: Header, payload: bytes = b"") -> None:
    packed = HEADER.pack(*head._replace(length=len(payload)))
    machine.offer(TX, [packed, payload] if payload else [packed])


def receive(machine: FakeMachine) -> tuple[Header, bytes]:
    packet = machine.take(RX)
    return Header(*HEADER.unpack_from(packet)), packet[HEADER.size :]


def connect(client: FakeMachine, server: FakeMachine) -> None:
    """Open a stream from CID 3 to CID 16."""
    send(client, header(3, 16, REQUEST))
    assert receive(server) == (header(3, 16, REQUEST), b"")
    send(server, header(16, 3, RESPONSE))
    assert receive(client) == (header(16, 3, RESPONSE), b"")


def test_packets_reach_their_cid_as_they_were_sent(net: Net) -> None:
    parent, enclave, other = net.machine(3), net.machine(16), net.machine(17)
    connect(parent, enclave)
    send(parent, header(3, 16), b"attack at dawn")
    assert receive(enclave) == (header(3, 16, length=14), b"attack at dawn")
    shutdown = header(16, 3, SHUTDOWN)._replace(flags=3)
    send(enclave, shutdown)
    assert receive(parent)[0] == shutdown
    send(other, header(17, 3, REQUEST))
    assert receive(parent)[0] == header(17, 3, REQUEST)
    send(parent, header(3, 17, RESPONSE))
    assert receive(other)[0] == header(3, 17, RESPONSE), "and it got nothing before"


def test_a_machine_reads_its_cid_in_the_configuration(net: Net) -> None:
    answer = net.machine(16).ask(24, struct.pack("<III", 0, 8, 0))
    assert struct.unpack("<IIIQ", answer) == (0, 8, 0, 16)


def test_a_long_packet_comes_in_pieces_that_fit(net: Net) -> None:
    parent, enclave = net.machine(3), net.machine(16)
    data = os.urandom(1000)
    send(parent, header(3, 16)._replace(flags=3), data)
    pieces = [receive(enclave) for _ in range(4)]
    assert [len(payload) for _, payload in pieces] == [256, 256, 256, 232]
    assert [head.length for head, _ in pieces] == [256, 256, 256, 232]
    assert b"".join(payload for _, payload in pieces) == data
    assert [head.flags for head, _ in pieces] == [0, 0, 0, 3]


def test_packets_wait_in_order_for_a_receiver_without_room(net: Net) -> None:
    parent, enclave = net.machine(3), net.machine(16, buffers=0)
    sent = [os.urandom(100) for _ in range(3)]
    for payload in sent:
        send(parent, header(3, 16), payload)
        parent.take(TX)
    for payload in sent:
        enclave.offer(RX, room=ROOM)
        assert receive(enclave)[1] == payload


def test_queues_wrap_around(net: Net) -> None:
    parent, enclave = net.machine(3), net.machine(16, buffers=1)
    for number in range(5 * QUEUE_SIZE):
        send(parent, header(3, 16), b"%d" % number)
        parent.take(TX)
        assert receive(enclave)[1] == b"%d" % number
        enclave.offer(RX, room=ROOM)


@pytest.mark.parametrize("case", ["no machine", "its driver is not there yet", "another socket"])
def test_what_nobody_takes_is_answered_with_a_reset(net: Net, case: str) -> None:
    parent = net.machine(3)
    if case != "no machine":
        net.machine(16, buffers=0, enabled=case != "its driver is not there yet")
    kind = 2 if case == "another socket" else STREAM
    send(parent, header(3, 16, RST)._replace(kind=kind))  # not answered
    send(parent, header(3, 16, REQUEST)._replace(kind=kind))
    answer, _ = receive(parent)
    assert answer == Header(16, 3, 1000, 1024, 0, kind, RST, 0, 0, 0)


@pytest.mark.parametrize("gone", [3, 16])
def test_streams_of_a_machine_that_ends_are_reset(net: Net, gone: int) -> None:
    machines = {3: net.machine(3), 16: net.machine(16)}
    connect(machines[3], machines[16])
    machines[gone].__exit__()
    left = 19 - gone
    last, _ = receive(machines[left])
    assert last.operation == RST
    assert (last.source_cid, last.destination_cid) == (gone, left)
    assert last.stream == header(3, 16).stream
    assert net.backends.failures == []


def test_a_stream_that_was_reset_is_not_reset_again(net: Net) -> None:
    parent, enclave = net.machine(3), net.machine(16)
    connect(parent, enclave)
    send(enclave, header(16, 3, RST))
    assert receive(parent)[0].operation == RST
    enclave.__exit__()
    net.backends.release(16)
    again = net.machine(16)
    send(again, header(16, 3, REQUEST))
    assert receive(parent)[0].operation == REQUEST


def test_a_machine_that_speaks_as_another_is_cut_off_alone(net: Net) -> None:
    liar, parent, enclave = net.machine(17), net.machine(3), net.machine(16)
    send(liar, header(3, 16, REQUEST))
    assert liar.is_cut_off
    assert [str(failure) for failure in net.backends.failures] == ["CID 17 sends as CID 3"]
    connect(parent, enclave)


def test_a_packet_that_lost_bytes_is_a_failure(net: Net) -> None:
    parent = net.machine(3)
    parent.offer(TX, [HEADER.pack(*header(3, 16, length=10)), b"nine byte"])
    assert parent.is_cut_off
    assert [str(failure) for failure in net.backends.failures] == ["a packet of 10 bytes has 9"]


@pytest.mark.parametrize("start", [GUEST - 1, GUEST + MEMORY - 3])
def test_a_chain_outside_of_memory_is_a_failure(net: Net, start: int) -> None:
    parent = net.machine(3)
    send(parent, header(3, 16, RST))
    parent.take(TX)
    parent.describe(TX, 1, start, 4, 0)
    struct.pack_into("<H", parent.memory, 0x4000 + 0x1000 + 4 + 2, 1)
    struct.pack_into("<H", parent.memory, 0x4000 + 0x1000 + 2, 2)
    parent.tell(18, struct.pack("<II", TX, 1))
    assert parent.is_cut_off
    assert "are in no shared memory" in str(net.backends.failures[-1])


def test_a_cid_is_one_machines_until_it_has_ended(net: Net) -> None:
    enclave = net.machine(16)
    with pytest.raises(LabError, match="CID 16 is another machine's"):
        net.backends.vsock(16)
    enclave.__exit__()
    net.backends.release(16)
    net.machine(16)


def test_the_nsm_answers_into_the_room_that_follows_its_request(backends: Backends) -> None:
    connection = backends.nsm(lambda request: request[::-1])
    with FakeMachine(connection, queues=1) as machine:
        for request in (b"abc", b"", b"def"):
            machine.offer(0, [request[:1], request[1:]], room=[])
            machine.offer(0, room=[2, 100])
            assert machine.take(0) == b""
            assert machine.take(0) == request[::-1]
    assert backends.failures == []


@pytest.mark.parametrize("long", [True, False])
def test_an_nsm_that_fails_is_a_failure(backends: Backends, *, long: bool) -> None:
    def exchange(request: bytes) -> bytes:
        if long:
            return request * 1000
        raise ValueError("broken")

    with FakeMachine(backends.nsm(exchange), queues=1) as machine:
        machine.offer(0, [b"abc"])
        machine.offer(0, room=[100])
        assert machine.is_cut_off
    said = str(backends.failures[0])
    assert said == ("3000 bytes do not fit into a buffer of 100" if long else "broken")

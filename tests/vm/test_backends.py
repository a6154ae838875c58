"""The switch, the NSM and the protocol below them, against fake machines."""

import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vm import switch as switch_module
from tests.vm.backends import Backends
from tests.vm.errors import LabError
from tests.vm.fake_machine import GUEST, MEMORY, QUEUE_SIZE, USER, FakeMachine, memory_table
from tests.vm.guest_memory import BackEndError
from tests.vm.vsock_packet import (
    HEADER,
    MAX_PAYLOAD,
    OP_CREDIT_UPDATE,
    OP_REQUEST,
    OP_RESPONSE,
    OP_RST,
    OP_RW,
    OP_SHUTDOWN,
    TYPE_STREAM,
    Header,
    reset,
)

RX, TX = 0, 1
ROOM = [HEADER.size, 256]


@pytest.fixture
def backends(socket_folder: Path) -> Iterator[Backends]:
    with Backends(socket_folder) as backends:
        yield backends
        assert backends.failure is None


@pytest.fixture
def machines() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Net:
    """Machines on a switch, by CID."""

    def __init__(self, backends: Backends, stack: ExitStack) -> None:
        self.backends = backends
        self._stack = stack

    def machine(self, cid: int, *, buffers: int = 8) -> FakeMachine:
        machine = self._stack.enter_context(FakeMachine(self.backends.vsock(cid), queues=3))
        for _ in range(buffers):
            machine.offer(RX, room=ROOM)
        machine.kick(RX)
        return machine


@pytest.fixture
def net(backends: Backends, machines: ExitStack) -> Net:
    return Net(backends, machines)


def header(source: int, destination: int, operation: int = OP_RW, length: int = 0) -> Header:
    return Header(source, destination, 1024, 1000, length, TYPE_STREAM, operation, 0, 262144, 0)


def send(machine: FakeMachine, head: Header, payload: bytes = b"") -> None:
    machine.offer(TX, [replace(head, length=len(payload)).encode(), payload][: 1 + bool(payload)])
    machine.kick(TX)


def receive(machine: FakeMachine) -> tuple[Header, bytes]:
    head, payload = Header.parse(machine.take(RX))
    return head, bytes(payload)


def back(head: Header, operation: int = OP_RW) -> Header:
    """A packet of the same stream in the other direction."""
    return replace(
        header(head.destination_cid, head.source_cid, operation),
        source_port=head.destination_port,
        destination_port=head.source_port,
    )


def connect(client: FakeMachine, server: FakeMachine, *, credit: int = 262144) -> None:
    """A stream from CID 3 to CID 16, whose server announces this credit."""
    request = header(3, 16, OP_REQUEST)
    send(client, request)
    assert receive(server) == (request, b"")
    send(server, replace(back(request, OP_RESPONSE), buffer_size=credit))
    assert receive(client)[0].operation == OP_RESPONSE


def mapped_machines() -> int:
    """How many mappings of fake machines' memory this process has."""
    return Path("/proc/self/maps").read_text().count("memfd:machine")


def wait_until_cut_off(machine: FakeMachine) -> None:
    assert machine.cut_off


class TestSwitch:
    def test_a_packet_reaches_its_cid_as_it_was_sent(self, net: Net) -> None:
        parent, enclave = net.machine(3), net.machine(16)
        connect(parent, enclave)
        send(parent, header(3, 16), b"attack at dawn")
        assert receive(enclave) == (header(3, 16, length=14), b"attack at dawn")
        shutdown = replace(back(header(3, 16), OP_SHUTDOWN), flags=3)
        send(enclave, shutdown)
        assert receive(parent)[0] == shutdown

    def test_a_machine_reads_its_cid_in_the_configuration(self, net: Net) -> None:
        machine = net.machine(16)
        answer = machine.ask_bytes(24, struct.pack("<III", 0, 8, 0))
        assert struct.unpack("<IIIQ", answer) == (0, 8, 0, 16)

    def test_a_long_packet_comes_in_pieces_that_fit(self, net: Net) -> None:
        parent, enclave = net.machine(3), net.machine(16)
        connect(parent, enclave)
        data = os.urandom(1000)
        send(parent, replace(header(3, 16), flags=3), data)
        pieces = [receive(enclave) for _ in range(4)]
        assert [len(payload) for _, payload in pieces] == [256, 256, 256, 232]
        assert b"".join(payload for _, payload in pieces) == data
        assert {head.operation for head, _ in pieces} == {OP_RW}
        assert [head.flags for head, _ in pieces] == [0, 0, 0, 3]

    def test_packets_wait_for_a_receiver_without_room(self, net: Net) -> None:
        parent, enclave = net.machine(3), net.machine(16, buffers=1)
        connect(parent, enclave)
        for number in range(3):
            send(parent, header(3, 16), bytes([number]))
        for number in range(3):
            enclave.offer(RX, room=ROOM)
            enclave.kick(RX)
            assert receive(enclave)[1] == bytes([number])

    def test_an_unknown_cid_answers_with_a_reset(self, net: Net) -> None:
        parent = net.machine(3)
        send(parent, header(3, 77, OP_REQUEST))
        head, _ = receive(parent)
        assert (head.source_cid, head.destination_cid, head.operation) == (77, 3, OP_RST)
        assert (head.source_port, head.destination_port) == (1000, 1024)

    def test_a_reset_to_an_unknown_cid_is_not_answered(self, net: Net) -> None:
        parent = net.machine(3)
        send(parent, header(3, 77, OP_RST))
        send(parent, header(3, 78, OP_REQUEST))
        assert receive(parent)[0].source_cid == 78

    def test_a_machine_whose_driver_is_not_there_yet_answers_with_a_reset(
        self, net: Net, machines: ExitStack
    ) -> None:
        parent = net.machine(3)
        machines.enter_context(FakeMachine(net.backends.vsock(16), queues=3, enabled=False))
        send(parent, header(3, 16, OP_REQUEST))
        assert receive(parent)[0] == header(3, 16).refusal()

    def test_another_kind_of_socket_is_refused(self, net: Net) -> None:
        parent, _ = net.machine(3), net.machine(16)
        send(parent, replace(header(3, 16, OP_REQUEST), kind=2))
        head, _ = receive(parent)
        assert (head.operation, head.kind) == (OP_RST, 2)

    def test_streams_of_a_machine_that_ends_are_reset(self, net: Net) -> None:
        parent, enclave, stranger = net.machine(3), net.machine(16), net.machine(17)
        connect(parent, enclave)
        send(stranger, header(17, 3, OP_REQUEST))
        other = receive(parent)[0]
        enclave.end()
        head, _ = receive(parent)
        assert head == reset(header(3, 16).stream, 3)
        assert (head.source_cid, head.source_port, head.destination_port) == (16, 1000, 1024)
        send(parent, back(other, OP_RESPONSE))
        assert receive(stranger)[0].operation == OP_RESPONSE, "others go on"

    def test_a_stream_that_was_reset_is_not_reset_again(self, net: Net) -> None:
        parent, enclave = net.machine(3), net.machine(16)
        send(parent, header(3, 16, OP_REQUEST))
        receive(enclave)
        send(parent, header(3, 16, OP_RST))
        receive(enclave)
        parent.end()
        again = net.machine(17)
        send(again, header(17, 16, OP_REQUEST))
        assert receive(enclave)[0].source_cid == 17

    def test_a_packet_of_no_stream_is_refused(self, net: Net) -> None:
        parent, enclave = net.machine(3), net.machine(16)
        send(parent, header(3, 16), b"nobody asked")
        assert receive(parent)[0] == header(3, 16).refusal()
        send(parent, header(3, 16, OP_RST))
        send(parent, header(3, 16, OP_REQUEST))
        assert receive(enclave)[0].operation == OP_REQUEST, "neither came"

    def test_a_sender_beyond_its_credit_loses_its_stream_at_both_ends(self, net: Net) -> None:
        parent, enclave = net.machine(3), net.machine(16)
        connect(parent, enclave, credit=10)
        send(parent, header(3, 16), b"0123456789")
        assert receive(enclave)[1] == b"0123456789"
        send(parent, header(3, 16), b"!")
        assert receive(parent)[0] == header(3, 16).refusal()
        assert receive(enclave)[0] == reset(header(3, 16).stream, 16)
        send(enclave, back(header(3, 16)))
        assert receive(enclave)[0] == reset(header(3, 16).stream, 16), "it is forgotten"

    def test_credit_that_is_given_back_is_good_again(self, net: Net) -> None:
        parent, enclave = net.machine(3), net.machine(16)
        connect(parent, enclave, credit=10)
        send(parent, header(3, 16), b"0123456789")
        receive(enclave)
        send(enclave, replace(back(header(3, 16), OP_CREDIT_UPDATE), buffer_size=10, forwarded=10))
        receive(parent)
        send(parent, header(3, 16), b"9876543210")
        assert receive(enclave)[1] == b"9876543210"

    @pytest.mark.parametrize(("bound", "value"), [("BYTES", 20), ("PACKETS", 2)])
    def test_a_receiver_that_takes_nothing_loses_its_streams(
        self, net: Net, monkeypatch: pytest.MonkeyPatch, bound: str, value: int
    ) -> None:
        parent, enclave = net.machine(3), net.machine(16, buffers=1)
        connect(parent, enclave)
        monkeypatch.setattr(switch_module, f"MAX_QUEUED_{bound}", value)
        for _ in range(4):
            send(parent, header(3, 16), b"0123456789abcdef")
        assert receive(parent)[0].operation == OP_RST
        for _ in range(6):
            enclave.offer(RX, room=ROOM)
        enclave.kick(RX)
        while (head := receive(enclave)[0]).operation == OP_RW:
            pass
        assert head == reset(header(3, 16).stream, 16)

    def test_a_machine_may_ask_for_so_many_streams_and_others_for_theirs(
        self, net: Net, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(switch_module, "MAX_STREAMS", 1)
        parent, enclave, stranger = net.machine(3), net.machine(16), net.machine(17)
        connect(parent, enclave)
        second = replace(header(3, 16, OP_REQUEST), source_port=1025)
        send(parent, second)
        assert receive(parent)[0] == second.refusal()
        send(stranger, header(17, 16, OP_REQUEST))
        assert receive(enclave)[0].source_cid == 17

    def test_a_machine_that_takes_no_resets_is_cut_off(
        self, net: Net, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(switch_module, "MAX_QUEUED_PACKETS", 2)
        parent = net.machine(3, buffers=0)
        for _ in range(4):
            send(parent, header(3, 77, OP_REQUEST))
        wait_until_cut_off(parent)
        assert net.backends.breaches == ["CID 3 asks for resets and takes none"]

    def test_a_receiver_that_cannot_be_interrupted_is_cut_off_and_not_the_sender(
        self, net: Net
    ) -> None:
        parent, enclave = net.machine(3), net.machine(16)
        reader, writer = os.pipe()
        enclave.tell(13, struct.pack("<Q", RX), [writer])
        os.close(reader)
        os.close(writer)
        send(parent, header(3, 16, OP_REQUEST))
        wait_until_cut_off(enclave)
        assert receive(parent)[0].operation == OP_RST
        assert len(net.backends.breaches) == 1

    def test_a_machine_that_speaks_as_another_is_cut_off_alone(self, net: Net) -> None:
        liar, parent, enclave = net.machine(17), net.machine(3), net.machine(16)
        connect(parent, enclave)
        send(liar, header(3, 16), b"forged")
        wait_until_cut_off(liar)
        assert net.backends.breaches == ["CID 17 sends as CID 3"]
        send(parent, header(3, 16), b"genuine")
        assert receive(enclave)[1] == b"genuine"

    @pytest.mark.parametrize(
        ("packet", "reason"),
        [
            (b"x" * (HEADER.size - 1), "has no header"),
            (header(3, 16, length=1).encode(), "says 1 bytes and has 0"),
            (header(3, 16, length=MAX_PAYLOAD + 1).encode() + bytes(MAX_PAYLOAD + 1), "says 65537"),
        ],
        ids=["no-header", "shorter", "too-long"],
    )
    def test_a_wrong_packet_cuts_its_sender_off(self, net: Net, packet: bytes, reason: str) -> None:
        parent = net.machine(3)
        parent.offer(TX, [packet])
        parent.kick(TX)
        wait_until_cut_off(parent)
        assert reason in net.backends.breaches[0]

    def test_a_receiver_without_room_for_a_header_is_cut_off_and_not_the_sender(
        self, net: Net
    ) -> None:
        parent, enclave = net.machine(3), net.machine(16, buffers=0)
        enclave.offer(RX, room=[HEADER.size])
        enclave.kick(RX)
        send(parent, header(3, 16, OP_REQUEST))
        wait_until_cut_off(enclave)
        assert receive(parent)[0].operation == OP_RST
        assert "a buffer of 44 bytes" in net.backends.breaches[0]


class TestCids:
    def test_a_cid_is_one_machines_until_it_ends(self, net: Net) -> None:
        with pytest.raises(LabError, match="CID 16 is another machine's"):
            net.backends.vsock(16), net.backends.vsock(16)

    def test_a_cid_is_free_once_its_machine_has_ended(self, net: Net) -> None:
        machine = net.machine(16)
        with pytest.raises(LabError, match="CID 16"):
            net.backends.vsock(16)
        machine.end()
        deadline = time.monotonic() + 5
        while True:
            try:
                net.machine(16)
                return
            except LabError:
                assert time.monotonic() < deadline

    def test_a_socket_that_nobody_came_to_is_given_up(self, backends: Backends) -> None:
        path = backends.vsock(16)
        backends.discard(path)
        assert not path.exists()
        assert backends.vsock(16) != path

    def test_an_event_of_what_was_closed_meanwhile_is_ignored(self, backends: Backends) -> None:
        path = backends.vsock(16)
        key = backends._selector.get_key(backends._awaited[path][0])
        backends.discard(path)
        backends._serve(key)
        assert backends.vsock(16) != path


class TestNsm:
    def exchange(self, request: bytes) -> bytes:
        return b"answer to " + request

    @pytest.fixture
    def machine(self, backends: Backends, machines: ExitStack) -> FakeMachine:
        return machines.enter_context(FakeMachine(backends.nsm(self.exchange), queues=1))

    def test_a_request_and_room_for_its_response_are_two_chains(self, machine: FakeMachine) -> None:
        for number in (b"1", b"2"):
            machine.offer(0, [b"request ", number])
            machine.offer(0, room=[0x3000])
            machine.kick(0)
            assert machine.take(0) == b""
            assert machine.take(0) == b"answer to request " + number

    def test_an_empty_request_is_one_too(self, machine: FakeMachine) -> None:
        machine.offer(0, [b""])
        machine.offer(0, room=[0x3000])
        machine.kick(0)
        machine.take(0)
        assert machine.take(0) == b"answer to "

    def test_the_driver_is_told_once_and_when_both_are_back(self, machine: FakeMachine) -> None:
        machine.offer(0, [b"request"])
        machine.kick(0)
        machine.tell(14, bytes(8))  # a message that is answered after the kick was seen
        assert machine.interrupted(0) == 0
        machine.offer(0, room=[0x3000])
        machine.kick(0)
        told = select.select([machine.calls[0]], [], [], 5.0)[0]
        assert told
        assert machine.interrupted(0) == 1
        machine.take(0)
        machine.take(0)

    def test_a_driver_that_begins_anew_is_answered(self, machine: FakeMachine) -> None:
        machine.offer(0, [b"of the driver that was unloaded"])
        machine.kick(0)
        machine.tell(14, bytes(8))
        assert struct.unpack("<II", machine.ask_bytes(11, struct.pack("<II", 0, 0))) == (0, 1)
        machine.start(0)
        machine.offer(0, [b"new"])
        machine.offer(0, room=[0x3000])
        machine.kick(0)
        machine.take(0)
        assert machine.take(0) == b"answer to new"

    def test_a_machine_that_ends_in_the_middle_leaves_no_memory_behind(
        self, backends: Backends
    ) -> None:
        before = mapped_machines()
        with FakeMachine(backends.nsm(self.exchange), queues=1) as machine:
            machine.offer(0, [b"request"])
            machine.kick(0)
            machine.tell(14, bytes(8))
            assert mapped_machines() == before + 2, "its own and the back end's"
        deadline = time.monotonic() + 5
        while mapped_machines() != before:
            assert time.monotonic() < deadline

    def test_a_machine_that_asks_without_end_lets_others_have_their_turn(
        self, backends: Backends, machines: ExitStack
    ) -> None:
        answered: list[str] = []

        def greedy_exchange(_: bytes) -> bytes:
            if not answered:
                modest.kick(0)
            answered.append("greedy")
            if len(answered) < 500:
                for head in (0, 1):
                    greedy.make_available(0, head)
            return b""

        def modest_exchange(_: bytes) -> bytes:
            answered.append("modest")
            return b""

        greedy = machines.enter_context(FakeMachine(backends.nsm(greedy_exchange), queues=1))
        modest = machines.enter_context(FakeMachine(backends.nsm(modest_exchange), queues=1))
        for machine in (modest, greedy):
            machine.offer(0, [b"request"])
            machine.offer(0, room=[16])
        greedy.kick(0)
        deadline = time.monotonic() + 5
        while len(answered) < 500:
            assert time.monotonic() < deadline
        assert answered.index("modest") <= QUEUE_SIZE

    @pytest.mark.parametrize(
        ("chains", "reason"),
        [
            ([([], [8])], "room for a response comes before its request"),
            ([([b"a"], []), ([b"b"], [])], "a second request"),
            ([([b"a"], []), ([], [8])], "do not fit the 8"),
        ],
    )
    def test_what_the_driver_does_not_do_cuts_the_machine_off(
        self,
        machine: FakeMachine,
        backends: Backends,
        chains: list[tuple[list[bytes], list[int]]],
        reason: str,
    ) -> None:
        for readable, room in chains:
            machine.offer(0, readable, room)
        machine.kick(0)
        wait_until_cut_off(machine)
        assert reason in backends.breaches[0]


class TestProtocol:
    @pytest.fixture
    def machine(self, backends: Backends, machines: ExitStack) -> FakeMachine:
        return machines.enter_context(FakeMachine(backends.nsm(lambda _: b"ok"), queues=1))

    def test_configuration_space_is_offered_where_there_is_some(
        self, machine: FakeMachine, net: Net
    ) -> None:
        assert machine.protocol == (1 << 0) | (1 << 3)
        assert net.machine(3).protocol == (1 << 0) | (1 << 3) | (1 << 9)
        assert machine.features == (1 << 32) | (1 << 30)
        assert machine.ask(17) == 1

    def test_a_queue_that_is_not_enabled_waits(
        self, backends: Backends, machines: ExitStack
    ) -> None:
        path = backends.nsm(lambda _: b"ok")
        machine = machines.enter_context(FakeMachine(path, queues=1, enabled=False))
        machine.offer(0, [b"request"])
        machine.offer(0, room=[16])
        machine.kick(0)
        machine.tell(14, bytes(8))
        assert machine.interrupted(0) == 0
        machine.tell(18, struct.pack("<II", 0, 1))
        machine.take(0)
        assert machine.take(0) == b"ok"

    def test_a_stopped_queue_says_where_it_would_go_on(self, machine: FakeMachine) -> None:
        machine.offer(0, [b"request"])
        machine.offer(0, room=[16])
        machine.kick(0)
        machine.take(0)
        machine.take(0)
        answer = machine.ask_bytes(11, struct.pack("<II", 0, 0))
        assert struct.unpack("<II", answer) == (0, 2)

    def test_new_memory_is_used_from_then_on(self, machine: FakeMachine) -> None:
        file = os.memfd_create("more")
        os.ftruncate(file, MEMORY)
        machine.tell(5, memory_table([(GUEST, MEMORY, USER, 0)]), [file])
        machine.memory[:] = bytes(MEMORY)
        os.close(file)
        assert machine.ask(17) == 1

    @pytest.mark.parametrize(
        ("message", "reason"),
        [
            (struct.pack("<III", 99, 1, 0), "request 99"),
            (struct.pack("<III", 1, 2, 0), "flags 0x2"),
            (struct.pack("<III", 2, 1, 5000), "5000 bytes"),
            (struct.pack("<IIIQ", 2, 1, 8, 1), "features 0x1 were not offered"),
            (struct.pack("<IIIQ", 16, 1, 8, 1 << 9), "protocol 0x200 were not offered"),
            (struct.pack("<IIIII", 8, 1, 8, 1, 16), "queue 1 of 1"),
            (struct.pack("<IIIQ", 12, 1, 8, 0), "without a descriptor"),
            (struct.pack("<IIII", 8, 1, 4, 0), "unpack"),
            (struct.pack("<III", 5, 1, 40) + memory_table([(0, 1, 0, 0)]), "1 regions"),
            (struct.pack("<III", 5, 1, 8) + struct.pack("<II", 9, 0), "9 regions"),
        ],
        ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
    )
    def test_a_breach_cuts_the_machine_off(
        self, machine: FakeMachine, backends: Backends, message: bytes, reason: str
    ) -> None:
        machine.send(message)
        wait_until_cut_off(machine)
        assert reason in backends.breaches[0]

    def test_a_file_that_nobody_can_wait_for_cuts_the_machine_off(
        self, machine: FakeMachine, backends: Backends, socket_folder: Path
    ) -> None:
        with (socket_folder / "file").open("wb") as file:
            machine.send(struct.pack("<IIIQ", 12, 1, 8, 0), [file.fileno()])
        wait_until_cut_off(machine)
        assert "not permitted" in backends.breaches[0]

    def test_half_a_message_and_an_end_cuts_the_machine_off(
        self, machine: FakeMachine, backends: Backends
    ) -> None:
        machine.send(struct.pack("<III", 2, 1, 8) + b"half")
        machine.connection.shutdown(socket.SHUT_WR)
        wait_until_cut_off(machine)
        assert "middle of a message" in backends.breaches[0]

    def test_no_descriptor_is_left_open(self, backends: Backends) -> None:
        before = set(Path("/proc/self/fd").iterdir())
        machine = FakeMachine(backends.nsm(lambda _: b"ok"), queues=1)
        machine.send(struct.pack("<III", 99, 1, 0), [0, 1, 2])
        wait_until_cut_off(machine)
        machine.end()
        deadline = time.monotonic() + 5
        while set(Path("/proc/self/fd").iterdir()) != before:
            assert time.monotonic() < deadline


def test_what_answers_for_the_nsm_and_fails_is_told(socket_folder: Path) -> None:
    def fail(_: bytes) -> bytes:
        raise ArithmeticError

    with Backends(socket_folder) as backends:
        with FakeMachine(backends.nsm(fail), queues=1) as machine:
            machine.offer(0, [b"request"])
            machine.offer(0, room=[16])
            machine.kick(0)
            deadline = time.monotonic() + 5
            while backends.failure is None:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        assert isinstance(backends.failure, ArithmeticError)


numbers = st.integers(0, (1 << 32) - 1)
headers = st.builds(
    Header,
    st.integers(0, (1 << 64) - 1),
    st.integers(0, (1 << 64) - 1),
    numbers,
    numbers,
    st.integers(0, MAX_PAYLOAD),
    st.integers(0, 65535),
    st.integers(0, 65535),
    numbers,
    numbers,
    numbers,
)


@given(head=headers, extra=st.integers(0, 100))
def test_a_packet_is_read_as_it_was_written(head: Header, extra: int) -> None:
    parsed, payload = Header.parse(head.encode() + bytes(head.length + extra))
    assert parsed == head
    assert len(payload) == head.length


@given(packet=st.binary(max_size=200))
def test_any_bytes_are_a_bounded_packet_or_refused(packet: bytes) -> None:
    try:
        head, payload = Header.parse(packet)
    except BackEndError:
        return
    assert len(payload) == head.length <= len(packet) - HEADER.size


@given(head=headers)
def test_both_ends_of_a_stream_call_it_the_same(head: Header) -> None:
    assert head.refusal().stream == head.stream
    assert head.refusal().refusal().destination_port == head.destination_port

"""A switch for virtio-vsock packets: every machine has a CID, and streams go between any two.

What a receiver has not taken yet is kept here. That is bounded by the credit that it has announced
for each stream, by the number of streams, and by what one machine may leave untaken in all.
"""

import selectors
import socket
import struct
from collections import deque
from dataclasses import replace
from typing import Final

from tests.vm.flow_control import Flow
from tests.vm.guest_memory import BackEndError
from tests.vm.vhost_user import Device
from tests.vm.vsock_packet import (
    HEADER,
    OP_REQUEST,
    OP_RST,
    TYPE_STREAM,
    Header,
    Stream,
    reset,
)

MAX_STREAMS: Final = 4096  # that one machine has asked for
MAX_QUEUED_BYTES: Final = 64 << 20
MAX_QUEUED_PACKETS: Final = 1 << 17

_RX, _TX = 0, 1  # virtio 1.2, section 5.10.2; the third is for events, of which there are none


class Switch:
    """Knows every machine's port, and every stream between two."""

    def __init__(self) -> None:
        self._ports: dict[int, VsockPort] = {}
        self._streams: dict[Stream, Flow] = {}

    def join(self, port: "VsockPort") -> None:
        """From now on packets reach this machine."""
        self._ports[port.cid] = port

    def leave(self, port: "VsockPort") -> None:
        """The machine is gone: every stream that it had is reset at the other end."""
        if self._ports.get(port.cid) is not port:
            return
        del self._ports[port.cid]
        for stream in [one for one in self._streams if port.cid in (one[0][0], one[1][0])]:
            peer = stream[1][0] if stream[0][0] == port.cid else stream[0][0]
            self._end(reset(stream, peer))

    def carry(self, header: Header, payload: memoryview | bytes) -> None:
        """Pass a packet on, or end its stream where it cannot be.

        Raises:
            BackEndError: the sender asks for resets and takes none.
        """
        target = self._ports.get(header.destination_cid)
        if header.kind != TYPE_STREAM or target is None or not target.open:
            self._refuse(header)
        elif header.operation == OP_RST:
            self._end(header)
        elif target.full or not self._allowed(header):
            self._end(header.refusal().refusal())
            self._refuse(header)
        else:
            target.deliver(header, payload)

    def _allowed(self, header: Header) -> bool:
        """Whether the packet asks for a stream, or belongs to one and is within its credit."""
        flow = self._streams.get(header.stream)
        if flow is None:
            cid = header.source_cid
            if header.operation != OP_REQUEST or self._asked_for(cid) >= MAX_STREAMS:
                return False
            flow = self._streams[header.stream] = Flow(header)
        return flow.within_credit(header)

    def _asked_for(self, cid: int) -> int:
        return sum(flow.opener == cid for flow in self._streams.values())

    def _end(self, last: Header) -> None:
        """Forget a stream, and let this reset reach the machine that still believes in it."""
        known = self._streams.pop(last.stream, None)
        if known is not None and last.destination_cid in self._ports:
            self._ports[last.destination_cid].deliver(last, b"")

    def _refuse(self, header: Header) -> None:
        sender = self._ports.get(header.source_cid)
        self._streams.pop(header.stream, None)
        if sender is None or header.operation == OP_RST:
            return
        if sender.full:
            raise BackEndError(f"CID {sender.cid} asks for resets and takes none")
        sender.deliver(header.refusal(), b"")


class VsockPort(Device):
    """One machine's virtio-vsock device."""

    queues = 3

    def __init__(
        self,
        connection: socket.socket,
        selector: selectors.BaseSelector,
        *,
        cid: int,
        switch: Switch,
    ) -> None:
        self.config = struct.pack("<Q", cid)  # virtio 1.2, section 5.10.4
        super().__init__(connection, selector)
        self.cid = cid
        self._switch = switch
        self._waiting: deque[tuple[Header, memoryview | bytes]] = deque()
        self._waiting_bytes = 0
        switch.join(self)

    @property
    def open(self) -> bool:
        """Whether the machine's driver receives."""
        return self.queue(_RX) is not None

    @property
    def full(self) -> bool:
        """Whether the machine leaves more untaken than credit allows."""
        return self._waiting_bytes > MAX_QUEUED_BYTES or len(self._waiting) > MAX_QUEUED_PACKETS

    def kicked(self, index: int) -> None:
        """Carry what the machine sends, or go on with what it has now room for."""
        if index == _TX:
            self._carry_all()
        elif index == _RX:
            self._flush()

    def gone(self) -> None:
        """The machine's streams end with it."""
        self._waiting.clear()
        self._switch.leave(self)

    def deliver(self, header: Header, payload: memoryview | bytes) -> None:
        """Give the machine a packet, now or as soon as it has room."""
        self._waiting.append((header, payload))
        self._waiting_bytes += len(payload)
        try:
            self._flush()
        except (BackEndError, OSError) as error:  # this machine's fault, whoever sends
            self.fail(error)

    def _carry_all(self) -> None:
        taken = False
        for queue, chain in self.offered(_TX):
            packet = chain.read()
            queue.push(chain, 0)
            taken = True
            header, payload = Header.parse(packet)
            if header.source_cid != self.cid:
                raise BackEndError(f"CID {self.cid} sends as CID {header.source_cid}")
            self._switch.carry(header, payload)
        if taken:
            self.interrupt(_TX)

    def _flush(self) -> None:
        queue = self.queue(_RX)
        given = False
        while self._waiting and queue is not None and (chain := queue.pop()) is not None:
            if chain.room <= HEADER.size:
                raise BackEndError(f"a buffer of {chain.room} bytes for packets")
            header, payload = self._waiting.popleft()
            part = payload[: chain.room - HEADER.size]
            rest = payload[len(part) :]
            if len(rest):
                self._waiting.appendleft((header, rest))
            self._waiting_bytes -= len(part)
            # Flags say what comes after the packet, and so they belong to its last piece.
            flags = 0 if len(rest) else header.flags
            written = chain.write(replace(header, length=len(part), flags=flags).encode(), part)
            queue.push(chain, written)
            given = True
        if given:
            self.interrupt(_RX)

"""A switch for virtio-vsock packets: every machine has a CID, and streams go between any two.

Flow control is the machines' own (virtio 1.2, section 5.10.6.3): a receiver announces its buffer,
and a well-behaved sender stays within it. The switch keeps what a receiver has not taken yet, up to
a bound that such senders never reach.
"""

import selectors
import socket
import struct
from collections import deque
from dataclasses import replace
from typing import Final

from tests.vm.guest_memory import BackEndError
from tests.vm.vhost_user import Device
from tests.vm.vsock_packet import HEADER, OP_RST, TYPE_STREAM, Header, Stream, reset

MAX_QUEUED_BYTES: Final = 64 << 20
MAX_QUEUED_PACKETS: Final = 1 << 17

_RX, _TX = (
    0,
    1,
)  # virtio 1.2, section 5.10.2; the third queue is for events, of which there are none


class Switch:
    """Knows every machine's port, and every stream between two."""

    def __init__(self) -> None:
        self._ports: dict[int, VsockPort] = {}
        self._streams: set[Stream] = set()

    def join(self, port: "VsockPort") -> None:
        """From now on packets reach this machine."""
        self._ports[port.cid] = port

    def leave(self, port: "VsockPort") -> None:
        """The machine is gone: every stream that it had is reset at the other end."""
        if self._ports.get(port.cid) is not port:
            return
        del self._ports[port.cid]
        for stream in [one for one in self._streams if port.cid in (one[0][0], one[1][0])]:
            self._streams.discard(stream)
            peer = stream[1][0] if stream[0][0] == port.cid else stream[0][0]
            if peer in self._ports:
                self._ports[peer].deliver(reset(stream, peer), b"")

    def carry(self, header: Header, payload: memoryview | bytes) -> None:
        """Pass a packet on, or answer with a reset where it cannot be."""
        target = self._ports.get(header.destination_cid)
        if header.kind == TYPE_STREAM and target is not None and target.open:
            if target.full:  # it takes nothing, and its senders do not mind its credit
                self._refuse(header)
                return
            if header.operation == OP_RST:
                self._streams.discard(header.stream)
            else:
                self._streams.add(header.stream)
            target.deliver(header, payload)
        elif header.operation != OP_RST:
            self._refuse(header)

    def _refuse(self, header: Header) -> None:
        self._streams.discard(header.stream)
        if sender := self._ports.get(header.source_cid):
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
        except BackEndError as error:  # this machine's fault, whoever sends
            self.fail(error)

    def _carry_all(self) -> None:
        queue = self.queue(_TX)
        taken = False
        while queue is not None and not self.closed and (chain := queue.pop()) is not None:
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
            written = chain.write(replace(header, length=len(part)).encode(), part)
            queue.push(chain, written)
            given = True
        if given:
            self.interrupt(_RX)

"""The devices behind the machines: vsock by a switch that knows every CID, and the NSM."""

import selectors
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from tests.vm.programs import LabError
from tests.vm.vhost_user import Device
from tests.vm.virtqueue import Chain

HEADER: Final = struct.Struct("<QQIIIHHIII")
STREAM: Final = 1  # VIRTIO_VSOCK_TYPE_STREAM
REQUEST, RESPONSE, RST, SHUTDOWN, RW = range(1, 6)  # VIRTIO_VSOCK_OP_*

_RX, _TX = 0, 1  # virtio 1.2, section 5.10.2; the third queue is for events, which never come


class Header(NamedTuple):
    """The header of a virtio-vsock packet (virtio 1.2, section 5.10.6)."""

    source_cid: int
    destination_cid: int
    source_port: int
    destination_port: int
    length: int
    kind: int
    operation: int
    flags: int
    buffer_size: int
    forwarded: int

    @property
    def stream(self) -> frozenset[tuple[int, int]]:
        """Both ends of the packet's stream, each CID and port."""
        return frozenset(
            {(self.source_cid, self.source_port), (self.destination_cid, self.destination_port)}
        )

    def reset(self) -> "Header":
        """Return the reset that answers this packet."""
        ports = self.destination_port, self.source_port
        return Header(self.destination_cid, self.source_cid, *ports, 0, self.kind, RST, 0, 0, 0)


class Switch:
    """Carries packets between machines by CID.

    The kernels at both ends keep to each other's credit, which bounds what waits here.
    """

    def __init__(self) -> None:
        self.ports: dict[int, VsockPort] = {}
        self._requests: dict[frozenset[tuple[int, int]], Header] = {}  # of the open streams

    def carry(self, header: Header, payload: bytes) -> None:
        """Pass a packet on, or reset its stream where there is nobody to take it."""
        target = self.ports.get(header.destination_cid)
        if target is None or not target.ready or header.kind != STREAM:
            self._requests.pop(header.stream, None)
            if header.operation != RST:
                self.ports[header.source_cid].deliver(header.reset())
            return
        if header.operation == REQUEST:
            self._requests[header.stream] = header
        elif header.operation == RST:
            self._requests.pop(header.stream, None)
        target.deliver(header, payload)

    def leave(self, port: "VsockPort") -> None:
        """Forget a machine that has ended, and reset its streams at their other ends."""
        del self.ports[port.cid]
        for stream, request in list(self._requests.items()):
            if port.cid in (request.source_cid, request.destination_cid):
                del self._requests[stream]
                last = request.reset()
                last = last if last.source_cid == port.cid else last.reset()
                if last.destination_cid in self.ports:
                    self.ports[last.destination_cid].deliver(last)


class VsockPort(Device):
    """One machine's virtio-vsock device."""

    queues = 3

    def __init__(
        self, connection: socket.socket, selector: selectors.BaseSelector, cid: int, switch: Switch
    ) -> None:
        """Join the switch as `cid`."""
        self.cid = cid
        self.config = struct.pack("<Q", cid)  # virtio 1.2, section 5.10.4
        self._switch = switch
        self._waiting: deque[tuple[Header, bytes]] = deque()
        switch.ports[cid] = self
        super().__init__(connection, selector)

    @property
    def ready(self) -> bool:
        """Whether the machine's driver receives packets."""
        return self.queue(_RX) is not None

    def close(self) -> None:
        """Leave the switch too."""
        if self._switch.ports.get(self.cid) is self:
            self._switch.leave(self)
        super().close()

    def kicked(self, index: int) -> None:
        """Carry what the machine sends, or go on with what it now has room for."""
        if index == _TX:
            self._carry_all()
        elif index == _RX:
            self._flush()

    def deliver(self, header: Header, payload: bytes = b"") -> None:
        """Give the machine a packet, now or as soon as it has room."""
        self._waiting.append((header, payload))
        self._flush()

    def _carry_all(self) -> None:
        queue = self.queue(_TX)
        while queue is not None and (chain := queue.pop()) is not None:
            queue.push(chain, 0)
            header = Header(*HEADER.unpack_from(chain.data))
            payload = chain.data[HEADER.size :]
            if header.source_cid != self.cid:
                raise LabError(f"CID {self.cid} sends as CID {header.source_cid}")
            if header.length != len(payload):
                raise LabError(f"a packet of {header.length} bytes has {len(payload)}")
            self._switch.carry(header, payload)
        self.interrupt(_TX)

    def _flush(self) -> None:
        queue = self.queue(_RX)
        while self._waiting and queue is not None and (chain := queue.pop()) is not None:
            header, payload = self._waiting.popleft()
            part, rest = (
                payload[: chain.room - HEADER.size],
                payload[chain.room - HEADER.size :],
            )
            if rest:
                self._waiting.appendleft((header, rest))
            # Flags say what comes after the packet, so only its last piece has them.
            piece = header._replace(length=len(part), flags=0 if rest else header.flags)
            queue.push(chain, chain.write(HEADER.pack(*piece) + part))
            self.interrupt(_RX)


class NsmPort(Device):
    """One machine's Nitro Secure Module.

    The driver (linux drivers/misc/nsm.c) puts two chains in the one queue: the request, and then
    room for the response. It wants both back when it is interrupted.
    """

    queues = 1

    def __init__(
        self,
        connection: socket.socket,
        selector: selectors.BaseSelector,
        exchange: Callable[[bytes], bytes],
    ) -> None:
        """Answer requests by `exchange`."""
        super().__init__(connection, selector)
        self._exchange = exchange
        self._request: Chain | None = None

    def kicked(self, index: int) -> None:
        """Answer every request whose response has room."""
        queue = self.queue(index)
        while queue is not None and (chain := queue.pop()) is not None:
            if self._request is None:
                self._request = chain
                continue
            written = chain.write(self._exchange(self._request.data))
            queue.push(self._request, 0)
            queue.push(chain, written)
            self._request = None
            self.interrupt(index)

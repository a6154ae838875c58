"""The back end's side of vhost-user: one machine's virtio device, on one unix socket.

Messages and their numbers are those of QEMU's docs/interop/vhost-user.rst.
"""

import contextlib
import os
import selectors
import socket
import struct
from dataclasses import dataclass
from typing import Final

from tests.vm.programs import LabError
from tests.vm.virtqueue import GuestMemory, Region, Virtqueue

_HEADER: Final = struct.Struct("<III")  # request, flags, size of the payload
_VERSION: Final = 1
_REPLY: Final = 1 << 2
# VIRTIO_F_VERSION_1 and VHOST_USER_F_PROTOCOL_FEATURES
_FEATURES: Final = (1 << 32) | (1 << 30)
_MQ, _CONFIG = 1 << 0, 1 << 9  # VHOST_USER_PROTOCOL_F_*
_MAX_FILES: Final = 8
_RING_REQUESTS: Final = (8, 9, 10, 11, 12, 13, 18)


@dataclass(slots=True)
class _Ring:
    """What QEMU has said of one queue so far."""

    size: int = 0
    addresses: tuple[int, int, int] = (0, 0, 0)
    position: int = 0
    enabled: bool = False
    kick: int = -1
    call: int = -1
    queue: Virtqueue | None = None


class Device:
    """A virtio device; subclasses say what it does when its driver kicks a queue."""

    queues: int
    config: bytes = b""

    def __init__(self, connection: socket.socket, selector: selectors.BaseSelector) -> None:
        """Serve QEMU at the other end of `connection`, which the device closes.

        The selector's keys have as `data` the device and what to call when they are ready.
        """
        connection.settimeout(5.0)  # for the rest of a message that has begun
        self._connection = connection
        self._selector = selector
        self._memory: GuestMemory | None = None
        self._rings = [_Ring() for _ in range(self.queues)]
        self._closed = False
        selector.register(connection, selectors.EVENT_READ, (self, self._message))

    def kicked(self, index: int) -> None:
        """The driver has offered chains in a queue, or the queue has become ready."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the machine."""
        if self._closed:
            return
        self._closed = True
        self._selector.unregister(self._connection)
        self._connection.close()
        self._memory = None
        for ring in self._rings:
            self._stop(ring)
            if ring.call >= 0:
                os.close(ring.call)

    def queue(self, index: int) -> Virtqueue | None:
        """Return a queue, once it is set up and enabled."""
        ring = self._rings[index]
        if not ring.enabled or ring.kick < 0 or self._memory is None:
            return None
        if ring.queue is None:
            ring.queue = Virtqueue(self._memory, ring.size, ring.addresses, ring.position)
        return ring.queue

    def interrupt(self, index: int) -> None:
        """Tell the driver that chains were given back."""
        os.eventfd_write(self._rings[index].call, 1)

    def _message(self) -> None:
        try:
            head, files, _, _ = socket.recv_fds(self._connection, _HEADER.size, _MAX_FILES)
        except ConnectionResetError:
            head, files = b"", []
        if not head:  # QEMU has ended
            self.close()
            return
        try:
            request, _, size = _HEADER.unpack(head)
            payload = self._connection.recv(size, socket.MSG_WAITALL) if size else b""
            answer = self._take(request, payload, files)
            if answer is not None:
                header = _HEADER.pack(request, _VERSION | _REPLY, len(answer))
                self._connection.sendall(header + answer)
        finally:
            for file in files:
                os.close(file)

    def _take(self, request: int, payload: bytes, files: list[int]) -> bytes | None:
        """Act on a message, and return the answer; takes from `files` what it keeps."""
        if request in _RING_REQUESTS:
            return self._take_of_ring(request, payload, files)
        if request == 5:  # SET_MEM_TABLE
            self._set_memory(payload, files)
        elif request == 24:  # GET_CONFIG
            offset, size, flags = struct.unpack_from("<III", payload)
            part = self.config[offset : offset + size]
            return struct.pack("<III", offset, len(part), flags) + part
        elif request in (1, 15, 17):  # GET_FEATURES, _PROTOCOL_FEATURES, _QUEUE_NUM
            protocol = _MQ | (_CONFIG if self.config else 0)
            return _u64({1: _FEATURES, 15: protocol, 17: self.queues}[request])
        elif request not in (2, 3, 14, 16):  # SET_FEATURES, _OWNER, _VRING_ERR, _PROTOCOL_FEATURES
            raise LabError(f"vhost-user request {request} was not negotiated")
        return None

    def _take_of_ring(self, request: int, payload: bytes, files: list[int]) -> bytes | None:
        index = payload[0]
        value = struct.unpack_from("<I", payload, 4)[0]
        ring = self._rings[index]
        match request:
            case 8:  # SET_VRING_NUM
                ring.size = value
            case 9:  # SET_VRING_ADDR: descriptors, used, available
                ring.addresses = struct.unpack_from("<QQQ", payload, 8)
            case 10:  # SET_VRING_BASE
                ring.position = value
            case 11:  # GET_VRING_BASE, which stops the queue
                self._stop(ring)
                return struct.pack("<II", index, ring.position)
            case 12:  # SET_VRING_KICK
                self._set_kick(index, files.pop())
            case 13:  # SET_VRING_CALL
                if ring.call >= 0:
                    os.close(ring.call)
                ring.call = files.pop() if files else -1
            case 18:  # SET_VRING_ENABLE
                ring.enabled = bool(value)
                self._kick(index)
        return None

    def _set_memory(self, payload: bytes, files: list[int]) -> None:
        count = struct.unpack_from("<I", payload)[0]
        regions = [Region(*struct.unpack_from("<QQQQ", payload, 8 + 32 * i)) for i in range(count)]
        self._memory = GuestMemory(regions, files)
        for ring in self._rings:
            _forget_queue(ring)

    def _set_kick(self, index: int, kick: int) -> None:
        ring = self._rings[index]
        enabled = ring.enabled
        self._stop(ring)
        ring.kick, ring.enabled = kick, enabled
        os.set_blocking(kick, False)
        self._selector.register(
            kick, selectors.EVENT_READ, (self, lambda: self._kick(index, read=True))
        )
        self._kick(index)

    def _kick(self, index: int, *, read: bool = False) -> None:
        if read:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._rings[index].kick)
        if self.queue(index) is not None:
            self.kicked(index)

    def _stop(self, ring: _Ring) -> None:
        _forget_queue(ring)
        if ring.kick >= 0:
            self._selector.unregister(ring.kick)
            os.close(ring.kick)
        ring.kick, ring.enabled = -1, False


def _forget_queue(ring: _Ring) -> None:
    """Drop the views of the machine's memory, and keep the position."""
    if ring.queue is not None:
        ring.position = ring.queue.position
        ring.queue = None


def _u64(value: int) -> bytes:
    return struct.pack("<Q", value)

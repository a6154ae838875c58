"""The back end's side of vhost-user: one machine's device, on one unix socket.

Messages, numbers and their order are those of QEMU's docs/interop/vhost-user.rst.
"""

import array
import contextlib
import logging
import os
import selectors
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from tests.vm.guest_memory import MAX_REGIONS, BackEndError, GuestMemory, Region
from tests.vm.virtqueue import Chain, RingAddresses, Virtqueue

MAX_MESSAGE: Final = 4096

_log = logging.getLogger(__name__)

_HEADER: Final = struct.Struct("<III")  # request, flags, size of the payload
_VERSION: Final = 1
_REPLY: Final = 1 << 2
_NEED_REPLY: Final = 1 << 3
_F_VERSION_1: Final = 1 << 32  # VIRTIO_F_VERSION_1
_F_PROTOCOL: Final = 1 << 30  # VHOST_USER_F_PROTOCOL_FEATURES
_P_MQ, _P_REPLY_ACK, _P_CONFIG = 1 << 0, 1 << 3, 1 << 9
_NO_DESCRIPTOR: Final = 1 << 8

Take = Callable[[bytes, list[int]], bytes | None]


@dataclass(slots=True)
class _Ring:
    """What QEMU has said of one queue so far."""

    size: int = 0
    addresses: RingAddresses | None = None
    next_available: int = 0
    enabled: bool = False
    kick: int = -1
    call: int = -1
    queue: Virtqueue | None = None


class Device:
    """A virtio device of one machine; subclasses say what it does when it is kicked.

    All of its methods run in the thread that the selector's owner gives them.
    """

    queues: int
    config: bytes = b""

    def __init__(self, connection: socket.socket, selector: selectors.BaseSelector) -> None:
        """A device whose machine is at the other end of `connection`, which it closes."""
        self._connection = connection
        self._selector = selector
        self._memory: GuestMemory | None = None
        self._rings = [_Ring() for _ in range(self.queues)]
        self.closed = False
        self.breach: str | None = None
        protocol = _P_MQ | _P_REPLY_ACK | (_P_CONFIG if self.config else 0)
        self._offered = {"features": _F_VERSION_1 | _F_PROTOCOL, "protocol": protocol}
        self._requests: dict[int, Take] = {
            1: lambda *_: _u64(self._offered["features"]),  # GET_FEATURES
            2: lambda payload, _: self._accept(payload, "features"),  # SET_FEATURES
            3: lambda *_: None,  # SET_OWNER
            5: self._set_memory,
            8: self._set_size,
            9: self._set_addresses,
            10: self._set_base,
            11: self._get_base,
            12: self._set_kick,
            13: self._set_call,
            14: lambda *_: None,  # SET_VRING_ERR
            15: lambda *_: _u64(self._offered["protocol"]),  # GET_PROTOCOL_FEATURES
            16: lambda payload, _: self._accept(payload, "protocol"),  # SET_PROTOCOL_FEATURES
            17: lambda *_: _u64(self.queues),  # GET_QUEUE_NUM
            18: self._set_enabled,
            24: self._get_config,
        }
        connection.settimeout(5.0)  # a message, once begun, is all there in no time
        selector.register(connection, selectors.EVENT_READ, self._guarded(self._message))

    def kicked(self, index: int) -> None:
        """The driver has offered chains in a queue, or the queue has become ready."""
        raise NotImplementedError

    def stopped(self, index: int) -> None:
        """The driver has stopped a queue, and will not see what was taken from it given back."""

    def gone(self) -> None:
        """The machine has ended, or has broken the protocol."""

    def queue(self, index: int) -> Virtqueue | None:
        """A queue, once it is set up and enabled."""
        ring = self._rings[index]
        if ring.queue is None and self._ready(ring) and self._memory and ring.addresses:
            ring.queue = Virtqueue(self._memory, ring.size, ring.addresses, ring.next_available)
        return ring.queue if self._ready(ring) else None

    def offered(self, index: int) -> Iterator[tuple[Virtqueue, Chain]]:
        """The chains that a queue offers now, with the queue.

        At most as many as it has descriptors: a driver that offers without end has its next turn
        after all others.
        """
        queue = self.queue(index)
        for _ in range(self._rings[index].size):
            if queue is None or self.closed or (chain := queue.pop()) is None:
                return
            yield queue, chain
        if not self.closed:
            with contextlib.suppress(BlockingIOError):  # it is kicked already
                os.eventfd_write(self._rings[index].kick, 1)

    def interrupt(self, index: int) -> None:
        """Tell the driver that chains were given back, if it wants to know."""
        ring = self._rings[index]
        if ring.queue is not None and ring.queue.wants_interrupt and ring.call >= 0:
            with contextlib.suppress(BlockingIOError):  # it has been told already
                os.eventfd_write(ring.call, 1)

    def fail(self, error: Exception) -> None:
        """Note that the machine has broken the protocol, and let go of it."""
        self.breach = self.breach or str(error)
        _log.warning("a machine is cut off: %s", error)
        self.close()

    def close(self) -> None:
        """Let go of the machine: its socket, its memory and its descriptors."""
        if self.closed:
            return
        self.closed = True
        self._selector.unregister(self._connection)
        self._connection.close()
        for ring in self._rings:
            self._stop(ring)
            if ring.call >= 0:
                os.close(ring.call)
        if self._memory is not None:
            self._memory.close()
        self.gone()

    def _guarded(self, action: Callable[[], None]) -> Callable[[], None]:
        """The action, with whatever this machine does wrong as the end of this machine alone."""

        def guarded() -> None:
            try:
                if not self.closed:
                    action()
            except (BackEndError, OSError, struct.error) as error:
                self.fail(error)

        return guarded

    @staticmethod
    def _ready(ring: _Ring) -> bool:
        return ring.enabled and ring.kick >= 0 and ring.addresses is not None and ring.size > 0

    def _message(self) -> None:
        files: list[int] = []
        try:
            received = self._receive(files)
            if received is None:
                self.close()
                return
            request, flags, payload = received
            take = self._requests.get(request)
            if take is None:
                raise BackEndError(f"request {request} was not negotiated")
            answer = take(payload, files)
            if answer is None and flags & _NEED_REPLY:
                answer = _u64(0)
            if answer is not None:
                header = _HEADER.pack(request, _VERSION | _REPLY, len(answer))
                self._connection.sendall(header + answer)
        finally:
            for file in files:
                os.close(file)

    def _receive(self, files: list[int]) -> tuple[int, int, bytes] | None:
        space = socket.CMSG_SPACE(MAX_REGIONS * array.array("i").itemsize)
        head, ancillary, _, _ = self._connection.recvmsg(_HEADER.size, space)
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                numbers = array.array("i")
                numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
                files += numbers
        if not head:
            return None
        head += self._exactly(_HEADER.size - len(head))
        request, flags, size = _HEADER.unpack(head)
        if size > MAX_MESSAGE or flags & 3 != _VERSION:
            raise BackEndError(f"a message of {size} bytes with flags {flags:#x}")
        return request, flags, self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._connection.recv(size - len(data))
            if not part:
                raise BackEndError("QEMU's connection ends in the middle of a message")
            data += part
        return data

    def _accept(self, payload: bytes, kind: str) -> None:
        (accepted,) = struct.unpack("<Q", payload)
        if accepted & ~self._offered[kind]:
            raise BackEndError(f"{kind} {accepted:#x} were not offered")

    def _set_memory(self, payload: bytes, files: list[int]) -> None:
        (count,) = struct.unpack_from("<I", payload)
        if count > MAX_REGIONS:
            raise BackEndError(f"{count} regions of memory")
        regions = [Region(*struct.unpack_from("<QQQQ", payload, 8 + 32 * i)) for i in range(count)]
        old, self._memory = self._memory, GuestMemory(regions, files)
        for ring in self._rings:
            if ring.queue is not None:
                ring.next_available = ring.queue.next_available
                ring.queue = None
        if old is not None:
            old.close()

    def _set_size(self, payload: bytes, _: list[int]) -> None:
        index, size = struct.unpack("<II", payload)
        self._ring(index).size = size

    def _set_addresses(self, payload: bytes, _: list[int]) -> None:
        index, _flags, descriptors, used, available, _log = struct.unpack("<IIQQQQ", payload)
        self._ring(index).addresses = RingAddresses(descriptors, used, available)

    def _set_base(self, payload: bytes, _: list[int]) -> None:
        index, base = struct.unpack("<II", payload)
        self._ring(index).next_available = base

    def _get_base(self, payload: bytes, _: list[int]) -> bytes:
        """The machine stops the queue: where it would go on."""
        (index,) = struct.unpack_from("<I", payload)
        ring = self._ring(index)
        if ring.queue is not None:
            ring.next_available = ring.queue.next_available
        self._stop(ring)
        self.stopped(index)
        return struct.pack("<II", index, ring.next_available)

    def _set_kick(self, payload: bytes, files: list[int]) -> None:
        index, ring = self._of_file(payload)
        if len(files) != 1:
            raise BackEndError("a queue without a descriptor to kick it by")
        self._stop(ring, keep_enabled=True)
        os.set_blocking(files[0], False)
        kick = self._guarded(lambda: self._kick(index))
        self._selector.register(files[0], selectors.EVENT_READ, kick)  # refuses ordinary files
        ring.kick = files.pop()
        self._kicked_if_ready(index)

    def _set_call(self, payload: bytes, files: list[int]) -> None:
        _, ring = self._of_file(payload)
        if ring.call >= 0:
            os.close(ring.call)
        ring.call = files.pop() if files else -1
        if ring.call >= 0:
            os.set_blocking(ring.call, False)

    def _set_enabled(self, payload: bytes, _: list[int]) -> None:
        index, enabled = struct.unpack("<II", payload)
        self._ring(index).enabled = bool(enabled)
        self._kicked_if_ready(index)

    def _get_config(self, payload: bytes, _: list[int]) -> bytes:
        offset, size, flags = struct.unpack_from("<III", payload)
        part = self.config[offset : offset + size]
        return struct.pack("<III", offset, len(part), flags) + part

    def _of_file(self, payload: bytes) -> tuple[int, _Ring]:
        (value,) = struct.unpack("<Q", payload)
        index = value & 0xFF
        return index, self._ring(index)

    def _ring(self, index: int) -> _Ring:
        if index >= len(self._rings):
            raise BackEndError(f"queue {index} of {len(self._rings)}")
        return self._rings[index]

    def _kick(self, index: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._rings[index].kick)
        self._kicked_if_ready(index)

    def _kicked_if_ready(self, index: int) -> None:
        if self.queue(index) is not None:
            self.kicked(index)

    def _stop(self, ring: _Ring, *, keep_enabled: bool = False) -> None:
        if ring.queue is not None:
            ring.next_available = ring.queue.next_available
            ring.queue = None
        if ring.kick >= 0:
            self._selector.unregister(ring.kick)
            os.close(ring.kick)
            ring.kick = -1
        ring.enabled = ring.enabled and keep_enabled


def _u64(value: int) -> bytes:
    return struct.pack("<Q", value)

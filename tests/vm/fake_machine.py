"""The other side of vhost-user, for tests: QEMU and a driver, with memory of their own."""

import mmap
import os
import select
import socket
import struct
from collections.abc import Sequence
from typing import Final, Self

MEMORY: Final = 4 << 20
GUEST: Final = 0x4000_0000
USER: Final = 0x7F00_0000_0000
QUEUE_SIZE: Final = 8
SECONDS: Final = 5.0

_QUEUE_BYTES: Final = 0x4000
_AVAILABLE: Final = 0x1000
_USED: Final = 0x2000
_BUFFERS: Final = 4 * _QUEUE_BYTES
_NEXT, _WRITE = 1, 2


class FakeMachine:
    """One device's driver, and the QEMU that tells the back end of it."""

    def __init__(self, connection: socket.socket, *, queues: int, enabled: bool = True) -> None:
        """All queues are set up."""
        self._connection = connection
        connection.settimeout(SECONDS)
        file = os.memfd_create("machine")
        os.ftruncate(file, MEMORY)
        self.memory = mmap.mmap(file, MEMORY)
        self._free = _BUFFERS
        self._offered = [0] * queues
        self._taken = [0] * queues
        self._descriptors = [0] * queues
        self._rooms: list[dict[int, list[tuple[int, int]]]] = [{} for _ in range(queues)]
        self._kicks = [os.eventfd(0) for _ in range(queues)]
        self._calls = [os.eventfd(0) for _ in range(queues)]
        region = struct.pack("<QQQQ", GUEST, MEMORY, USER, 0)
        self.tell(5, struct.pack("<II", 1, 0) + region, [file])
        os.close(file)
        for index in range(queues):
            base = USER + index * _QUEUE_BYTES
            rings = struct.pack("<QQQQ", base, base + _USED, base + _AVAILABLE, 0)
            self.tell(8, struct.pack("<II", index, QUEUE_SIZE))
            self.tell(10, struct.pack("<II", index, 0))
            self.tell(9, struct.pack("<II", index, 0) + rings)
            self.tell(13, struct.pack("<Q", index), [self._calls[index]])
            self.tell(12, struct.pack("<Q", index), [self._kicks[index]])
            self.tell(18, struct.pack("<II", index, enabled))
        self.ask(1)  # once it is answered, all before it is done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End as when QEMU is killed."""
        self._connection.close()
        self.memory.close()
        for descriptor in (*self._kicks, *self._calls):
            os.close(descriptor)
        self._kicks, self._calls = [], []

    def tell(self, request: int, payload: bytes = b"", files: Sequence[int] = ()) -> None:
        """Send a message that has no answer."""
        message = struct.pack("<III", request, 1, len(payload)) + payload
        socket.send_fds(self._connection, [message], files)

    def ask(self, request: int, payload: bytes = b"") -> bytes:
        """Send a message, and return its answer's payload."""
        self.tell(request, payload)
        answer = self._connection.recv(4096)
        assert struct.unpack("<III", answer[:12]) == (request, 5, len(answer) - 12)
        return answer[12:]

    @property
    def is_cut_off(self) -> bool:
        """Whether the back end closes the connection; waits for it."""
        try:
            return not self._connection.recv(1)
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def offer(self, queue: int, readable: Sequence[bytes] = (), room: Sequence[int] = ()) -> None:
        """Offer a chain, and kick the queue."""
        parts = [(self._place(data), len(data), 0) for data in readable]
        parts += [(self._place(bytes(length)), length, _WRITE) for length in room]
        first = self._descriptors[queue]
        self._descriptors[queue] += len(parts)
        for number, (address, length, flags) in enumerate(parts, start=first):
            more = _NEXT if number < first + len(parts) - 1 else 0
            self.describe(queue, number, GUEST + address, length, flags | more)
        head = first % QUEUE_SIZE
        self._rooms[queue][head] = [(place, size) for place, size, flags in parts if flags]
        start = queue * _QUEUE_BYTES + _AVAILABLE
        slot = self._offered[queue] % QUEUE_SIZE
        struct.pack_into("<H", self.memory, start + 4 + 2 * slot, head)
        self._offered[queue] += 1
        struct.pack_into("<H", self.memory, start + 2, self._offered[queue])
        os.eventfd_write(self._kicks[queue], 1)

    def describe(self, queue: int, number: int, address: int, length: int, flags: int) -> None:
        """Write one descriptor, whatever it says; the next one follows it."""
        start = queue * _QUEUE_BYTES + 16 * (number % QUEUE_SIZE)
        following = (number + 1) % QUEUE_SIZE
        struct.pack_into("<QIHH", self.memory, start, address, length, flags, following)

    def take(self, queue: int) -> bytes:
        """Return what the device wrote into the next chain that it gives back; waits for it."""
        start = queue * _QUEUE_BYTES + _USED
        while struct.unpack_from("<H", self.memory, start + 2)[0] == self._taken[queue]:
            ready, _, _ = select.select([self._calls[queue]], [], [], SECONDS)
            assert ready, "no interrupt comes"
            os.eventfd_read(self._calls[queue])
        slot = self._taken[queue] % QUEUE_SIZE
        head, written = struct.unpack_from("<II", self.memory, start + 4 + 8 * slot)
        self._taken[queue] += 1
        places = self._rooms[queue][head]
        return b"".join(self.memory[place : place + size] for place, size in places)[:written]

    def _place(self, data: bytes) -> int:
        place = self._free
        self._free += len(data)
        self.memory[place : place + len(data)] = data
        return place

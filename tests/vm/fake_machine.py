"""The other side of vhost-user, for tests: QEMU and a driver, with memory of their own."""

import array
import mmap
import os
import select
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

MEMORY: Final = 4 << 20
GUEST: Final = 0x4000_0000
USER: Final = 0x7F00_0000_0000
QUEUE_SIZE: Final = 64
SECONDS: Final = 5.0

_QUEUE_BYTES: Final = 0x4000
_AVAILABLE: Final = 0x1000
_USED: Final = 0x2000
_BUFFERS: Final = 4 * _QUEUE_BYTES
_NEXT, _WRITE = 1, 2
_FEATURES: Final = (1 << 32) | (1 << 30)


class FakeMachine:
    """One device's driver, and the QEMU that tells the back end of it."""

    def __init__(self, path: Path, *, queues: int, enabled: bool = True) -> None:
        """Connected, with all queues set up."""
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.settimeout(SECONDS)
        self.connection.connect(str(path))
        file = os.memfd_create("machine")
        os.ftruncate(file, MEMORY)
        self.memory = mmap.mmap(file, MEMORY)
        self._free = _BUFFERS
        self._offered = [0] * queues
        self._taken = [0] * queues
        self._descriptors = [0] * queues
        self._rooms: list[dict[int, list[tuple[int, int]]]] = [{} for _ in range(queues)]
        self._kicks = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(queues)]
        self.calls = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(queues)]
        self.features = self.ask(1)
        self.tell(2, struct.pack("<Q", _FEATURES))
        self.protocol = self.ask(15)
        self.tell(16, struct.pack("<Q", self.protocol))
        self.tell(3)
        self.tell(5, memory_table([(GUEST, MEMORY, USER, 0)]), [file])
        os.close(file)
        for index in range(queues):
            self.set_up(index, enabled=enabled)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """As when QEMU is killed."""
        self.connection.close()
        self.memory.close()
        for descriptor in (*self._kicks, *self.calls):
            os.close(descriptor)
        self._kicks, self.calls = [], []

    def set_up(self, index: int, *, enabled: bool) -> None:
        base = USER + index * _QUEUE_BYTES
        self.tell(8, struct.pack("<II", index, QUEUE_SIZE))
        self.tell(10, struct.pack("<II", index, 0))
        self.tell(9, struct.pack("<IIQQQQ", index, 0, base, base + _USED, base + _AVAILABLE, 0))
        self.tell(13, struct.pack("<Q", index), [self.calls[index]])
        self.tell(12, struct.pack("<Q", index), [self._kicks[index]])
        if enabled:
            self.tell(18, struct.pack("<II", index, 1))

    def start(self, index: int) -> None:
        """Go on with a queue that was stopped."""
        self.tell(12, struct.pack("<Q", index), [self._kicks[index]])
        self.tell(18, struct.pack("<II", index, 1))

    def tell(self, request: int, payload: bytes = b"", files: Sequence[int] = ()) -> None:
        """Send a message that has no answer, and wait until it is acted on."""
        flags = 1 | (1 << 3)
        self.send(struct.pack("<III", request, flags, len(payload)) + payload, files)
        if request not in (1, 11, 15, 17, 24):
            assert self._answer() == bytes(8)

    def ask(self, request: int, payload: bytes = b"") -> int:
        """Send a message, and return its answer's number."""
        value: int = struct.unpack("<Q", self.ask_bytes(request, payload))[0]
        return value

    def ask_bytes(self, request: int, payload: bytes = b"") -> bytes:
        self.send(struct.pack("<III", request, 1, len(payload)) + payload)
        return self._answer()

    def send(self, message: bytes, files: Sequence[int] = ()) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
        self.connection.sendmsg([message], rights)

    @property
    def cut_off(self) -> bool:
        """Whether the back end hangs up; waits for it."""
        try:
            return not self.connection.recv(1)
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def offer(self, queue: int, readable: Sequence[bytes] = (), room: Sequence[int] = ()) -> int:
        """Offer a chain without telling the device; its head."""
        parts = [(self._place(data), len(data), 0) for data in readable]
        parts += [(self._place(bytes(length)), length, _WRITE) for length in room]
        head = self._descriptors[queue]
        for number, (address, length, flags) in enumerate(parts):
            index = head + number
            more = _NEXT if number < len(parts) - 1 else 0
            self.describe(queue, index, GUEST + address, length, flags | more, index + 1)
        self._descriptors[queue] += len(parts)
        self._rooms[queue][head] = [(place, size) for place, size, flags in parts if flags]
        self.make_available(queue, head)
        return head

    def describe(
        self, queue: int, index: int, address: int, length: int, flags: int, following: int
    ) -> None:
        """Write one descriptor, whatever it says."""
        start = queue * _QUEUE_BYTES + 16 * index
        struct.pack_into("<QIHH", self.memory, start, address, length, flags, following)

    def make_available(self, queue: int, head: int) -> None:
        start = queue * _QUEUE_BYTES + _AVAILABLE
        slot = self._offered[queue] % QUEUE_SIZE
        struct.pack_into("<H", self.memory, start + 4 + 2 * slot, head)
        self._offered[queue] += 1
        struct.pack_into("<H", self.memory, start + 2, self._offered[queue] & 0xFFFF)

    def kick(self, queue: int) -> None:
        os.eventfd_write(self._kicks[queue], 1)

    def take(self, queue: int) -> bytes:
        """What the device wrote into the next chain that it gives back; waits for it."""
        start = queue * _QUEUE_BYTES + _USED
        while struct.unpack_from("<H", self.memory, start + 2)[0] == self._taken[queue]:
            ready, _, _ = select.select([self.calls[queue]], [], [], SECONDS)
            assert ready, "no interrupt comes"
            os.eventfd_read(self.calls[queue])
        slot = self._taken[queue] % QUEUE_SIZE
        head, written = struct.unpack_from("<II", self.memory, start + 4 + 8 * slot)
        self._taken[queue] += 1
        data = b""
        for place, size in self._rooms[queue][head]:
            data += self.memory[place : place + size]
        return data[:written]

    def interrupted(self, queue: int) -> int:
        """How often the device has interrupted since it was last looked at."""
        try:
            return os.eventfd_read(self.calls[queue])
        except BlockingIOError:
            return 0

    def _place(self, data: bytes) -> int:
        place = self._free
        self._free += len(data)
        self.memory[place : place + len(data)] = data
        return place

    def _answer(self) -> bytes:
        head = self._exactly(12)
        _, flags, size = struct.unpack("<III", head)
        assert flags == 5
        return self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.connection.recv(size - len(data))
            if not part:
                raise ConnectionResetError
            data += part
        return data


def memory_table(regions: Sequence[tuple[int, int, int, int]]) -> bytes:
    """The payload of SET_MEM_TABLE."""
    body = b"".join(struct.pack("<QQQQ", *region) for region in regions)
    return struct.pack("<II", len(regions), 0) + body

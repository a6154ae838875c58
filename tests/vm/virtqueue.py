"""A split virtqueue from the device's side (virtio 1.2, section 2.7), on memory that is not ours.

The rings are read and written in the order that section 2.7 demands. x86 keeps the order of a
program's own loads and its own stores, and CPython reorders neither.
"""

import struct
from dataclasses import dataclass
from typing import Final

from tests.vm.guest_memory import BackEndError, GuestMemory

MAX_SIZE: Final = 32768
MAX_CHAIN_BYTES: Final = 1 << 20

_DESCRIPTOR: Final = struct.Struct("<QIHH")  # address, length, flags, next
_USED: Final = struct.Struct("<II")  # head of the chain, bytes written
_NEXT, _WRITE, _INDIRECT = 1, 2, 4  # VIRTQ_DESC_F_*
_NO_INTERRUPT: Final = 1  # VIRTQ_AVAIL_F_NO_INTERRUPT


@dataclass(frozen=True, slots=True)
class RingAddresses:
    """Where a queue's three parts are, by QEMU's addresses."""

    descriptors: int
    used: int
    available: int


@dataclass(frozen=True, slots=True)
class Chain:
    """One buffer that the driver offers: what it wrote, and room for what it wants written."""

    head: int
    readable: tuple[memoryview, ...]
    writable: tuple[memoryview, ...]

    @property
    def room(self) -> int:
        """How many bytes the driver wants at most."""
        return sum(map(len, self.writable))

    def read(self) -> bytes:
        """All that the driver wrote."""
        return b"".join(self.readable)

    def write(self, *parts: bytes | memoryview) -> int:
        """Put the parts one after another; the number of bytes.

        Raises:
            BackEndError: there is not so much room.
        """
        data = memoryview(b"".join(parts))
        if len(data) > self.room:
            raise BackEndError(f"{len(data)} bytes do not fit the {self.room} that are offered")
        rest = data
        for view in self.writable:
            part = rest[: len(view)]
            view[: len(part)] = part
            rest = rest[len(part) :]
        return len(data)


class Virtqueue:
    """Takes chains in the order in which they are offered, and gives them back."""

    def __init__(
        self, memory: GuestMemory, size: int, addresses: RingAddresses, next_available: int
    ) -> None:
        """A queue of `size` descriptors.

        Raises:
            BackEndError: the size is no power of two within bounds, or the rings are not in memory.
        """
        if not 0 < size <= MAX_SIZE or size & (size - 1):
            raise BackEndError(f"a queue cannot have {size} descriptors")
        self._memory = memory
        self._size = size
        self._descriptors = memory.at_user(addresses.descriptors, 16 * size)
        self._available = memory.at_user(addresses.available, 4 + 2 * size)
        self._used = memory.at_user(addresses.used, 4 + 8 * size)
        self.next_available = next_available & 0xFFFF
        self._next_used = self._read16(self._used, 2)

    def pop(self) -> Chain | None:
        """The next chain, if one is offered.

        Raises:
            BackEndError: the driver offers more than there is, a chain that does not end, memory
                that it has not, or what was not negotiated.
        """
        offered = (self._read16(self._available, 2) - self.next_available) & 0xFFFF
        if not offered:
            return None
        if offered > self._size:
            raise BackEndError(f"{offered} chains are offered by a queue of {self._size}")
        slot = self.next_available % self._size
        head = self._read16(self._available, 4 + 2 * slot)
        chain = self._chain(head)
        self.next_available = (self.next_available + 1) & 0xFFFF
        return chain

    def push(self, chain: Chain, written: int) -> None:
        """Give a chain back, with this number of bytes in its writable part."""
        _USED.pack_into(self._used, 4 + 8 * (self._next_used % self._size), chain.head, written)
        self._next_used = (self._next_used + 1) & 0xFFFF
        struct.pack_into("<H", self._used, 2, self._next_used)

    @property
    def wants_interrupt(self) -> bool:
        """Whether the driver is to be told of what was given back."""
        return not self._read16(self._available, 0) & _NO_INTERRUPT

    def _chain(self, head: int) -> Chain:
        readable: list[memoryview] = []
        writable: list[memoryview] = []
        total, index = 0, head
        for _ in range(self._size):
            if index >= self._size:
                raise BackEndError(f"descriptor {index} of a queue of {self._size}")
            address, length, flags, following = _DESCRIPTOR.unpack_from(
                self._descriptors, 16 * index
            )
            total += length
            if flags & _INDIRECT or total > MAX_CHAIN_BYTES:
                raise BackEndError("a chain is indirect, or too long")
            view = self._memory.at(address, length)
            if flags & _WRITE:
                writable.append(view)
            elif writable:
                raise BackEndError("a chain's readable part follows its writable part")
            else:
                readable.append(view)
            if not flags & _NEXT:
                return Chain(head, tuple(readable), tuple(writable))
            index = following
        raise BackEndError("a chain of descriptors does not end")

    @staticmethod
    def _read16(view: memoryview, offset: int) -> int:
        value: int = struct.unpack_from("<H", view, offset)[0]
        return value

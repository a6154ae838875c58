"""A split virtqueue from the device's side (virtio 1.2, section 2.7), in a machine's shared memory.

x86 keeps the order of a program's own loads and stores, and CPython reorders neither.
"""

import mmap
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from tests.vm.programs import LabError

_DESCRIPTOR: Final = struct.Struct("<QIHH")  # address, length, flags, next
_USED: Final = struct.Struct("<II")  # head of the chain, bytes written
_NEXT, _WRITE = 1, 2  # VIRTQ_DESC_F_*


class Region(NamedTuple):
    """`size` bytes of memory at the machine's address `guest` and QEMU's address `user`."""

    guest: int
    size: int
    user: int
    offset: int


class GuestMemory:
    """A machine's memory, which QEMU shares by file descriptors."""

    def __init__(self, regions: Sequence[Region], files: Sequence[int]) -> None:
        """Map the regions; the descriptors stay the caller's."""
        self._regions = [
            (region, memoryview(mmap.mmap(file, region.offset + region.size))[region.offset :])
            for region, file in zip(regions, files, strict=True)
        ]

    def at_guest(self, address: int, length: int) -> memoryview:
        """Return the bytes at an address of the machine's.

        Raises:
            LabError: Some of them are not in one region.
        """
        return self._at("guest", address, length)

    def at_user(self, address: int, length: int) -> memoryview:
        """Return the bytes at an address of QEMU's.

        Raises:
            LabError: Some of them are not in one region.
        """
        return self._at("user", address, length)

    def _at(self, space: str, address: int, length: int) -> memoryview:
        for region, view in self._regions:
            start = address - getattr(region, space)
            if 0 <= start <= region.size - length:
                return view[start : start + length]
        raise LabError(f"{length} bytes at {space} address {address:#x} are in no shared memory")


class Chain(NamedTuple):
    """One buffer that the driver offers: what it wrote, and room for the device to write."""

    head: int
    data: bytes
    writable: list[memoryview]

    @property
    def room(self) -> int:
        """The number of bytes that may be written."""
        return sum(map(len, self.writable))

    def write(self, data: bytes) -> int:
        """Write `data`, and return its length.

        Raises:
            LabError: There is not so much room.
        """
        if len(data) > self.room:
            raise LabError(f"{len(data)} bytes do not fit into a buffer of {self.room}")
        start = 0
        for view in self.writable:
            part = data[start : start + len(view)]
            view[: len(part)] = part
            start += len(part)
        return len(data)


class Virtqueue:
    """Takes chains in the order in which they are offered, and gives them back."""

    def __init__(
        self, memory: GuestMemory, size: int, addresses: tuple[int, int, int], position: int
    ) -> None:
        """A queue of `size` descriptors.

        Args:
            memory: Where it is.
            size: A power of two.
            addresses: QEMU's addresses of the descriptors, the used and the available ring.
            position: The index of the first chain to take.
        """
        descriptors, used, available = addresses
        self._memory = memory
        self._size = size
        self._descriptors = memory.at_user(descriptors, 16 * size)
        self._used = memory.at_user(used, 4 + 8 * size)
        self._available = memory.at_user(available, 4 + 2 * size)
        self.position = position
        self._next_used = _read16(self._used, 2)

    def pop(self) -> Chain | None:
        """Return the next chain, if one is offered.

        Raises:
            LabError: It does not end, or is not in the machine's memory.
        """
        if _read16(self._available, 2) == self.position:
            return None
        head = index = _read16(self._available, 4 + 2 * (self.position % self._size))
        self.position = (self.position + 1) & 0xFFFF
        data, writable = b"", []
        for _ in range(self._size):
            descriptor = _DESCRIPTOR.unpack_from(self._descriptors, 16 * index)
            address, length, flags, index = descriptor
            view = self._memory.at_guest(address, length)
            if flags & _WRITE:
                writable.append(view)
            else:
                data += view
            if not flags & _NEXT:
                return Chain(head, data, writable)
        raise LabError("a chain of descriptors does not end")

    def push(self, chain: Chain, written: int) -> None:
        """Give a chain back, with `written` bytes in its writable part."""
        _USED.pack_into(self._used, 4 + 8 * (self._next_used % self._size), chain.head, written)
        self._next_used = (self._next_used + 1) & 0xFFFF
        struct.pack_into("<H", self._used, 2, self._next_used)


def _read16(view: memoryview, offset: int) -> int:
    value: int = struct.unpack_from("<H", view, offset)[0]
    return value

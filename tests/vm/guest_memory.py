"""A machine's memory as a back end sees it: regions that are shared, every access within them."""

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tests.vm.errors import LabError

MAX_REGIONS: Final = 8  # docs/interop/vhost-user.rst, "Memory regions description"
MAX_BYTES: Final = 16 << 30


class BackEndError(LabError):
    """A machine, or the QEMU that runs it, broke the protocol."""


@dataclass(frozen=True, slots=True)
class Region:
    """A stretch of `size` bytes at `guest` of the machine, `user` of QEMU, `offset` of a file."""

    guest: int
    size: int
    user: int
    offset: int


class GuestMemory:
    """Reads and writes where the machine says, and nowhere else."""

    def __init__(self, regions: Sequence[Region], descriptors: Sequence[int]) -> None:
        """Maps the regions; the files' descriptors stay their owner's.

        Raises:
            BackEndError: too many or too large, or a file is shorter than its region: an access
                beyond its end would end this process.
        """
        if not 0 < len(regions) <= MAX_REGIONS or len(regions) != len(descriptors):
            raise BackEndError(f"{len(regions)} regions of memory in {len(descriptors)} files")
        self._regions: list[tuple[Region, memoryview]] = []
        self._maps: list[mmap.mmap] = []
        try:
            for region, descriptor in zip(regions, descriptors, strict=True):
                self._add(region, descriptor)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Unmap everything; views that were given out stay readable as long as they are held."""
        self._regions.clear()
        self._maps.clear()

    def at(self, address: int, length: int) -> memoryview:
        """`length` bytes at an address of the machine's.

        Raises:
            BackEndError: some of them are not in one region.
        """
        for region, view in self._regions:
            if (found := _within(view, address - region.guest, length)) is not None:
                return found
        raise BackEndError(f"{length} bytes at {address:#x} are not in the machine's memory")

    def at_user(self, address: int, length: int) -> memoryview:
        """`length` bytes at an address of QEMU's, as rings are told.

        Raises:
            BackEndError: some of them are not in one region.
        """
        for region, view in self._regions:
            if (found := _within(view, address - region.user, length)) is not None:
                return found
        raise BackEndError(f"{length} bytes at QEMU's {address:#x} are not in shared memory")

    def _add(self, region: Region, descriptor: int) -> None:
        end = region.offset + region.size
        if not 0 < region.size <= MAX_BYTES or end > os.fstat(descriptor).st_size:
            raise BackEndError("a region of memory is larger than its file")
        mapped = mmap.mmap(descriptor, end)
        self._maps.append(mapped)
        self._regions.append((region, memoryview(mapped)[region.offset : end]))


def _within(view: memoryview, start: int, length: int) -> memoryview | None:
    """That part of a region, if all of it is there."""
    if start < 0 or length < 0 or start + length > len(view):
        return None
    return view[start : start + length]

"""Queues in memory that somebody else writes: nothing outside of it is touched."""

import mmap
import os
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vm.guest_memory import BackEndError, GuestMemory, Region
from tests.vm.virtqueue import MAX_CHAIN_BYTES, Chain, RingAddresses, Virtqueue

SIZE = 8
MEMORY = 0x8000
GUEST = 0x10_0000
USER = 0x7000_0000
ADDRESSES = RingAddresses(descriptors=USER, used=USER + 0x200, available=USER + 0x100)
NEXT, WRITE, INDIRECT = 1, 2, 4


class Driver:
    """The driver's side of one queue, as wrong as it likes."""

    def __init__(self) -> None:
        file = os.memfd_create("machine")
        os.ftruncate(file, MEMORY)
        self.bytes = mmap.mmap(file, MEMORY)
        self.memory = GuestMemory([Region(GUEST, MEMORY, USER, 0)], [file])
        os.close(file)
        self.queue = Virtqueue(self.memory, SIZE, ADDRESSES, 0)
        self.offered = 0

    def describe(self, index: int, address: int, length: int, flags: int, following: int) -> None:
        struct.pack_into("<QIHH", self.bytes, 16 * index, address, length, flags, following)

    def offer(self, head: int) -> None:
        struct.pack_into("<H", self.bytes, 0x104 + 2 * (self.offered % SIZE), head)
        self.offered += 1
        struct.pack_into("<H", self.bytes, 0x102, self.offered & 0xFFFF)


@pytest.fixture
def driver() -> Driver:
    return Driver()


def test_a_chain_is_what_the_driver_wrote_and_room_for_the_answer(driver: Driver) -> None:
    driver.bytes[0x1000:0x1005] = b"hello"
    driver.describe(0, GUEST + 0x1000, 2, NEXT, 1)
    driver.describe(1, GUEST + 0x1002, 3, NEXT, 2)
    driver.describe(2, GUEST + 0x2000, 2, NEXT | WRITE, 3)
    driver.describe(3, GUEST + 0x2010, 4, WRITE, 0)
    driver.offer(0)
    chain = driver.queue.pop()
    assert chain is not None
    assert chain.read() == b"hello"
    assert chain.room == 6
    assert chain.write(b"ab", b"cd") == 4
    driver.queue.push(chain, 4)
    assert driver.bytes[0x2000:0x2002] + driver.bytes[0x2010:0x2012] == b"abcd"
    assert struct.unpack_from("<HII", driver.bytes, 0x202) == (1, 0, 4)
    assert driver.queue.pop() is None


def test_rings_wrap_around(driver: Driver) -> None:
    driver.describe(5, GUEST, 1, 0, 0)
    for number in range(1, 3 * SIZE):
        driver.offer(5)
        chain = driver.queue.pop()
        assert chain is not None
        driver.queue.push(chain, number)
    assert struct.unpack_from("<H", driver.bytes, 0x202)[0] == 3 * SIZE - 1
    assert driver.queue.next_available == 3 * SIZE - 1


def test_the_driver_may_want_no_interrupt(driver: Driver) -> None:
    assert driver.queue.wants_interrupt
    struct.pack_into("<H", driver.bytes, 0x100, 1)
    assert not driver.queue.wants_interrupt


def test_more_than_there_is_room_for_is_not_written(driver: Driver) -> None:
    driver.describe(0, GUEST + 0x1000, 4, WRITE, 0)
    driver.offer(0)
    chain = driver.queue.pop()
    assert chain is not None
    with pytest.raises(BackEndError, match="5 bytes do not fit the 4"):
        chain.write(b"12345")
    assert driver.bytes[0x1000:0x1008] == bytes(8)


@pytest.mark.parametrize(
    ("descriptors", "reason"),
    [
        ([(GUEST, 1, NEXT, 0)], "does not end"),
        ([(GUEST, 1, NEXT, SIZE)], "descriptor 8 of a queue of 8"),
        ([(GUEST + MEMORY - 1, 2, 0, 0)], "not in the machine's memory"),
        ([(GUEST - 1, 1, 0, 0)], "not in the machine's memory"),
        ([((1 << 64) - 1, 2, 0, 0)], "not in the machine's memory"),
        ([(GUEST, MAX_CHAIN_BYTES + 1, 0, 0)], "too long"),
        ([(GUEST, 1, INDIRECT, 0)], "indirect"),
        ([(GUEST, 1, WRITE | NEXT, 1), (GUEST, 1, 0, 0)], "readable part follows"),
    ],
)
def test_a_wrong_chain_is_refused(
    driver: Driver, descriptors: list[tuple[int, int, int, int]], reason: str
) -> None:
    for index, descriptor in enumerate(descriptors):
        driver.describe(index, *descriptor)
    driver.offer(0)
    with pytest.raises(BackEndError, match=reason):
        driver.queue.pop()


def test_a_head_outside_of_the_queue_is_refused(driver: Driver) -> None:
    driver.offer(SIZE)
    with pytest.raises(BackEndError, match="descriptor 8"):
        driver.queue.pop()


def test_more_chains_than_descriptors_are_refused(driver: Driver) -> None:
    struct.pack_into("<H", driver.bytes, 0x102, SIZE + 1)
    with pytest.raises(BackEndError, match="9 chains"):
        driver.queue.pop()


@pytest.mark.parametrize("size", [0, 3, 12, 65536])
def test_a_size_that_is_no_power_of_two_is_refused(driver: Driver, size: int) -> None:
    with pytest.raises(BackEndError, match="cannot have"):
        Virtqueue(driver.memory, size, ADDRESSES, 0)


@pytest.mark.parametrize("offset", [MEMORY - 8, MEMORY, -(1 << 20)])
def test_rings_outside_of_memory_are_refused(driver: Driver, offset: int) -> None:
    inside = [USER, USER + 0x100, USER + 0x200]
    for wrong in range(3):
        addresses = [*inside[:wrong], USER + offset, *inside[wrong + 1 :]]
        with pytest.raises(BackEndError, match="not in shared memory"):
            Virtqueue(driver.memory, SIZE, RingAddresses(*addresses), 0)


class TestMemory:
    @pytest.fixture
    def file(self) -> Iterator[int]:
        file = os.memfd_create("machine")
        os.ftruncate(file, 4096)
        yield file
        os.close(file)

    @pytest.mark.parametrize(
        "region",
        [
            Region(0, 4097, 0, 0),
            Region(0, 4096, 0, 1),
            Region(0, 0, 0, 0),
            Region(0, 1 << 40, 0, 0),
        ],
    )
    def test_a_region_beyond_its_file_is_refused(self, file: int, region: Region) -> None:
        with pytest.raises(BackEndError, match="larger than its file"):
            GuestMemory([region], [file])

    @pytest.mark.parametrize("count", [0, 9])
    def test_the_number_of_regions_is_bounded(self, file: int, count: int) -> None:
        with pytest.raises(BackEndError, match="regions"):
            GuestMemory([Region(0, 4096, 0, 0)] * count, [file] * count)

    def test_each_region_needs_its_file(self, file: int) -> None:
        with pytest.raises(BackEndError, match="2 regions of memory in 1 files"):
            GuestMemory([Region(0, 4096, 0, 0)] * 2, [file])

    def test_nothing_spans_two_regions(self, file: int) -> None:
        memory = GuestMemory([Region(0, 2048, 0, 0), Region(2048, 2048, 9000, 2048)], [file] * 2)
        memory.at(2047, 1)[0] = 7
        memory.at(2048, 1)[0] = 8
        assert os.pread(file, 2, 2047) == b"\7\x08"
        with pytest.raises(BackEndError, match="not in the machine's memory"):
            memory.at(2047, 2)

    @given(address=st.integers(-(1 << 65), 1 << 65), length=st.integers(-5, 1 << 33))
    def test_an_access_is_within_or_refused(self, address: int, length: int) -> None:
        driver = Driver()
        for reach, start in ((driver.memory.at, GUEST), (driver.memory.at_user, USER)):
            within = start <= address and length >= 0 and address + length <= start + MEMORY
            if within:
                assert len(reach(address, length)) == length
            else:
                with pytest.raises(BackEndError):
                    reach(address, length)


addresses = st.one_of(st.integers(GUEST - 4, GUEST + MEMORY + 4), st.integers(0, (1 << 64) - 1))
table = st.lists(
    st.tuples(
        addresses,
        st.one_of(st.integers(0, 64), st.integers(0, (1 << 32) - 1)),
        st.integers(0, 7),
        st.integers(0, SIZE + 1),
    ),
    min_size=SIZE,
    max_size=SIZE,
)


@given(descriptors=table, heads=st.lists(st.integers(0, SIZE + 1), max_size=SIZE))
def test_whatever_the_driver_writes_a_chain_is_in_memory_or_refused(
    descriptors: list[tuple[int, int, int, int]], heads: list[int]
) -> None:
    driver = Driver()
    for index, descriptor in enumerate(descriptors):
        driver.describe(index, *descriptor)
    for head in heads:
        driver.offer(head)
    popped: list[Chain] = []
    try:
        while (chain := driver.queue.pop()) is not None:
            popped.append(chain)
            chain.write(b"x" * min(chain.room, 100))
            driver.queue.push(chain, 1)
    except BackEndError:
        return
    assert [chain.head for chain in popped] == heads[: len(popped)]

"""The header of virtio-vsock packets (virtio 1.2, section 5.10.6; linux/virtio_vsock.h)."""

import struct
from dataclasses import dataclass
from typing import Final, Self, TypeAlias

from tests.vm.guest_memory import BackEndError

HEADER: Final = struct.Struct("<QQIIIHHIII")
MAX_PAYLOAD: Final = 64 * 1024  # VIRTIO_VSOCK_MAX_PKT_BUF_SIZE
TYPE_STREAM: Final = 1

OP_REQUEST, OP_RESPONSE, OP_RST, OP_SHUTDOWN, OP_RW, OP_CREDIT_UPDATE, OP_CREDIT_REQUEST = range(
    1, 8
)

Stream: TypeAlias = tuple[tuple[int, int], tuple[int, int]]
"""Both ends of a stream, each CID and port; the lower one first, so that both have one name."""


@dataclass(frozen=True, slots=True)
class Header:
    """Who sends to whom, what it is, and how much the sender's own buffer holds and has taken."""

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

    @classmethod
    def parse(cls, packet: bytes) -> tuple[Self, memoryview]:
        """The header and the payload of a packet.

        Raises:
            BackEndError: it is shorter than it says, or longer than a packet may be.
        """
        if len(packet) < HEADER.size:
            raise BackEndError(f"a packet of {len(packet)} bytes has no header")
        header = cls(*HEADER.unpack_from(packet))
        payload = memoryview(packet)[HEADER.size :]
        if header.length > MAX_PAYLOAD or header.length > len(payload):
            raise BackEndError(f"a packet says {header.length} bytes and has {len(payload)}")
        return header, payload[: header.length]

    def encode(self) -> bytes:
        """The 44 bytes of the header."""
        return HEADER.pack(
            self.source_cid,
            self.destination_cid,
            self.source_port,
            self.destination_port,
            self.length,
            self.kind,
            self.operation,
            self.flags,
            self.buffer_size,
            self.forwarded,
        )

    @property
    def stream(self) -> Stream:
        """The stream that the packet belongs to."""
        ends = (
            (self.source_cid, self.source_port),
            (self.destination_cid, self.destination_port),
        )
        return ends if ends[0] < ends[1] else (ends[1], ends[0])

    def refusal(self) -> "Header":
        """The reset that answers this packet."""
        return Header(
            source_cid=self.destination_cid,
            destination_cid=self.source_cid,
            source_port=self.destination_port,
            destination_port=self.source_port,
            length=0,
            kind=self.kind,
            operation=OP_RST,
            flags=0,
            buffer_size=0,
            forwarded=0,
        )


def reset(stream: Stream, to_cid: int) -> Header:
    """The reset that tells the end at `to_cid` that the other one is gone."""
    near, far = stream if stream[0][0] == to_cid else (stream[1], stream[0])
    return Header(far[0], near[0], far[1], near[1], 0, TYPE_STREAM, OP_RST, 0, 0, 0)

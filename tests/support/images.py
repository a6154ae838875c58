"""Builds enclave image files, right and wrong ones."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

KERNEL, COMMAND_LINE, RAMDISK, SIGNATURE, METADATA = range(1, 6)
PLAIN = (
    (KERNEL, b"kernel"),
    (COMMAND_LINE, b"console=ttyS0"),
    (METADATA, b"{}"),
    (RAMDISK, b"bootstrap"),
    (RAMDISK, b"application"),
    (RAMDISK, b"more"),
)


@dataclass(frozen=True)
class Wrong:
    """What is wrong with an image; None is right."""

    magic: bytes = b".eif"
    version: int = 4
    count: int | None = None
    offset: int = 0
    size: int = 0
    crc: int = 0
    flags: int = 0
    gap: bytes = b""
    trailing: bytes = b""


def build(sections: Sequence[tuple[int, bytes]] = PLAIN, wrong: Wrong = Wrong()) -> bytes:
    """An image of version 4 with these sections, in this order, and with a right checksum."""
    offsets, sizes, body = [], [], b""
    for kind, data in sections:
        body += wrong.gap
        offsets.append(548 + len(body) + wrong.offset)
        sizes.append(len(data) + wrong.size)
        body += struct.pack(">HHQ", kind, 0, len(data)) + data
    offsets += [0] * (32 - len(offsets))
    sizes += [0] * (32 - len(sizes))
    count = len(sections) if wrong.count is None else wrong.count
    header = struct.pack(
        ">4sHHQQHH", wrong.magic, wrong.version, wrong.flags, 512 << 20, 2, 0, count
    )
    header += struct.pack(">32Q32QI", *offsets, *sizes, 0)
    crc = zlib.crc32(body, zlib.crc32(header)) ^ wrong.crc
    return header + struct.pack(">I", crc) + body + wrong.trailing

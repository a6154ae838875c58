"""Measures an enclave image file (EIF) as Nitro does, without Nitro: PCR0, 1, 2, and 8 if signed.

The format is that of aws-nitro-enclaves-image-format (src/defs/mod.rs): a header, then sections,
each with a header of its own; numbers are big-endian. A PCR is SHA-384 over 48 zero bytes and the
SHA-384 of what it covers:

    PCR0   kernel, command line and every ramdisk, in the order of the file
    PCR1   kernel, command line and the first ramdisk
    PCR2   the other ramdisks
    PCR8   the signing certificate (DER)

The CRC32 in the header finds damage; it protects against nobody. PCR0 itself does.
"""

from __future__ import annotations

import enum
import hashlib
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Final

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from foobar_instance.errors import FileError, ImageError

MAGIC: Final = b".eif"
VERSIONS: Final = (3, 4)  # 3 added the signature, 4 the metadata; older ones are not in use
MAX_SECTIONS: Final = 32
HEADER: Final = struct.Struct(">4sHHQQHH32Q32QII")  # 548 bytes
SECTION_HEADER: Final = struct.Struct(">HHQ")  # 12 bytes

_CRC_BYTES: Final = 4
_CHUNK: Final = 1024 * 1024
_MAX_SMALL_SECTION: Final = 1024 * 1024  # signature and metadata
_MAX_DEPTH: Final = 4


class SectionType(enum.IntEnum):
    """What a section holds."""

    KERNEL = 1
    COMMAND_LINE = 2
    RAMDISK = 3
    SIGNATURE = 4
    METADATA = 5


_REQUIRED: Final = (SectionType.KERNEL, SectionType.COMMAND_LINE)
_SMALL: Final = (SectionType.SIGNATURE, SectionType.METADATA)


@dataclass(frozen=True, slots=True)
class ImageMeasurements:
    """An image's PCRs, 48 bytes each; `pcr8` is None where the image is not signed."""

    pcr0: bytes
    pcr1: bytes
    pcr2: bytes
    pcr8: bytes | None = None

    def as_nitro_cli_json(self) -> str:
        """Return the JSON that `nitro-cli build-enclave` prints, which `--measurements` takes."""
        pcrs = {"PCR0": self.pcr0, "PCR1": self.pcr1, "PCR2": self.pcr2, "PCR8": self.pcr8}
        measurements = {"HashAlgorithm": "Sha384 { ... }"}
        measurements |= {name: value.hex() for name, value in pcrs.items() if value is not None}
        return json.dumps({"Measurements": measurements}, indent=2)


def measure_image(path: Path) -> ImageMeasurements:
    """Return the PCRs that Nitro will report for an enclave started from the image in `path`.

    The file is read once, in pieces: memory does not grow with it.

    Raises:
        FileError: it can't be read.
        ImageError: it is no EIF, or a damaged one; the text says what is wrong.
    """
    try:
        with path.open("rb") as file:
            return _measure(file)
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def _measure(file: IO[bytes]) -> ImageMeasurements:
    sections, checksum, crc = _read_header(file)
    image, bootstrap, application = hashlib.sha384(), hashlib.sha384(), hashlib.sha384()
    kinds: list[SectionType] = []
    pcr8: bytes | None = None
    for offset, size in sections:
        if file.tell() != offset:
            raise ImageError("a section is not where the header says")
        raw, kind = _read_section_header(file, size)
        crc = zlib.crc32(raw, crc)
        part = application if SectionType.RAMDISK in kinds and kind not in _REQUIRED else bootstrap
        signature = bytearray()
        for chunk in _chunks(file, size):
            crc = zlib.crc32(chunk, crc)
            if kind is SectionType.SIGNATURE:
                signature += chunk
            elif kind is not SectionType.METADATA:
                image.update(chunk)
                part.update(chunk)
        if kind is SectionType.SIGNATURE:
            pcr8 = _pcr(hashlib.sha384(_signing_certificate(bytes(signature))).digest())
        kinds.append(kind)
    if file.read(1):
        raise ImageError("bytes follow its last section")
    if crc != checksum:
        raise ImageError("its checksum is wrong: the file is damaged")
    _check_kinds(kinds)
    pcr0, pcr1, pcr2 = (_pcr(digest.digest()) for digest in (image, bootstrap, application))
    return ImageMeasurements(pcr0, pcr1, pcr2, pcr8)


def _read_header(file: IO[bytes]) -> tuple[list[tuple[int, int]], int, int]:
    """Return each section's offset and size, the file's checksum, and that of the header alone."""
    raw = file.read(HEADER.size)
    if len(raw) != HEADER.size or raw[:4] != MAGIC:
        raise ImageError("not an enclave image file (EIF)")
    _, version, _, _, _, _, count, *rest = HEADER.unpack(raw)
    if version not in VERSIONS:
        raise ImageError(f"version {version} of the format is not known")
    if not 0 < count <= MAX_SECTIONS:
        raise ImageError(f"it claims {count} sections; 1 to {MAX_SECTIONS} are possible")
    sections = list(zip(rest[:MAX_SECTIONS], rest[MAX_SECTIONS : 2 * MAX_SECTIONS], strict=True))
    if any(map(any, sections[count:])):
        raise ImageError("the header describes more sections than it counts")
    return sections[:count], rest[-1], zlib.crc32(raw[:-_CRC_BYTES])


def _read_section_header(file: IO[bytes], size: int) -> tuple[bytes, SectionType]:
    raw = file.read(SECTION_HEADER.size)
    if len(raw) != SECTION_HEADER.size:
        raise ImageError("it ends before its last section")
    number, _, section_size = SECTION_HEADER.unpack(raw)
    if section_size != size:
        raise ImageError("a section has another size than the header says")
    try:
        kind = SectionType(number)
    except ValueError as error:
        raise ImageError(f"a section has the unknown type {number}") from error
    if kind in _SMALL and size > _MAX_SMALL_SECTION:
        raise ImageError(f"its {kind.name.lower()} section is longer than {_MAX_SMALL_SECTION}")
    return raw, kind


def _chunks(file: IO[bytes], size: int) -> Iterator[bytes]:
    while size:
        chunk = file.read(min(size, _CHUNK))
        if not chunk:
            raise ImageError("it ends in the middle of a section")
        size -= len(chunk)
        yield chunk


def _check_kinds(kinds: list[SectionType]) -> None:
    for kind in _REQUIRED:
        if kinds.count(kind) != 1:
            raise ImageError(f"it has {kinds.count(kind)} {kind.name.lower()} sections, not one")
    if SectionType.RAMDISK not in kinds:
        raise ImageError("it has no ramdisk")
    for kind in _SMALL:
        if kinds.count(kind) > 1:
            raise ImageError(f"it has more than one {kind.name.lower()} section")


def _signing_certificate(section: bytes) -> bytes:
    """Return the DER certificate in a signature section: CBOR [{signing_certificate, ...}]."""
    try:
        item = cbor2.CBORDecoder(
            BytesIO(section), max_depth=_MAX_DEPTH, allow_duplicate_keys=False
        ).decode()
        pem = item[0]["signing_certificate"]
        if isinstance(pem, list | tuple):  # AWS's encoder writes bytes as a list of numbers
            pem = bytes(pem)
        return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    except Exception as error:  # the libraries do not bound what they raise
        raise ImageError("its signature section holds no certificate") from error


def _pcr(digest: bytes) -> bytes:
    """Return a PCR that was zero and is extended once."""
    return hashlib.sha384(bytes(48) + digest).digest()

"""Measures an enclave image file (EIF) as Nitro does, without Nitro: PCR0, 1, 2, and 8 if signed.

The format is that of aws-nitro-enclaves-image-format (README.md, "Enclave Image File (EIF)
Specification"): a header, then sections, each with a header of its own; numbers are big-endian.
A PCR is SHA-384 over 48 zero bytes and the SHA-384 of what it covers:

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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from foobar_instance.eif_signature import MAX_SIGNATURE, verified_signer
from foobar_instance.errors import FileError, ImageError
from foobar_instance.terminal import Progress

MAGIC: Final = b".eif"
VERSIONS: Final = (2, 3, 4)  # 3 added the signature, 4 the metadata; 0 and 1 were never published
MAX_SECTIONS: Final = 32
HEADER: Final = struct.Struct(">4sHHQQHH32Q32QII")  # 548 bytes
SECTION_HEADER: Final = struct.Struct(">HHQ")  # 12 bytes

_CRC_BYTES: Final = 4
_CHUNK: Final = 1024 * 1024
_KNOWN_FLAGS: Final = 1  # bit 0: aarch64
_METADATA_VERSION: Final = 4  # the first version in which metadata is mandatory


class SectionType(enum.IntEnum):
    """What a section holds."""

    KERNEL = 1
    COMMAND_LINE = 2
    RAMDISK = 3
    SIGNATURE = 4
    METADATA = 5


_REQUIRED: Final = (SectionType.KERNEL, SectionType.COMMAND_LINE)
_UNMEASURED: Final = (SectionType.SIGNATURE, SectionType.METADATA)


@dataclass(frozen=True, slots=True)
class ImageMeasurements:
    """An image's PCRs, 48 bytes each; `pcr8` is None where the image is not signed.

    `signer` is the certificate whose key has signed PCR0. `warnings` say what is odd in the file.
    """

    pcr0: bytes
    pcr1: bytes
    pcr2: bytes
    pcr8: bytes | None = None
    signer: x509.Certificate | None = None
    warnings: tuple[str, ...] = ()

    def as_nitro_cli_json(self) -> str:
        """Return the JSON that `nitro-cli build-enclave` prints, which `--measurements` takes."""
        pcrs = {"PCR0": self.pcr0, "PCR1": self.pcr1, "PCR2": self.pcr2, "PCR8": self.pcr8}
        measurements = {"HashAlgorithm": "Sha384 { ... }"}
        measurements |= {name: value.hex() for name, value in pcrs.items() if value is not None}
        return json.dumps({"Measurements": measurements}, indent=2)

    def tell(self, progress: Progress, now: datetime) -> None:
        """Tell the warnings, and how long the signing certificate is valid."""
        for text in self.warnings:
            progress.warn(text)
        if self.signer is not None:
            begin, end = self.signer.not_valid_before_utc, self.signer.not_valid_after_utc
            text = f"the signing certificate is valid from {begin:%Y-%m-%d} to {end:%Y-%m-%d}"
            if begin <= now <= end:
                progress.note(text)
            else:
                progress.warn(f"{text}, not now: Nitro does not start such an image")


def measure_image(path: Path, *, allow_unknown_flags: bool = False) -> ImageMeasurements:
    """Return the PCRs that Nitro will report for an enclave started from the image in `path`.

    The file is read once, in pieces: memory does not grow with it.

    Raises:
        FileError: it can't be read.
        ImageError: it is no EIF, a damaged one, one that AWS's specification forbids, or one with
            header flags of unknown effect on PCR0 (a warning with `allow_unknown_flags`).
    """
    try:
        with path.open("rb") as file:
            return _measure(file, allow_unknown_flags=allow_unknown_flags)
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


class _Reader:
    """Reads a file on, and keeps the position and the CRC32 of what was read."""

    def __init__(self, file: IO[bytes], *, position: int, crc: int) -> None:
        self._file = file
        self.position = position
        self.crc = crc

    def chunks(self, size: int) -> Iterator[bytes]:
        """Yield the next `size` bytes in pieces."""
        while size:
            chunk = self._file.read(min(size, _CHUNK))
            if not chunk:
                raise ImageError("it ends before its last section does")
            self.crc = zlib.crc32(chunk, self.crc)
            self.position += len(chunk)
            size -= len(chunk)
            yield chunk


def _measure(file: IO[bytes], *, allow_unknown_flags: bool) -> ImageMeasurements:
    raw = file.read(HEADER.size)
    version, flags, sections, checksum = _parse_header(raw)
    warnings = [_unknown_flags(flags, allowed=allow_unknown_flags)] if flags & ~_KNOWN_FLAGS else []
    reader = _Reader(file, position=len(raw), crc=zlib.crc32(raw[:-_CRC_BYTES]))
    image, bootstrap, application = hashlib.sha384(), hashlib.sha384(), hashlib.sha384()
    kinds: list[SectionType] = []
    signature = b""
    for offset, told_size in sections:
        _skip_gap(reader, offset, warnings)
        kind, size = _read_section_header(reader, told_size, warnings)
        later_ramdisk = kind is SectionType.RAMDISK and SectionType.RAMDISK in kinds
        for chunk in reader.chunks(size):
            if kind is SectionType.SIGNATURE:
                signature += chunk
            elif kind is not SectionType.METADATA:
                image.update(chunk)
                (application if later_ramdisk else bootstrap).update(chunk)
        kinds.append(kind)
    if file.read(1):
        raise ImageError("bytes follow its last section")
    if reader.crc != checksum:
        raise ImageError("its checksum is wrong: the file is damaged")
    _check_kinds(kinds, version)
    pcr0, pcr1, pcr2 = (_pcr(digest.digest()) for digest in (image, bootstrap, application))
    signer = pcr8 = None
    if SectionType.SIGNATURE in kinds:
        signer = verified_signer(signature, pcr0)
        pcr8 = _pcr(hashlib.sha384(signer.public_bytes(Encoding.DER)).digest())
    return ImageMeasurements(pcr0, pcr1, pcr2, pcr8, signer, tuple(warnings))


def _parse_header(raw: bytes) -> tuple[int, int, list[tuple[int, int]], int]:
    """Return version, flags, each section's offset and size, and the checksum."""
    if len(raw) != HEADER.size or raw[:4] != MAGIC:
        raise ImageError("not an enclave image file (EIF)")
    _, version, flags, _, _, _, count, *rest = HEADER.unpack(raw)
    if version not in VERSIONS:
        raise ImageError(f"version {version} of the format is not known")
    if not len(_REQUIRED) <= count <= MAX_SECTIONS:
        raise ImageError(f"it claims {count} sections; 2 to {MAX_SECTIONS} are possible")
    sections = list(zip(rest[:count], rest[MAX_SECTIONS:][:count], strict=True))
    return version, flags, sections, rest[-1]


def _unknown_flags(flags: int, *, allowed: bool) -> str:
    """Return the warning of flag bits whose effect is not public: they may change PCR0."""
    bits = ", ".join(str(bit) for bit in range(16) if (flags & ~_KNOWN_FLAGS) >> bit & 1)
    text = f"header flags {flags:#x}: Nitro may measure bits {bits} into PCR0, in a way not public"
    if not allowed:
        raise ImageError(f"{text}; --allow-unknown-flags prints the PCRs as if it did not")
    return f"{text}: the PCRs are as if it did not"


def _skip_gap(reader: _Reader, offset: int, warnings: list[str]) -> None:
    gap = offset - reader.position
    if gap < 0:
        raise ImageError("a section overlaps what is before it")
    if gap:
        warnings.append(f"{gap} bytes belong to no section, and no PCR covers them")
        for _ in reader.chunks(gap):
            pass


def _read_section_header(
    reader: _Reader, told_size: int, warnings: list[str]
) -> tuple[SectionType, int]:
    """Return a section's type and size; the file's header must agree where a PCR covers it."""
    number, flags, size = SECTION_HEADER.unpack(b"".join(reader.chunks(SECTION_HEADER.size)))
    try:
        kind = SectionType(number)
    except ValueError as error:
        raise ImageError(f"a section has the unknown type {number}") from error
    name = kind.name.lower()
    if kind is SectionType.SIGNATURE and size > MAX_SIGNATURE:
        raise ImageError(f"its signature section is longer than {MAX_SIGNATURE} bytes")
    if flags:
        warnings.append(f"the {name} section has flags {flags:#x}, which no specification explains")
    if size != told_size:
        if kind not in _UNMEASURED:
            raise ImageError(f"its {name} section has another size than the header says")
        # AWS's tool, when it signs again, leaves the size of the old signature in the header.
        warnings.append(
            f"the header says {told_size} bytes for the {name} section, which has {size}: "
            "no PCR covers it"
        )
    return kind, size


def _check_kinds(kinds: Sequence[SectionType], version: int) -> None:
    for kind in _REQUIRED:
        if kinds.count(kind) != 1:
            raise ImageError(f"it has {kinds.count(kind)} {kind.name.lower()} sections, not one")
    for kind in _UNMEASURED:
        if kinds.count(kind) > 1:
            raise ImageError(f"it has more than one {kind.name.lower()} section")
    if SectionType.RAMDISK in kinds[: kinds.index(SectionType.KERNEL)]:
        raise ImageError("a ramdisk comes before the kernel")
    if version >= _METADATA_VERSION and SectionType.METADATA not in kinds:
        raise ImageError(f"it has no metadata section, which version {version} demands")


def _pcr(digest: bytes) -> bytes:
    """Return a PCR that was zero and is extended once."""
    return hashlib.sha384(bytes(48) + digest).digest()

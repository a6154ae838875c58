"""What the emulated NSM measures: the enclave's own source in place of an enclave image file.

AWS extends each register from 48 zero bytes: PCR = SHA-384(zeros || SHA-384(data)) for the image's
parts, SHA-384(zeros || text) for role and instance (aws-nitro-enclaves-cli, docs.aws.amazon.com
"Enclave's measurements").
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import foobar_enclave
import foobar_shared
from emulator.identity import Instance

PCR_BYTES: Final = 48
ZERO: Final = bytes(PCR_BYTES)

_COMPILED: Final = {".pyc", ".pyo"}


@dataclass(frozen=True, slots=True)
class ImageMeasurements:
    """PCR0 to PCR2 of an image, 48 bytes each."""

    pcr0: bytes
    pcr1: bytes
    pcr2: bytes

    def as_nitro_cli_json(self) -> str:
        """The JSON that `nitro-cli build-enclave` prints."""
        measurements = {
            "HashAlgorithm": "Sha384 { ... }",
            "PCR0": self.pcr0.hex(),
            "PCR1": self.pcr1.hex(),
            "PCR2": self.pcr2.hex(),
        }
        return json.dumps({"Measurements": measurements}, indent=2) + "\n"


def measure_enclave(extra: bytes = b"") -> ImageMeasurements:
    """Measurements of the enclave's source as it is installed.

    PCR0 covers everything, PCR1 what the application rests on (`foobar_shared`), PCR2 the
    application (`foobar_enclave`).

    Args:
        extra: bytes measured along with the application, for an image that differs.
    """
    base = b"".join(_image_parts(foobar_shared.__path__[0]))
    application = b"".join(_image_parts(foobar_enclave.__path__[0])) + extra
    return ImageMeasurements(
        pcr0=_image_pcr(base + application), pcr1=_image_pcr(base), pcr2=_image_pcr(application)
    )


def instance_pcrs(instance: Instance) -> dict[int, bytes]:
    """PCR3 (the instance role's ARN) and PCR4 (the instance id), 48 bytes each."""
    return {3: _extended(instance.role_arn.encode()), 4: _extended(instance.instance_id.encode())}


def pcr_bank(image: ImageMeasurements, instance: Instance, *, debug: bool) -> dict[int, bytes]:
    """The non-zero registers of an enclave at its start; a debug enclave has no image's."""
    measured = {} if debug else {0: image.pcr0, 1: image.pcr1, 2: image.pcr2}
    return measured | instance_pcrs(instance)


def _image_parts(package: str) -> Iterator[bytes]:
    """Name and content of each file of a package, each with its length, in a fixed order."""
    root = Path(package)
    for path in sorted(root.rglob("*"), key=lambda path: path.relative_to(root).as_posix()):
        name = path.relative_to(root.parent).as_posix()
        if path.is_file() and "__pycache__" not in path.parts and path.suffix not in _COMPILED:
            for part in (name.encode(), path.read_bytes()):
                yield len(part).to_bytes(8, "big") + part


def _image_pcr(data: bytes) -> bytes:
    return _extended(hashlib.sha384(data).digest())


def _extended(data: bytes) -> bytes:
    return hashlib.sha384(ZERO + data).digest()

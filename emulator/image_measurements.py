"""What the emulated NSM measures: the enclave's own source in place of an enclave image file.

AWS extends each PCR from 48 zero bytes: PCR = SHA-384(zeros || SHA-384(data)) for the image's
parts, SHA-384(zeros || text) for role and instance (aws-nitro-enclaves-cli, docs.aws.amazon.com
"Enclave's measurements").
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import foobar_enclave
import foobar_shared
from emulator.identity import Instance

ZERO: Final = bytes(48)


@dataclass(frozen=True, slots=True)
class ImageMeasurements:
    """PCR0 to PCR2 of an image, 48 bytes each."""

    pcr0: bytes
    pcr1: bytes
    pcr2: bytes

    def as_nitro_cli_json(self) -> str:
        """Return the JSON that `nitro-cli build-enclave` prints."""
        pcrs = {name.upper(): pcr.hex() for name, pcr in asdict(self).items()}
        measurements = {"HashAlgorithm": "Sha384 { ... }"} | pcrs
        return json.dumps({"Measurements": measurements}, indent=2) + "\n"


def measure_enclave(extra: bytes = b"") -> ImageMeasurements:
    """Return the measurements of the enclave's source as it is installed.

    PCR0 covers everything, PCR1 what the application rests on (`foobar_shared`), PCR2 the
    application (`foobar_enclave`) and `extra`, which stands for another application.
    """
    base = _content(foobar_shared.__path__[0])
    application = _content(foobar_enclave.__path__[0]) + extra
    pcrs = (hashlib.sha384(part).digest() for part in (base + application, base, application))
    return ImageMeasurements(*(_extended(digest) for digest in pcrs))


def instance_pcrs(instance: Instance) -> dict[int, bytes]:
    """Return PCR3 (the instance role's ARN) and PCR4 (the instance id), 48 bytes each."""
    return {3: _extended(instance.role_arn.encode()), 4: _extended(instance.instance_id.encode())}


def pcr_bank(image: ImageMeasurements, instance: Instance, *, debug: bool) -> dict[int, bytes]:
    """Return the non-zero PCRs of an enclave at its start; a debug enclave has no image's."""
    measured = {} if debug else {0: image.pcr0, 1: image.pcr1, 2: image.pcr2}
    return measured | instance_pcrs(instance)


def _content(package: str) -> bytes:
    """Return name and content of each file of a package, each after its length."""
    root = Path(package)
    content = b""
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            for part in (path.relative_to(root.parent).as_posix().encode(), path.read_bytes()):
                content += len(part).to_bytes(8, "big") + part
    return content


def _extended(data: bytes) -> bytes:
    return hashlib.sha384(ZERO + data).digest()

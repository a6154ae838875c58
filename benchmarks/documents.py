"""The document that verifiers are measured with: a genuine one where the test vectors are there."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from emulator.documents import attestation_document
from emulator.pki import NitroPki

# Of those that evervault's binding reads up to the signature: several it refuses by their lengths.
NAME: Final = "2024-11-30_us-east-1_prod_def_69d51f98.cbor"
FOLDER: Final = Path(
    os.environ.get("FOOBAR_VECTORS") or Path(__file__).parents[2] / "shared/vectors"
)


@dataclass(frozen=True, slots=True)
class Document:
    """A raw attestation document, the root it is under (PEM; empty for AWS's), and its time."""

    raw: bytes
    root: bytes
    at: datetime

    @property
    def is_genuine(self) -> bool:
        """Whether it is AWS's."""
        return not self.root


def document() -> Document:
    """A genuine document, or one under a development root where no test vectors are there."""
    path = FOLDER / "attestation" / NAME
    if path.is_file():
        return Document(path.read_bytes(), b"", datetime(2024, 11, 30, 16, 22, 49, tzinfo=UTC))
    now = datetime.now(UTC)
    pki = NitroPki.create(now=now)
    module_id = "i-0123456789abcdef0-enc0123456789abcdef"
    raw = attestation_document(
        pki.issue(module_id, now=now),
        module_id=module_id,
        pcrs={index: hashlib.sha384(bytes([index])).digest() for index in range(16)},
        timestamp=now,
        nonce=bytes(32),
    )
    return Document(raw, pki.root.public_bytes(Encoding.PEM), now)

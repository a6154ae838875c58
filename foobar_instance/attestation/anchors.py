"""The trust anchors that AWS publishes, checked against their published fingerprints."""

from __future__ import annotations

import functools
import hashlib
import hmac
from pathlib import Path
from typing import Final, Literal, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

Partition: TypeAlias = Literal["aws", "aws-us-gov"]

# importlib.resources takes longer to load than click does.
_DIRECTORY: Final = Path(__file__).with_name("roots")
# SHA-256 of the DER, from AWS's "Verifying the root of trust" for each partition.
_ROOTS: Final[dict[Partition, tuple[str, str]]] = {
    "aws": (
        "aws_nitro_enclaves_root_g1.pem",
        "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b",
    ),
    "aws-us-gov": (
        "aws_us_gov_nitro_enclaves_root.pem",
        "20bcd30a3e168ea03789e1c45912bc123c4de3c977b8a6e1c125c7929d668b3b",
    ),
}


def partition_of(der: bytes) -> Partition | None:
    """Return the partition whose packaged root has this DER, if any."""
    found = hashlib.sha256(der).hexdigest()
    return next((name for name, (_, fingerprint) in _ROOTS.items() if found == fingerprint), None)


@functools.cache
def packaged_root(partition: Partition = "aws") -> x509.Certificate:
    """Return the AWS Nitro Enclaves root certificate of a partition, for `Verifier`.

    Raises:
        RuntimeError: the packaged file is not the certificate that AWS publishes.
    """
    name, fingerprint = _ROOTS[partition]
    pem = (_DIRECTORY / name).read_bytes()
    root = x509.load_pem_x509_certificate(pem)
    found = hashlib.sha256(root.public_bytes(Encoding.DER)).hexdigest()
    if not hmac.compare_digest(found, fingerprint):
        raise RuntimeError(f"the packaged root certificate {name} is not the published one")
    return root

"""Makes the certificate authorities that one run of the lab trusts, and nobody else does."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from emulator.pki import NitroPki
from emulator.tls import create_server_identity

REGION: Final = "us-east-1"
KMS_HOST: Final = f"kms.{REGION}.amazonaws.com"


@dataclass(frozen=True, slots=True)
class Authorities:
    """A stand-in for AWS's Nitro hierarchy, and a TLS authority with KMS's certificate.

    What the parent machine has of it is PEM: the Nitro root's certificate, the TLS authority's
    certificate, and KMS's private key followed by its certificate. `pki` holds the private keys
    that attestation documents are signed under; it stays with the NSMs.
    """

    pki: NitroPki
    nitro_root: bytes
    tls_ca: bytes
    tls_key_and_certificate: bytes


def create(now: datetime) -> Authorities:
    """Fresh authorities, valid from a few minutes before `now` (aware)."""
    pki = NitroPki.create(now=now, region=REGION)
    identity = create_server_identity(host_names=[KMS_HOST], now=now)
    return Authorities(
        pki=pki,
        nitro_root=pki.root.public_bytes(Encoding.PEM),
        tls_ca=identity.ca_certificate,
        tls_key_and_certificate=identity.private_key + identity.certificate,
    )

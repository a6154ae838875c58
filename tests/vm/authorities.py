"""Makes the certificate authorities that one run of the lab trusts, and nobody else does."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from emulator.pki import Certified, NitroPki
from emulator.tls import create_server_identity

REGION: Final = "us-east-1"
KMS_HOST: Final = f"kms.{REGION}.amazonaws.com"
PARENTS_FILES: Final = ("nitro_root", "tls_ca", "tls_key_and_certificate")

_ROOT_KEY: Final = "nitro_root_key.pem"


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


def save(authorities: Authorities, folder: Path) -> None:
    """Keep `authorities` in `folder`: PARENTS_FILES as NAME.pem, and the Nitro root's key."""
    key = authorities.pki.issuer.key
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for name in PARENTS_FILES:
        _write(folder / f"{name}.pem", getattr(authorities, name))
    _write(folder / _ROOT_KEY, pem)


def load(folder: Path) -> Authorities:
    """The authorities that are kept in `folder`."""
    files = {name: (folder / f"{name}.pem").read_bytes() for name in PARENTS_FILES}
    key = load_pem_private_key((folder / _ROOT_KEY).read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("the Nitro root's key is on no elliptic curve")
    root = x509.load_pem_x509_certificate(files["nitro_root"])
    return Authorities(pki=NitroPki(Certified(root, key), REGION), **files)


def _write(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)

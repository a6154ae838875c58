"""Stands in for AWS by means of the emulator: certificate authorities and security modules."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from emulator.identity import Instance
from emulator.image_measurements import instance_pcrs
from emulator.pki import NitroPki
from emulator.tls import create_server_identity
from emulator.virtual_nsm import EmulatedNsm

REGION: Final = "us-east-1"
KMS_HOST: Final = f"kms.{REGION}.amazonaws.com"


@dataclass(frozen=True, slots=True)
class Authorities:
    """The certificate authorities of one run, which nobody else trusts.

    `pki` signs attestation documents. `files` are what the parent has of them, in PEM: the Nitro
    root's certificate, the TLS authority's certificate, and KMS's private key and certificate.
    """

    pki: NitroPki
    files: Mapping[str, bytes]

    @property
    def root(self) -> x509.Certificate:
        """The Nitro root's certificate."""
        return self.pki.root


def create_authorities() -> Authorities:
    """Return fresh authorities."""
    now = datetime.now(UTC)
    pki = NitroPki.create(now=now, region=REGION)
    tls = create_server_identity(host_names=[KMS_HOST], now=now)
    files = {
        "nitro_root.pem": pki.root.public_bytes(Encoding.PEM),
        "tls_ca.pem": tls.ca_certificate,
        "tls_key_and_certificate.pem": tls.private_key + tls.certificate,
    }
    return Authorities(pki, files)


def all_pcrs(image: Mapping[int, bytes]) -> dict[int, bytes]:
    """Return an enclave's non-zero PCRs at its start: the image's, and PCR3 and PCR4."""
    return dict(image) | instance_pcrs(Instance())


class RecordedNsm:
    """A machine's NSM, and the names of the requests that it got."""

    def __init__(
        self, authorities: Authorities, *, module_id: str, image: Mapping[int, bytes]
    ) -> None:
        """Create an NSM whose PCRs are those of an enclave booted from `image`."""
        pcrs = all_pcrs(image)
        self._nsm = EmulatedNsm(authorities.pki, module_id=module_id, pcrs=pcrs)
        self.requests: list[str] = []

    def exchange(self, request: bytes) -> bytes:
        """Return the answer to a request."""
        self.requests.append(_name(request))
        return self._nsm.exchange(request)


def _name(request: bytes) -> str:
    try:
        decoded: object = cbor2.loads(request)
    except cbor2.CBORDecodeError:
        return "malformed"
    return str(next(iter(decoded)) if isinstance(decoded, dict) else decoded)

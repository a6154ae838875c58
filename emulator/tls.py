"""A development certificate authority, fresh each time, and the KMS server's certificate."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from emulator.pki import NOT_A_CA, authority_key_id, certify, key_usage

_VALID_BEFORE: Final = timedelta(minutes=10)
_LIFETIME: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """A server's private key and certificate, and the authority's certificate, all PEM."""

    private_key: bytes
    certificate: bytes
    ca_certificate: bytes

    def server_context(self, directory: Path) -> ssl.SSLContext:
        """Return a TLS server context; the key is in `directory` only while it is loaded."""
        path = directory / "kms-server.pem"
        path.touch(mode=0o600, exist_ok=False)
        try:
            path.write_bytes(self.private_key + self.certificate)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(path)
        finally:
            path.unlink()
        return context


def create_server_identity(*, host_names: list[str], now: datetime) -> ServerIdentity:
    """Return a certificate for loopback and `host_names`, under an authority made for it alone.

    The authority's private key is gone when this returns.
    """
    begin = now - _VALID_BEFORE
    ca = certify(
        None,
        {"CN": "Foobar emulator: development CA, trust it nowhere else"},
        begin,
        _LIFETIME,
        x509.BasicConstraints(ca=True, path_length=0),
        key_usage("key_cert_sign"),
    )
    loopback = [x509.IPAddress(ipaddress.ip_address(ip)) for ip in ("127.0.0.1", "::1")]
    names = [x509.DNSName(name) for name in ("localhost", *host_names)]
    server = certify(
        ca,
        {"CN": "localhost"},
        begin,
        _LIFETIME,
        NOT_A_CA,
        key_usage("digital_signature"),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
        x509.SubjectAlternativeName([*names, *loopback]),
        authority_key_id(ca),
    )
    return ServerIdentity(
        private_key=server.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        certificate=server.certificate.public_bytes(Encoding.PEM),
        ca_certificate=ca.certificate.public_bytes(Encoding.PEM),
    )

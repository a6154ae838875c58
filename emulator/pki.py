"""A development stand-in for AWS's certificate hierarchy, in exactly AWS's shapes.

Root, regional, zonal and instance CA, and a leaf for the enclave; extensions, criticalities, path
lengths, subjects and lifetimes are those measured on genuine documents. Keys are made fresh.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

ROOT_LIFETIME: Final = timedelta(days=10958, hours=1)
REGIONAL_LIFETIME: Final = timedelta(hours=481)
ZONAL_LIFETIME: Final = timedelta(hours=144)
INSTANCE_LIFETIME: Final = timedelta(hours=24)
LEAF_LIFETIME: Final = timedelta(seconds=10803)
LEAF_BACKDATED: Final = timedelta(seconds=3)

_USAGES: Final = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
    "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip
_ATTRIBUTES: Final = {
    "C": NameOID.COUNTRY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "L": NameOID.LOCALITY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "CN": NameOID.COMMON_NAME,
}
_AWS: Final = {"C": "US", "O": "Amazon", "OU": "AWS"}
_SEATTLE: Final = {"C": "US", "ST": "Washington", "L": "Seattle", "O": "Amazon", "OU": "AWS"}


@dataclass(frozen=True, slots=True)
class Certified:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class NitroChain:
    """An enclave's key and certificates, as its attestation documents carry them.

    `certificate` is the leaf's DER, `cabundle` the DER of root, regional, zonal and instance CA.
    """

    key: ec.EllipticCurvePrivateKey
    certificate: bytes
    cabundle: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class NitroPki:
    """A root of its own and what it takes to certify enclaves under it."""

    issuer: Certified
    region: str

    @classmethod
    def create(cls, *, now: datetime, region: str = "us-east-1") -> NitroPki:
        """Return a hierarchy with fresh keys whose root is valid from an hour before `now`."""
        name = _AWS | {"CN": "aws.nitro-enclaves"}
        begin = now - timedelta(hours=1)
        return cls(certify(None, name, begin, ROOT_LIFETIME, _ca(None), _CA_USAGE), region)

    @property
    def root(self) -> x509.Certificate:
        """Return the trust anchor of everything issued here."""
        return self.issuer.certificate

    def issue(self, module_id: str, *, now: datetime) -> NitroChain:
        """Return a fresh key for `module_id`, certified for three hours from three seconds ago.

        Args:
            module_id: `<instance id>-enc<16 hexadecimal digits>`.
            now: aware; the CAs between are valid from ten minutes before it.
        """
        begin = now - timedelta(minutes=10)
        domain = f"{self.region}.aws.nitro-enclaves"
        name = _AWS | {"CN": f"{secrets.token_hex(8)}.{domain}"}
        regional = certify(
            self.issuer, name, begin, REGIONAL_LIFETIME, _ca(2), _CA_USAGE, _crl_location()
        )
        name = {"CN": f"{secrets.token_hex(8)}.zonal.{domain}", "OU": "AWS", "O": "Amazon"}
        name |= {"C": "US", "ST": "WA", "L": "Seattle"}
        zonal = certify(regional, name, begin, ZONAL_LIFETIME, _ca(1), _CA_USAGE, _crl_location())
        name = _SEATTLE | {"CN": f"{module_id.rpartition('-')[0]}.{domain}"}
        usage = key_usage("key_cert_sign")
        instance = certify(zonal, name, begin, INSTANCE_LIFETIME, _ca(0), usage)
        name = _SEATTLE | {"CN": f"{module_id}.{self.region}.aws"}
        usage = key_usage("digital_signature", "content_commitment")
        begin = now.replace(microsecond=0) - LEAF_BACKDATED
        leaf = certify(instance, name, begin, LEAF_LIFETIME, NOT_A_CA, usage, critical_usage=False)
        bundle = (self.issuer, regional, zonal, instance)
        return NitroChain(leaf.key, _der(leaf), tuple(_der(issuer) for issuer in bundle))


def certify(
    issuer: Certified | None,
    name: Mapping[str, str],
    begin: datetime,
    lifetime: timedelta,
    constraints: x509.BasicConstraints,
    usage: x509.KeyUsage,
    *others: x509.ExtensionType,
    critical_usage: bool = True,
) -> Certified:
    """Return a fresh P-384 key with a certificate of `issuer`; None for one that it signs itself.

    `name` holds the subject's attributes (C, ST, L, O, OU, CN) in order. A CA's certificate also
    gets its key identifier and its issuer's. `others` are further extensions, not critical.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    if constraints.ca:
        others += (x509.SubjectKeyIdentifier.from_public_key(key.public_key()),)
        others += (authority_key_id(issuer),) if issuer else ()
    subject = x509.Name([x509.NameAttribute(_ATTRIBUTES[part], name[part]) for part in name])
    begin = begin.replace(microsecond=0)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + lifetime)
        .add_extension(constraints, critical=True)
        .add_extension(usage, critical=critical_usage)
    )
    for extension in others:
        builder = builder.add_extension(extension, critical=False)
    return Certified(builder.sign(issuer.key if issuer else key, SHA384()), key)


def key_usage(*usages: str) -> x509.KeyUsage:
    """Return the extension for usages such as `key_cert_sign`."""
    return x509.KeyUsage(**{name: name in usages for name in _USAGES})


def authority_key_id(issuer: Certified) -> x509.AuthorityKeyIdentifier:
    """Return the extension that names the key of `issuer`."""
    own = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)


def _ca(path_length: int | None) -> x509.BasicConstraints:
    return x509.BasicConstraints(ca=True, path_length=path_length)


def _crl_location() -> x509.CRLDistributionPoints:
    # Present in AWS's certificates and never fetched; `.invalid` names no host (RFC 2606).
    url = f"http://nitro-enclaves-crl.emulator.invalid/crl/{uuid.uuid4()}.crl"
    location = x509.UniformResourceIdentifier(url)
    return x509.CRLDistributionPoints([x509.DistributionPoint([location], None, None, None)])


def _der(certified: Certified) -> bytes:
    return certified.certificate.public_bytes(Encoding.DER)


NOT_A_CA: Final = x509.BasicConstraints(ca=False, path_length=None)
_CA_USAGE: Final = key_usage("digital_signature", "key_cert_sign", "crl_sign")

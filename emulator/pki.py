"""A development stand-in for AWS's certificate hierarchy, in exactly AWS's shapes.

Root, regional, zonal and instance CA, and a leaf for the enclave; extensions, criticalities, path
lengths, subjects and lifetimes are those measured on genuine documents. Keys are made fresh.
"""

from __future__ import annotations

import secrets
import uuid
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


@dataclass(frozen=True, slots=True)
class NitroChain:
    """An enclave's key and certificates, as its attestation documents carry them.

    `certificate` is the leaf's DER, `cabundle` the DER of root, regional, zonal and instance CA.
    """

    key: ec.EllipticCurvePrivateKey
    certificate: bytes
    cabundle: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


class NitroPki:
    """A root of its own and what it takes to certify enclaves under it."""

    def __init__(self, root: _Authority, region: str) -> None:
        self._root = root
        self._region = region

    @classmethod
    def create(cls, *, now: datetime, region: str = "us-east-1") -> NitroPki:
        """A hierarchy with fresh keys whose root is valid from an hour before `now`."""
        key = ec.generate_private_key(ec.SECP384R1())
        subject = _name(C="US", O="Amazon", OU="AWS", CN="aws.nitro-enclaves")
        begin = _seconds(now) - timedelta(hours=1)
        certificate = _sign(
            _builder(subject, key.public_key(), begin, begin + ROOT_LIFETIME)
            .issuer_name(subject)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_id(key), critical=False)
            .add_extension(_CA_USAGE, critical=True),
            key,
        )
        return cls(_Authority(certificate, key), region)

    @property
    def root(self) -> x509.Certificate:
        """The trust anchor of everything issued here."""
        return self._root.certificate

    def issue(self, module_id: str, *, now: datetime) -> NitroChain:
        """A fresh key for `module_id`, certified for three hours from three seconds before `now`.

        Args:
            module_id: `<instance id>-enc<16 hexadecimal digits>`.
            now: aware; the CAs between are valid from ten minutes before it.
        """
        begin = _seconds(now) - timedelta(minutes=10)
        fingerprint = secrets.token_hex(8)
        regional = _issue_ca(
            self._root,
            _name(
                C="US", O="Amazon", OU="AWS", CN=f"{fingerprint}.{self._region}.aws.nitro-enclaves"
            ),
            (begin, begin + REGIONAL_LIFETIME),
            path_length=2,
        )
        zonal = _issue_ca(
            regional,
            _name(
                CN=f"{secrets.token_hex(8)}.zonal.{self._region}.aws.nitro-enclaves",
                OU="AWS",
                O="Amazon",
                C="US",
                ST="WA",
                L="Seattle",
            ),
            (begin, begin + ZONAL_LIFETIME),
            path_length=1,
        )
        instance_id = module_id.rpartition("-")[0]
        instance = _issue_ca(
            zonal,
            _name(**_AMAZON, CN=f"{instance_id}.{self._region}.aws.nitro-enclaves"),
            (begin, begin + INSTANCE_LIFETIME),
            path_length=0,
        )
        key = ec.generate_private_key(ec.SECP384R1())
        leaf_begin = _seconds(now) - LEAF_BACKDATED
        leaf = _sign(
            _builder(
                _name(**_AMAZON, CN=f"{module_id}.{self._region}.aws"),
                key.public_key(),
                leaf_begin,
                leaf_begin + LEAF_LIFETIME,
            )
            .issuer_name(instance.certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_LEAF_USAGE, critical=False),
            instance.key,
        )
        authorities = (self._root, regional, zonal, instance)
        return NitroChain(
            key=key,
            certificate=_der(leaf),
            cabundle=tuple(_der(authority.certificate) for authority in authorities),
        )


_AMAZON: Final = {"C": "US", "ST": "Washington", "L": "Seattle", "O": "Amazon", "OU": "AWS"}
_ATTRIBUTES: Final = {
    "C": NameOID.COUNTRY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "L": NameOID.LOCALITY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "CN": NameOID.COMMON_NAME,
}


def _usage(
    *, digital_signature: bool, certificates: bool, crl: bool, content: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=certificates,
        crl_sign=crl,
        content_commitment=content,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


_CA_USAGE: Final = _usage(digital_signature=True, certificates=True, crl=True)
_INSTANCE_USAGE: Final = _usage(digital_signature=False, certificates=True, crl=False)
_LEAF_USAGE: Final = _usage(digital_signature=True, certificates=False, crl=False, content=True)


def _issue_ca(
    issuer: _Authority, subject: x509.Name, validity: tuple[datetime, datetime], *, path_length: int
) -> _Authority:
    key = ec.generate_private_key(ec.SECP384R1())
    builder = (
        _builder(subject, key.public_key(), *validity)
        .issuer_name(issuer.certificate.subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    )
    # Regional and zonal CAs have their extensions in another order than instance CAs.
    if path_length:
        builder = (
            builder.add_extension(_issuer_key_id(issuer), critical=False)
            .add_extension(_key_id(key), critical=False)
            .add_extension(_CA_USAGE, critical=True)
            .add_extension(_crl_distribution_point(), critical=False)
        )
    else:
        builder = (
            builder.add_extension(_INSTANCE_USAGE, critical=True)
            .add_extension(_key_id(key), critical=False)
            .add_extension(_issuer_key_id(issuer), critical=False)
        )
    return _Authority(_sign(builder, issuer.key), key)


def _issuer_key_id(issuer: _Authority) -> x509.AuthorityKeyIdentifier:
    own = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)


def _crl_distribution_point() -> x509.CRLDistributionPoints:
    # Present in AWS's certificates and never fetched; `.invalid` names no host (RFC 2606).
    url = f"http://nitro-enclaves-crl.emulator.invalid/crl/{uuid.uuid4()}.crl"
    location = x509.UniformResourceIdentifier(url)
    return x509.CRLDistributionPoints([x509.DistributionPoint([location], None, None, None)])


def _name(**attributes: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(_ATTRIBUTES[name], value) for name, value in attributes.items()]
    )


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _sign(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    return builder.sign(key, SHA384())


def _key_id(key: ec.EllipticCurvePrivateKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key())


def _seconds(moment: datetime) -> datetime:
    """X.509 times have no fractions (RFC 5280 section 4.1.2.5)."""
    return moment.replace(microsecond=0)


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)

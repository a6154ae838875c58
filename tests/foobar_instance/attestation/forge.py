"""Documents of every form, and certificates of every kind, under one development root."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from emulator.documents import document_fields, sign_document
from emulator.pki import NitroChain, NitroPki
from foobar_instance.attestation import AttestationError, Verifier

NOW = datetime(2026, 3, 1, 12, 0, 0, 123_000, tzinfo=UTC)
MODULE_ID = "i-0123456789abcdef0-enc0123456789abcdef"
PCRS = {index: bytes([index + 1]) * 48 for index in range(16)}
ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffff"
    "c7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    16,
)
"""Of the group of P-384 (FIPS 186-4, D.1.2.4)."""

HOUR = timedelta(hours=1)
P384 = ec.SECP384R1()


@cache
def pki() -> NitroPki:
    return NitroPki.create(now=NOW)


@cache
def chain() -> NitroChain:
    return pki().issue(MODULE_ID, now=NOW)


def root() -> x509.Certificate:
    return pki().root


def fields(of: NitroChain | None = None, /, **changes: object) -> dict[str, object]:
    """The fields of a good document, with some replaced."""
    given = document_fields(of or chain(), module_id=MODULE_ID, pcrs=PCRS, timestamp=NOW)
    return given | changes


def document(of: NitroChain | None = None, /, **changes: object) -> bytes:
    """A document that is good but for `changes`, signed by its leaf key."""
    return sign_document(fields(of, **changes), (of or chain()).key)


def without(*names: str) -> bytes:
    """A signed document without some fields."""
    kept = {name: value for name, value in fields().items() if name not in names}
    return sign_document(kept, chain().key)


@dataclass(frozen=True, slots=True)
class Link:
    """What is to be issued: a certificate in a chain, as AWS has it unless changed."""

    name: str
    path_length: int | None = None
    ca: bool | None = True
    usage: str | None = "keyCertSign"
    critical: bool = True
    critical_usage: bool | None = None
    begin: timedelta = -HOUR
    end: timedelta = HOUR
    curve: ec.EllipticCurve | None = P384
    constraints: bytes | None = None


ROOT = Link("root")
REGIONAL = Link("regional", path_length=2)
ZONAL = Link("zonal", path_length=1)
INSTANCE = Link("instance", path_length=0)
LEAF = Link(f"{MODULE_ID}.us-east-1.aws", ca=False, usage="digitalSignature")
CAS = (ROOT, REGIONAL, ZONAL, INSTANCE)


@dataclass(frozen=True, slots=True)
class Forged:
    """A chain under a root of its own."""

    root: x509.Certificate
    chain: NitroChain


def forge(*links: Link, unnamed: bool = False) -> Forged:
    """Issues each link under the one before it; the first is the root, the last the leaf."""
    keys = [_key(link) for link in links]
    issuers = list(pairwise([(links[0], keys[0]), *zip(links, keys, strict=True)]))
    certificates = [
        _issue(link, key, issuer.name, issuer_key, unnamed and link is links[-1])
        for (issuer, issuer_key), (link, key) in issuers
    ]
    ders = [certificate.public_bytes(Encoding.DER) for certificate in certificates]
    leaf_key = keys[-1]
    if not isinstance(leaf_key, ec.EllipticCurvePrivateKey) or leaf_key.key_size > 384:
        leaf_key = ec.generate_private_key(ec.SECP384R1())  # the others make no 96 bytes
    return Forged(certificates[0], NitroChain(leaf_key, ders[-1], tuple(ders[:-1])))


def usual(**changes: Link) -> Forged:
    """AWS's five certificates with some links changed: root, regional, zonal, instance, leaf."""
    names = ("root", "regional", "zonal", "instance", "leaf")
    links = dict(zip(names, (*CAS, LEAF), strict=True)) | changes
    return forge(*links.values())


def one_with(position: str, **changes: object) -> Forged:
    """AWS's chain with one link changed in some fields."""
    links = dict(zip(("root", "regional", "zonal", "instance", "leaf"), (*CAS, LEAF), strict=True))
    return usual(**{position: replace(links[position], **changes)})  # type: ignore[arg-type]


def _key(link: Link) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    if link.curve is None:
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(link.curve)


def _issue(
    link: Link,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    unnamed: bool,
) -> x509.Certificate:
    subject = x509.Name([]) if unnamed else _name(link.name)
    begin = NOW.replace(microsecond=0)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin + link.begin)
        .not_valid_after(begin + link.end)
    )
    for extension, critical in _extensions(link):
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(issuer_key, SHA384())


def _extensions(link: Link) -> Iterator[tuple[x509.ExtensionType, bool]]:
    if link.constraints is not None:
        oid = x509.BasicConstraints.oid
        yield x509.UnrecognizedExtension(oid, link.constraints), link.critical
    elif link.ca is not None:
        yield x509.BasicConstraints(link.ca, link.path_length), link.critical
    if link.usage is not None:
        yield (
            _usage(link.usage),
            bool(link.ca if link.critical_usage is None else link.critical_usage),
        )


def _usage(which: str) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=which == "digitalSignature",
        key_cert_sign=which == "keyCertSign",
        crl_sign=which == "cRLSign",
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def kept(anchor: x509.Certificate) -> Verifier:
    """A verifier that has seen a document, and trusts none of its certificates."""
    verifier = Verifier(anchor)
    with suppress(AttestationError):
        verifier.verify(document(replace(chain(), cabundle=chain().cabundle[:1])))
    return verifier

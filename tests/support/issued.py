"""Certificates written byte by byte, and signed by their issuer whatever they say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from emulator.pki import NitroChain

NOW = datetime(2026, 3, 1, 12, 0, 0, 123_000, tzinfo=UTC)
MODULE_ID = "i-0123456789abcdef0-enc0123456789abcdef"
HOUR = timedelta(hours=1)
P384 = ec.SECP384R1()

SEQUENCE, SET, OCTETS, BIT_STRING, TEXT = 0x30, 0x31, 0x04, 0x03, 0x0C
ECDSA_SHA384 = bytes.fromhex("300a06082a8648ce3d040303")
ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
COMMON_NAME, UNIT, COUNTRY = (bytes.fromhex(f"06035504{x}") for x in ("03", "0b", "06"))
USAGE, CONSTRAINTS = (bytes.fromhex(f"0603551d{x}") for x in ("0f", "13"))
SIGNS_CERTIFICATES, SIGNS_LISTS, SIGNS_DOCUMENTS = "03020204", "03020102", "03020780"


def element(tag: int, *parts: bytes) -> bytes:
    """Return one element of DER."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes(2 if size > 0xFF else 1, "big")
    return bytes([tag, 0x80 + len(length)]) + length + content


def named(*attributes: tuple[bytes, str], tag: int = TEXT) -> bytes:
    """Return a name of relative names with one attribute each."""
    texts = (element(SEQUENCE, oid, element(tag, text.encode())) for oid, text in attributes)
    return element(SEQUENCE, *(element(SET, text) for text in texts))


def common_name(text: str) -> bytes:
    """Return a name like AWS's."""
    return named((UNIT, "AWS"), (COMMON_NAME, text))


def extension(oid: bytes, value: str, *, critical: bool = True) -> bytes:
    """Return an extension with a value in hexadecimal."""
    flag = bytes.fromhex("0101ff") * critical
    return element(SEQUENCE, oid, flag, element(OCTETS, bytes.fromhex(value)))


def constraints(path_length: int | None, *, critical: bool = True) -> bytes:
    """Return the basicConstraints of a CA."""
    value = "30030101ff" if path_length is None else f"30060101ff0201{path_length:02x}"
    return extension(CONSTRAINTS, value, critical=critical)


def utc_time(moment: datetime) -> bytes:
    return element(0x17, f"{moment:%y%m%d%H%M%SZ}".encode())


@dataclass(frozen=True, slots=True)
class Written:
    """A certificate's parts in DER, all of them in AWS's form unless changed."""

    subject: bytes
    constraints: bytes
    usage: bytes
    more: bytes = b""  # further extensions
    curve: ec.EllipticCurve | None = P384  # None is an RSA key
    key: ec.EllipticCurvePrivateKey | None = None  # None is a new one
    spki: bytes | None = None  # None is its key's
    issuer: bytes | None = None  # None is its issuer's subject
    version: bytes = bytes.fromhex("a003020102")
    serial: bytes = bytes.fromhex("02020102")
    algorithm: bytes = ECDSA_SHA384
    not_before: bytes = utc_time(NOW - HOUR)
    not_after: bytes = utc_time(NOW + HOUR)
    unused_bits: int = 0
    overwritten: tuple[int, bytes] = (0, b"")  # where, and by what, before it is signed

    def signed(self, issuer: bytes, spki: bytes) -> bytes:
        """Return what the issuer signs."""
        raw = element(
            SEQUENCE,
            self.version,
            self.serial,
            self.algorithm,
            issuer if self.issuer is None else self.issuer,
            element(SEQUENCE, self.not_before, self.not_after),
            self.subject,
            spki,
            element(0xA3, element(SEQUENCE, self.constraints, self.usage, self.more)),
        )
        offset, piece = self.overwritten
        start = offset % len(raw)
        return (raw[:start] + piece + raw[start + len(piece) :])[: len(raw)]


def ca(name: str, path_length: int | None = None) -> Written:
    usage = extension(USAGE, SIGNS_CERTIFICATES)
    return Written(common_name(name), constraints(path_length), usage)


NO_CA = extension(CONSTRAINTS, "3000")
LEAF = Written(
    common_name(f"{MODULE_ID}.us-east-1.aws"),
    NO_CA,
    extension(USAGE, SIGNS_DOCUMENTS, critical=False),
)
CAS = (ca("root"), ca("regional", 2), ca("zonal", 1), ca("instance", 0))
POSITIONS = ("root", "regional", "zonal", "instance", "leaf")


@dataclass(frozen=True, slots=True)
class Issued:
    """A chain under a root of its own."""

    root: x509.Certificate
    chain: NitroChain


def issue(*written: Written) -> Issued:
    """Issue each certificate under the one before it, from the root, under itself, to the leaf."""
    keys = [each.key or _new_key(each.curve) for each in written]
    own = list(zip(written, keys, strict=True))
    ders = [
        _certificate(each, each.spki or _spki(key), issuer.subject, issuer_key)
        for (issuer, issuer_key), (each, key) in pairwise([own[0], *own])
    ]
    leaf_key = keys[-1]
    if not isinstance(leaf_key, ec.EllipticCurvePrivateKey) or leaf_key.key_size > 384:
        leaf_key = ec.generate_private_key(P384)  # the others make no 96 bytes
    root = x509.load_der_x509_certificate(ders[0])
    return Issued(root, NitroChain(leaf_key, ders[-1], tuple(ders[:-1])))


def usual(**changes: Written) -> Issued:
    """Issue AWS's five certificates with some changed: root, regional, zonal, instance, leaf."""
    return issue(*(dict(zip(POSITIONS, (*CAS, LEAF), strict=True)) | changes).values())


def one_with(position: str, **parts: object) -> Issued:
    """Issue AWS's chain with one certificate changed in some parts."""
    original = (*CAS, LEAF)[POSITIONS.index(position)]
    return usual(**{position: replace(original, **parts)})  # type: ignore[arg-type]


PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def _new_key(curve: ec.EllipticCurve | None) -> PrivateKey:
    if curve is None:
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(curve)


def _spki(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _certificate(written: Written, spki: bytes, issuer: bytes, issuer_key: PrivateKey) -> bytes:
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    signed = written.signed(issuer, spki)
    signature = issuer_key.sign(signed, ec.ECDSA(SHA384(), deterministic_signing=True))
    bits = element(BIT_STRING, bytes([written.unused_bits]), signature)
    return element(SEQUENCE, signed, ECDSA_SHA384, bits)

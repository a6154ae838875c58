"""Certificates written byte by byte, and signed by their issuer whatever they say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from emulator.pki import NitroChain
from tests.foobar_instance.attestation.forge import MODULE_ID

SEQUENCE, SET, INTEGER, OCTETS, TEXT, PRINTABLE = 0x30, 0x31, 0x02, 0x04, 0x0C, 0x13
ECDSA_SHA384 = bytes.fromhex("300a06082a8648ce3d040303")
ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
COMMON_NAME, UNIT, COUNTRY = (bytes.fromhex(f"06035504{x}") for x in ("03", "0b", "06"))
USAGE, CONSTRAINTS, KEY_ID = (bytes.fromhex(f"0603551d{x}") for x in ("0f", "13", "0e"))
CRITICAL = bytes.fromhex("0101ff")


def element(tag: int, *parts: bytes) -> bytes:
    """One element of DER."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes(2 if size > 0xFF else 1, "big")
    return bytes([tag, 0x80 + len(length)]) + length + content


def named(*attributes: tuple[bytes, str], tag: int = TEXT) -> bytes:
    """A name of relative names with one attribute each."""
    return element(
        SEQUENCE,
        *(
            element(SET, element(SEQUENCE, oid, element(tag, text.encode())))
            for oid, text in attributes
        ),
    )


def extension(oid: bytes, value: str, *, critical: bool = True) -> bytes:
    """An extension with a value in hexadecimal."""
    return element(SEQUENCE, oid, CRITICAL * critical, element(OCTETS, bytes.fromhex(value)))


def p384() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True, slots=True)
class Written:
    """A certificate's parts; all but `unused` in DER."""

    subject: bytes
    key: bytes
    extensions: tuple[bytes, ...]
    issuer: bytes = b""  # its issuer's subject
    version: bytes = bytes.fromhex("a003020102")
    serial: bytes = bytes.fromhex("02020102")
    algorithm: bytes = ECDSA_SHA384
    outer_algorithm: bytes = ECDSA_SHA384
    not_before: bytes = b"\x17\x0d260101000000Z"
    not_after: bytes = b"\x17\x0d270101000000Z"
    after_extensions: bytes = b""
    unused: int = 0

    def signed(self) -> bytes:
        """What the issuer signs."""
        return element(
            SEQUENCE,
            self.version,
            self.serial,
            self.algorithm,
            self.issuer,
            element(SEQUENCE, self.not_before, self.not_after),
            self.subject,
            self.key,
            element(0xA3, element(SEQUENCE, *self.extensions), self.after_extensions),
        )

    def by(self, key: ec.EllipticCurvePrivateKey) -> bytes:
        """The certificate, signed with `key`."""
        signature = signed_by(key, self.signed())
        return certificate(self.signed(), signature, self.outer_algorithm, self.unused)


def signed_by(key: ec.EllipticCurvePrivateKey, signed: bytes) -> bytes:
    """A signature over these bytes, in DER."""
    return key.sign(signed, ec.ECDSA(SHA384()))


def certificate(
    signed: bytes, signature: bytes, algorithm: bytes = ECDSA_SHA384, unused: int = 0
) -> bytes:
    """The certificate of what is signed and a signature."""
    return element(SEQUENCE, signed, algorithm, element(0x03, bytes([unused]), signature))


@dataclass(frozen=True)
class Line:
    """What a chain is made of, from the root to the leaf, and the key of each."""

    written: tuple[Written, ...]
    keys: tuple[ec.EllipticCurvePrivateKey, ...]

    def but(self, which: int, **parts: object) -> Line:
        """The line with one certificate changed in some parts."""
        written = list(self.written)
        written[which] = replace(written[which], **parts)  # type: ignore[arg-type]
        return replace(self, written=tuple(written))

    @cached_property
    def ders(self) -> tuple[bytes, ...]:
        """The certificates, each under the one before it; the root is under itself."""
        issuers = [(self.written[0], self.keys[0]), *zip(self.written, self.keys, strict=True)]
        return tuple(
            (each if each.issuer else replace(each, issuer=issuer.subject)).by(key)
            for each, (issuer, key) in zip(self.written, issuers, strict=False)
        )

    def chain(self) -> NitroChain:
        """What signs documents in its name."""
        *bundle, leaf = self.ders
        return NitroChain(self.keys[-1], leaf, tuple(bundle))


SIGNS_CERTIFICATES, SIGNS_DOCUMENTS = "03020204", "030206c0"


def constraints(path_length: int | None) -> bytes:
    """An authority's basicConstraints."""
    value = "30030101ff" if path_length is None else f"30060101ff0201{path_length:02x}"
    return extension(CONSTRAINTS, value)


def authority(name: str, key: ec.EllipticCurvePrivateKey, path_length: int | None) -> Written:
    usage = extension(USAGE, SIGNS_CERTIFICATES)
    subject = named((UNIT, "AWS"), (COMMON_NAME, name))
    return Written(subject, spki(key), (constraints(path_length), usage))


def line() -> Line:
    """A root, two authorities and a leaf, as AWS's are but for one authority less."""
    keys = tuple(p384() for _ in range(4))
    leaf = Written(
        named((UNIT, "AWS"), (COMMON_NAME, f"{MODULE_ID}.us-east-1.aws")),
        spki(keys[-1]),
        (extension(CONSTRAINTS, "3000"), extension(USAGE, SIGNS_DOCUMENTS, critical=False)),
    )
    names = zip(("root", "upper", "lower"), keys, (None, 1, 0), strict=False)
    return Line((*(authority(*each) for each in names), leaf), keys)

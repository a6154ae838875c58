"""Fixed keys, certificates in AWS's form, and documents signed with them. Nothing is random."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha1, sha384, sha512
from typing import Final

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from emulator.documents import encode_payload, sign_document
from emulator.pki import NitroChain
from tests.support.issued import (
    NO_CA,
    P384,
    POSITIONS,
    SEQUENCE,
    SET,
    SIGNS_CERTIFICATES,
    SIGNS_DOCUMENTS,
    TEXT,
    USAGE,
    Issued,
    Written,
    constraints,
    element,
    extension,
    issue,
    utc_time,
)

NOW: Final = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
LEAF_FROM: Final = NOW - timedelta(minutes=30)
LEAF_UNTIL: Final = LEAF_FROM + timedelta(seconds=10803)  # what AWS's leaves live
SIGNED_MS: Final = int(NOW.timestamp() * 1000) - 877  # the document's timestamp
INSTANCE: Final = "i-0123456789abcdef0"
MODULE_ID: Final = f"{INSTANCE}-enc0123456789abcdef"
NONCE: Final = b"the nonce of this very request"
DOMAIN: Final = "us-east-1.aws.nitro-enclaves"

PRINTABLE: Final = 0x13
_ATTRIBUTES: Final = {"C": 6, "ST": 8, "L": 7, "O": 10, "OU": 11, "CN": 3}
_CA_USAGE: Final = extension(USAGE, "03020186")  # digitalSignature, keyCertSign, cRLSign
_AWS: Final = {"C": "US", "O": "Amazon", "OU": "AWS"}
_SEATTLE: Final = {"C": "US", "ST": "Washington", "L": "Seattle", "O": "Amazon", "OU": "AWS"}


def oid(text: str) -> bytes:
    """Return the DER of an object identifier, given its content in hexadecimal."""
    return element(0x06, bytes.fromhex(text))


def key(label: str, curve: ec.EllipticCurve = P384) -> ec.EllipticCurvePrivateKey:
    """Return the one private key of this label and curve."""
    digest = sha512(f"corpus key {label}".encode()).digest()
    return ec.derive_private_key(int.from_bytes(digest[: curve.key_size // 8 - 1], "big"), curve)


def spki(of: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the DER of the SubjectPublicKeyInfo."""
    return of.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def name(**attributes: str) -> bytes:
    """Return a distinguished name with one attribute in each relative name, in this order."""
    oids = {kind: oid(f"5504{number:02x}") for kind, number in _ATTRIBUTES.items()}
    texts = (
        element(SEQUENCE, oids[kind], element(PRINTABLE if kind == "C" else TEXT, text.encode()))
        for kind, text in attributes.items()
    )
    return element(SEQUENCE, *(element(SET, text) for text in texts))


def key_id(label: str) -> str:
    """Return the key identifier of RFC 5280 section 4.2.1.2, method 1, in hexadecimal."""
    point = key(label).public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return sha1(point, usedforsecurity=False).hexdigest()


def key_ids(own: str, issuer: str | None) -> bytes:
    """Return the subjectKeyIdentifier, and the authorityKeyIdentifier under an issuer."""
    subject = extension(bytes.fromhex("0603551d0e"), f"0414{key_id(own)}", critical=False)
    if issuer is None:
        return subject
    return subject + extension(
        bytes.fromhex("0603551d23"), f"30168014{key_id(issuer)}", critical=False
    )


def crl_location(label: str) -> bytes:
    """Return cRLDistributionPoints with a host that does not exist (RFC 2606)."""
    url = f"http://aws-nitro-enclaves-crl.corpus.invalid/crl/{label}.crl".encode()
    points = element(SEQUENCE, element(SEQUENCE, element(0xA0, element(0xA0, element(0x86, url)))))
    return extension(bytes.fromhex("0603551d1f"), points.hex(), critical=False)


def _base(
    position: str,
    subject: bytes,
    limits: bytes,
    usage: bytes,
    more: bytes,
    lifetime: tuple[datetime, datetime],
) -> Written:
    begin, end = map(utc_time, lifetime)
    serial = element(0x02, b"\x01" + sha384(position.encode()).digest()[:15])
    return Written(
        *(subject, limits, usage, more), key=key(position), serial=serial,
        not_before=begin, not_after=end,
    )  # fmt: skip


def _around(hours: int) -> tuple[datetime, datetime]:
    return NOW - timedelta(hours=hours), NOW + timedelta(hours=hours)


_ROOT_LIFETIME: Final = (
    datetime(2019, 10, 28, 13, 28, 5, tzinfo=UTC),
    datetime(2049, 10, 28, 14, 28, 5, tzinfo=UTC),
)
_ZONAL: Final = {"OU": "AWS", "O": "Amazon", "C": "US", "ST": "WA", "L": "Seattle"}
BASE: Final = {
    "root": _base(
        "root", name(**_AWS, CN="aws.nitro-enclaves"), constraints(None), _CA_USAGE,
        key_ids("root", None), _ROOT_LIFETIME,
    ),
    "regional": _base(
        "regional", name(**_AWS, CN=f"0123456789abcdef.{DOMAIN}"), constraints(2), _CA_USAGE,
        key_ids("regional", "root") + crl_location("regional"), _around(240),
    ),
    "zonal": _base(
        "zonal", name(CN=f"fedcba9876543210.zonal.{DOMAIN}", **_ZONAL), constraints(1), _CA_USAGE,
        key_ids("zonal", "regional") + crl_location("zonal"), _around(72),
    ),
    "instance": _base(
        "instance", name(**_SEATTLE, CN=f"{INSTANCE}.{DOMAIN}"), constraints(0),
        extension(USAGE, SIGNS_CERTIFICATES), key_ids("instance", "zonal"), _around(12),
    ),
    "leaf": _base(
        "leaf", name(**_SEATTLE, CN=f"{MODULE_ID}.us-east-1.aws"), NO_CA,
        extension(USAGE, SIGNS_DOCUMENTS, critical=False), b"", (LEAF_FROM, LEAF_UNTIL),
    ),
}  # fmt: skip
"""AWS's five certificates, by position."""


def chain(*more: Written, **parts: Mapping[str, object]) -> NitroChain:
    """Return the chain with parts of some certificates changed, by position.

    Args:
        more: further CAs between the instance CA and the leaf.
        parts: what to change in which certificate.
    """
    written = [replace(BASE[at], **parts.get(at, {})) for at in POSITIONS]  # type: ignore[arg-type]
    return issue(*written[:-1], *more, written[-1]).chain


def issued(*written: Written) -> NitroChain:
    """Return a chain of just these certificates, from its root to its leaf."""
    result: Issued = issue(*written)
    return result.chain


@cache
def good_chain() -> NitroChain:
    """Return the chain of the good document."""
    return chain()


def root() -> x509.Certificate:
    """Return the corpus's trusted root."""
    return x509.load_der_x509_certificate(good_chain().cabundle[0])


PCRS: Final[dict[int, bytes]] = {
    **dict.fromkeys(range(16), bytes(48)),
    **{index: sha384(f"PCR{index}".encode()).digest() for index in (0, 1, 2, 3, 8)},
    4: sha384(bytes(48) + INSTANCE.encode()).digest(),
}
"""As an enclave in an instance with a role, from a signed image: PCR0 to PCR15."""


def fields(of: NitroChain | None = None, /, **changes: object) -> dict[str, object]:
    """Return the good document's fields, with some replaced."""
    using = of or good_chain()
    return {
        "module_id": MODULE_ID,
        "digest": "SHA384",
        "timestamp": SIGNED_MS,
        "pcrs": PCRS,
        "certificate": using.certificate,
        "cabundle": list(using.cabundle),
        "public_key": None,
        "user_data": b"user data " * 18,
        "nonce": NONCE,
    } | changes


def signed(payload: bytes, **shape: object) -> bytes:
    """Return a payload of any form, signed by the good leaf key; `shape` as in `sign_document`."""
    return sign_document(payload, good_chain().key, **shape)  # type: ignore[arg-type]


def document(of: NitroChain | None = None, /, **changes: object) -> bytes:
    """Return the good document with some fields or another chain, signed by the chain's leaf."""
    return sign_document(encode_payload(fields(of, **changes)), (of or good_chain()).key)


def without(*names: str, **changes: object) -> bytes:
    """Return a signed document without some fields."""
    kept = {field: value for field, value in fields(**changes).items() if field not in names}
    return signed(encode_payload(kept))


def message(raw: bytes | None = None, **parts: object) -> bytes:
    """Return a document, the good one unless given, with parts of its COSE array replaced."""
    given = cbor2.loads(raw or document())
    names = ("protected", "unprotected", "payload", "signature")
    return cbor2.dumps([parts.get(part, value) for part, value in zip(names, given, strict=True)])

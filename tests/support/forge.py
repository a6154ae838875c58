"""Documents that are good but for one thing, under one development root."""

from __future__ import annotations

from functools import cache

from cryptography import x509

from emulator.documents import document_fields, sign_document
from emulator.pki import NitroChain, NitroPki
from foobar_instance.attestation import _rules
from foobar_instance.attestation._rules import Rule
from tests.support.issued import COMMON_NAME, COUNTRY, MODULE_ID, NOW, one_with

PCRS = {index: bytes([index + 1]) * 48 for index in range(16)}
ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffff"
    "c7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    16,
)
"""Of the group of P-384 (FIPS 186-4, D.1.2.4)."""

RULES = {rule.name: rule for rule in vars(_rules).values() if isinstance(rule, Rule)}


@cache
def pki() -> NitroPki:
    return NitroPki.create(now=NOW)


@cache
def chain() -> NitroChain:
    return pki().issue(MODULE_ID, now=NOW)


def root() -> x509.Certificate:
    return pki().root


def fields(of: NitroChain | None = None, /, **changes: object) -> dict[str, object]:
    """Return the fields of a good document, with some replaced."""
    given = document_fields(of or chain(), module_id=MODULE_ID, pcrs=PCRS, timestamp=NOW)
    return given | changes


def document(of: NitroChain | None = None, /, **changes: object) -> bytes:
    """Return a document that is good but for `changes`, signed by its leaf key."""
    return sign_document(fields(of, **changes), (of or chain()).key)


def without(*names: str) -> bytes:
    """Return a signed document without some fields."""
    kept = {name: value for name, value in fields().items() if name not in names}
    return sign_document(kept, chain().key)


# What `cryptography` meets with odd exceptions or with warnings.


def leaf_with(old: bytes, new: bytes) -> bytes:
    """Return a document whose leaf has some bytes replaced by as many others."""
    leaf = chain().certificate
    assert old in leaf
    assert len(old) == len(new)
    return document(certificate=leaf.replace(old, new))


def bit_string_name() -> bytes:
    """Make the leaf's common name a BIT STRING, whose first byte counts unused bits."""
    size = bytes([len(f"{MODULE_ID}.us-east-1.aws")])
    return leaf_with(COMMON_NAME + b"\x0c" + size + b"i", COMMON_NAME + b"\x03" + size + b"\0")


def long_country() -> bytes:
    """Make the leaf's common name a country, which should have 2 letters."""
    return leaf_with(COMMON_NAME + b"\x0c", COUNTRY + b"\x0c")


def negative_serial_number() -> bytes:
    """Make the leaf's serial number negative (RFC 5280 section 4.1.2.2: positive)."""
    leaf = chain().certificate
    at = leaf.index(bytes.fromhex("a003020102") + b"\x02") + 7  # version 3, then the serial number
    return document(certificate=leaf[:at] + b"\xff" + leaf[at + 1 :])


def year_0(position: str = "leaf", name: str = "not_before") -> bytes:
    """Put a time that `datetime` cannot hold into a certificate."""
    return document(one_with(position, **{name: b"\x18\x0f00000101000000Z"}).chain)

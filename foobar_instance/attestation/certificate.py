"""A certificate in the one form that AWS's have, to the byte; any other is left to the library.

It is read in two steps, so that a stranger's bytes get no further than `cut`: that takes what is
signed from the signature, and only what its issuer has signed is then looked into.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

# Tags of DER (X.690 section 8).
_BIT_STRING: Final = 0x03
_INTEGER: Final = 0x02
_OCTET_STRING: Final = 0x04
_SEQUENCE: Final = 0x30
_SET: Final = 0x31
_EXTENSIONS: Final = 0xA3  # RFC 5280 section 4.1: [3] EXPLICIT

# What is the same in every certificate of AWS's.
_ECDSA_SHA384: Final = bytes.fromhex("300a06082a8648ce3d040303")  # RFC 5758 section 3.2
_VERSION_3: Final = bytes.fromhex("a003020102")
_UTC_TIME: Final = bytes.fromhex("170d")
_GENERALIZED_TIME: Final = bytes.fromhex("180f")
# An uncompressed point on P-384 (RFC 5480 section 2).
_P384_KEY: Final = bytes.fromhex("3076301006072a8648ce3d020106052b8104002203620004")
_KEY_BYTES: Final = 120
# RFC 5280 section 4.1.2.2 allows 20; a zero before them is what half of the longest take in DER.
_SERIAL_NUMBER_BYTES: Final = 21

# How a relative name of one attribute begins (RFC 5280 section 4.1.2.4), by the length of its text:
# SET, SEQUENCE, and the object identifier 2.5.4.x up to x. The text is a UTF8String.
_HEADS: Final = {
    size: bytes((0x31, size + 9, 0x30, size + 7, 0x06, 0x03, 0x55, 0x04)) for size in range(119)
}
_HEAD_BYTES: Final = 11  # these 8, x, and the text's tag and length
_COMMON_NAME: Final = 3  # x
_UTF8_STRING: Final = b"\x0c"
_COUNTRY: Final = bytes.fromhex("310b3009060355040613025553")  # C=US, the one text of another kind

# Extensions (RFC 5280 section 4.2.1): all object identifiers are 2.5.29.x.
_OID_BYTES: Final = 5
_CRITICAL: Final = bytes.fromhex("0101ff")
_KEY_USAGE: Final = bytes.fromhex("0603551d0f")
_BASIC_CONSTRAINTS: Final = bytes.fromhex("0603551d13")
_READ: Final = frozenset((_KEY_USAGE, _BASIC_CONSTRAINTS))
_UNREAD: Final = frozenset(  # the key identifiers of subject and issuer, where revocation is listed
    map(bytes.fromhex, ("0603551d0e", "0603551d23", "0603551d1f"))
)
_NO_AUTHORITY: Final = bytes.fromhex("3000")
_AUTHORITY: Final = bytes.fromhex("30030101ff")
_AUTHORITY_WITH_LENGTH: Final = bytes.fromhex("30060101ff0201")  # and the length, one byte
_USAGE: Final = bytes.fromhex("0302")  # and how many bits are unused, and the bits
_DIGITAL_SIGNATURE: Final = 0x80
_CERTIFICATE_SIGNING: Final = 0x04


class UnfamiliarCertificate(Exception):  # noqa: N818 - it says nothing ill of the certificate
    """A certificate has not the form that is known here, or its issuer's signature is not right."""


class CertificateFields(NamedTuple):
    """What path validation looks at in a certificate (RFC 5280 section 6.1.3).

    Names and the key are in DER; `common_name` is the text of the subject's only one; `extensions`
    maps object identifiers in DER to whether they are critical and their values. All methods raise
    `UnfamiliarCertificate`.
    """

    issuer: bytes
    subject: bytes
    common_name: bytes
    not_before: datetime
    not_after: datetime
    key: bytes
    extensions: dict[bytes, tuple[bool, bytes]]

    def path_length(self) -> int | None:
        """How many authorities may follow this one, by its certificate alone; None for any number.

        It has to be an authority, and one that may sign certificates.
        """
        if not self._usage(critical=True) & _CERTIFICATE_SIGNING:
            raise UnfamiliarCertificate
        constraints = self._constraints()
        if constraints == _AUTHORITY:
            return None
        if constraints[:-1] != _AUTHORITY_WITH_LENGTH or constraints[-1] > 0x7F:
            raise UnfamiliarCertificate
        return constraints[-1]

    def check_leaf(self) -> None:
        """It has to be no authority, and one that may sign documents."""
        if self._constraints() != _NO_AUTHORITY:
            raise UnfamiliarCertificate
        if not self._usage(critical=False) & _DIGITAL_SIGNATURE:
            raise UnfamiliarCertificate

    def _constraints(self) -> bytes:
        critical, value = self.extensions.get(_BASIC_CONSTRAINTS, (False, b""))
        if not critical:
            raise UnfamiliarCertificate
        return value

    def _usage(self, *, critical: bool) -> int:
        is_critical, value = self.extensions.get(_KEY_USAGE, (False, b""))
        if is_critical < critical or value[:-2] != _USAGE:
            raise UnfamiliarCertificate
        unused, bits = value[-2:]
        if bits % (1 << unused):
            raise UnfamiliarCertificate
        return bits


def cut(der: bytes) -> tuple[bytes, bytes]:
    """What is signed in a certificate, with its head, and the signature: r and s in DER."""
    begin, end = _element(der, 0, _SEQUENCE)
    signed_end = _element(der, begin, _SEQUENCE)[1]
    value, value_end = _element(der, _skip(der, signed_end, _ECDSA_SHA384), _BIT_STRING)
    if not end == value_end == len(der):
        raise UnfamiliarCertificate
    return der[begin:signed_end], der[_skip(der, value, b"\0") :]  # no unused bits


def read(signed: bytes) -> CertificateFields:
    """The fields of what `cut` has found signed."""
    at, end = _element(signed, 0, _SEQUENCE)
    at = _skip(signed, at, _VERSION_3)
    issuer = _skip(signed, _serial_number(signed, at), _ECDSA_SHA384)
    times = _element(signed, issuer, _SEQUENCE)[1]
    first, subject = _element(signed, times, _SEQUENCE)
    not_before, second = _time(signed, first)
    not_after, times_end = _time(signed, second)
    key = _element(signed, subject, _SEQUENCE)[1]
    _skip(signed, key, _P384_KEY)
    key_end = key + _KEY_BYTES
    extensions, extensions_end = _element(signed, key_end, _EXTENSIONS)
    if times_end != subject or not extensions_end == end == len(signed):
        raise UnfamiliarCertificate
    return CertificateFields(
        issuer=signed[issuer:times],
        subject=signed[subject:key],
        common_name=_common_name(signed, subject),
        not_before=not_before,
        not_after=not_after,
        key=signed[key:key_end],
        extensions=_extensions(signed, extensions),
    )


def _serial_number(signed: bytes, at: int) -> int:
    """Where the serial number ends, which is positive and serves revocation only."""
    begin, end = _element(signed, at, _INTEGER)
    if end - begin > _SERIAL_NUMBER_BYTES or not b"\0\x80" <= signed[begin:end] < b"\x80":
        raise UnfamiliarCertificate
    return end


def _common_name(signed: bytes, at: int) -> bytes:
    """The only common name in the name at `at`, in which all is ASCII."""
    names: list[bytes] = []
    at, end = _element(signed, at, _SEQUENCE)
    if not signed[at:end].isascii():
        raise UnfamiliarCertificate
    while at < end:
        if signed.startswith(_COUNTRY, at):
            at += len(_COUNTRY)
            continue
        begin = at + _HEAD_BYTES
        head = signed[at:begin]
        if head[:8] != _HEADS.get(head[-1]) or head[9:10] != _UTF8_STRING:
            raise UnfamiliarCertificate
        at = begin + head[-1]
        if head[8] == _COMMON_NAME:
            names.append(signed[begin:at])
    if at != end or len(names) != 1:
        raise UnfamiliarCertificate
    return names[0]


def _time(signed: bytes, at: int) -> tuple[datetime, int]:
    """The time at `at`, and where it ends.

    A UTCTime in the years 1950 to 2049, a GeneralizedTime in later ones (RFC 5280 section 4.1.2.5).
    """
    if signed.startswith(_UTC_TIME, at):
        begin = at + len(_UTC_TIME)
        end = begin + len("YYMMDDhhmmss")
        digits = (b"19" if signed[begin:end] >= b"5" else b"20") + signed[begin:end]
    else:
        begin = _skip(signed, at, _GENERALIZED_TIME)
        end = begin + len("YYYYMMDDhhmmss")
        digits = signed[begin:end]
        if digits < b"205":
            raise UnfamiliarCertificate
    if not digits.isdigit() or digits[8:10] == b"24":  # midnight, to later releases of Python
        raise UnfamiliarCertificate
    try:
        time = datetime.fromisoformat(f"{digits[:8].decode()}T{digits[8:].decode()}Z")
    except ValueError as error:
        raise UnfamiliarCertificate from error
    return time, _skip(signed, end, b"Z")


def _extensions(signed: bytes, at: int) -> dict[bytes, tuple[bool, bytes]]:
    found: dict[bytes, tuple[bool, bytes]] = {}
    at, end = _element(signed, at, _SEQUENCE)
    if end != len(signed):
        raise UnfamiliarCertificate
    while at < end:
        begin, at = _element(signed, at, _SEQUENCE)
        value = begin + _OID_BYTES
        oid = signed[begin:value]
        critical = signed.startswith(_CRITICAL, value)
        value, value_end = _element(signed, value + critical * len(_CRITICAL), _OCTET_STRING)
        if value_end != at or oid in found:
            raise UnfamiliarCertificate
        if oid not in _READ and (critical or oid not in _UNREAD):
            raise UnfamiliarCertificate
        found[oid] = critical, signed[value:value_end]
    return found


def _skip(der: bytes, at: int, what: bytes) -> int:
    """Where what follows `what` begins, which has to be at `at`."""
    if not der.startswith(what, at):
        raise UnfamiliarCertificate
    return at + len(what)


def _element(der: bytes, at: int, tag: int) -> tuple[int, int]:
    """Where the content of the element at `at` begins and ends; it has to have `tag`.

    Its length has the shortest form, as DER demands (X.690 section 10.1), and up to two bytes.
    """
    begin = at + 2
    if begin > len(der) or der[at] != tag:
        raise UnfamiliarCertificate
    length = der[at + 1]
    if length >= 0x80:
        size = length - 0x80
        begin += size
        length = int.from_bytes(der[at + 2 : begin], "big")
        if size > 2 or length < (0x80 if size == 1 else 0x100):
            raise UnfamiliarCertificate
    if begin + length > len(der):
        raise UnfamiliarCertificate
    return begin, begin + length

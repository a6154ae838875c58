"""An attestation document as a person wants to read it, and the same facts for programs."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509.oid import NameOID

from foobar_instance.attestation import (
    Attestation,
    AttestationError,
    parse_attestation,
    verify_attestation,
)
from foobar_instance.errors import NotVerifiedError
from foobar_instance.trust import refusal

# As in attestation.chain: what hostile certificates make `cryptography` warn of is for no terminal.
warnings.filterwarnings("ignore", module=re.escape(__name__))

MAX_INPUT: Final = 64 * 1024
"""Longest input in bytes; the longest genuine document has 7,539, in hexadecimal twice as many."""

PCR_MEANINGS: Final = {
    0: "enclave image",
    1: "kernel and boot",
    2: "application",
    3: "IAM role",
    4: "instance id",
    8: "signing cert",
}
"""What Nitro measures into which register (AWS Nitro Enclaves user guide, attestation)."""

_WIDTH: Final = 80
_INDENT: Final = 12
_MAX_LINES: Final = 12
_COSE_FIRST_BYTES: Final = (0x84, 0xD2)  # an array of 4, or tag 18 (RFC 9052 section 4.2)
_STANDARD_ALPHABET: Final = bytes.maketrans(b"-_", b"+/")
_MODULE_ID: Final = re.compile(r"(i-[0-9a-f]+)-[0-9a-z]+", re.ASCII)
_LEAF_REGION: Final = re.compile(r"\.([a-z0-9-]+)\.aws", re.ASCII)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verification said: `error` is None where the document verified under `root`."""

    root: str
    error: AttestationError | None = None

    @property
    def verified(self) -> bool:
        """Whether the document verified."""
        return self.error is None


@dataclass(frozen=True, slots=True)
class Description:
    """A document's content, the verdict on it, and when it was looked at."""

    attestation: Attestation
    verdict: Verdict
    size: int
    now: datetime

    @property
    def instance_id(self) -> str | None:
        """The parent's instance id, where the module id has the form of AWS's."""
        match = _MODULE_ID.fullmatch(self.attestation.module_id)
        return match[1] if match else None

    @property
    def pcr4_agrees(self) -> bool:
        """Whether PCR4 is the measurement of the instance id: SHA-384 of 48 zero bytes and it."""
        expected = hashlib.sha384(bytes(48) + (self.instance_id or "").encode()).digest()
        return self.attestation.pcrs.get(4) == expected

    @property
    def age(self) -> timedelta:
        """How long ago the document was signed."""
        return self.now - self.attestation.timestamp


def describe(
    document: bytes, root: x509.Certificate, root_name: str, *, now: datetime
) -> Description:
    """What a raw document says, and whether it verifies under `root` at its own signed time.

    Raises:
        NotVerifiedError: it is no attestation document, so there is nothing to describe.
    """
    try:
        attestation = parse_attestation(document)
    except AttestationError as error:
        raise refusal("the document", error) from error
    try:
        verify_attestation(document, root=root, allow_debug=True)
    except AttestationError as error:
        verdict = Verdict(root_name, error)
    else:
        verdict = Verdict(root_name)
    return Description(attestation, verdict, len(document), now)


def decode_input(data: bytes) -> bytes:
    """The raw document in `data`, which is raw, base64 (of either alphabet) or hexadecimal.

    Raises:
        NotVerifiedError: too long, or none of the three.
    """
    if len(data) > MAX_INPUT:
        raise NotVerifiedError(f"the input is no attestation document: over {MAX_INPUT} bytes")
    if data[:1] and data[0] in _COSE_FIRST_BYTES:
        return data
    text = b"".join(data.split())
    if re.fullmatch(rb"(?:[0-9A-Fa-f]{2})+", text):
        return bytes.fromhex(text.decode("ascii"))
    padded = text.rstrip(b"=").translate(_STANDARD_ALPHABET)
    padded += b"=" * (-len(padded) % 4)
    try:
        return base64.b64decode(padded, validate=True)
    except binascii.Error as error:
        raise NotVerifiedError(
            "the input is no attestation document: neither raw, nor base64, nor hexadecimal"
        ) from error


def as_json(description: Description) -> str:
    """The description as one JSON object; byte strings in hexadecimal."""
    attestation, error = description.attestation, description.verdict.error
    return json.dumps(
        {
            "verified": description.verdict.verified,
            "root": description.verdict.root,
            "rule": error.rule if error else None,
            "error": str(error) if error else None,
            "bytes": description.size,
            "moduleId": attestation.module_id,
            "instanceId": description.instance_id,
            "region": _region(attestation),
            "timestamp": attestation.timestamp.isoformat(timespec="milliseconds"),
            "ageSeconds": int(description.age.total_seconds()),
            "debug": attestation.is_debug,
            "digest": attestation.digest,
            "pcrs": {str(index): value.hex() for index, value in attestation.pcrs.items()},
            "certificates": [_certificate_json(one) for one in _certificates(attestation)],
            "publicKey": _hex(attestation.public_key),
            "userData": _hex(attestation.user_data),
            "userDataDecoded": _decoded(attestation.user_data),
            "nonce": _hex(attestation.nonce),
        },
        indent=2,
    )


def as_text(description: Description) -> str:
    """The description in at most 80 columns."""
    sections = (
        _head(description),
        _measurements(description),
        _chain(description),
        _fields(description.attestation),
        _conclusion(description),
    )
    return "\n\n".join("\n".join(section) for section in sections)


def _head(description: Description) -> Iterator[str]:
    attestation = description.attestation
    mode = "production"
    if attestation.is_debug:
        mode = "DEBUG: PCR0 is zero, so nothing here says which code ran"
    yield f"Attestation document, {description.size:,} bytes"
    yield ""
    yield _row("module", attestation.module_id)
    if description.instance_id:
        agrees = "PCR4 agrees" if description.pcr4_agrees else "PCR4 DOES NOT AGREE"
        yield _row("instance", f"{description.instance_id} ({agrees})")
    yield _row("region", _region(attestation) or "unknown")
    yield _row("signed", f"{_time(attestation.timestamp)} ({_age(description.age)})")
    yield _row("mode", mode)


def _measurements(description: Description) -> Iterator[str]:
    pcrs = description.attestation.pcrs
    yield f"Measurements ({description.attestation.digest})"
    yield ""
    for index, value in pcrs.items():
        if any(value):
            text = value.hex()
            yield f"  PCR{index:<3} {PCR_MEANINGS.get(index, ''):<16} {text[:48]}"
            yield f"{'':26}{text[48:]}"
    zeros = [index for index, value in pcrs.items() if not any(value)]
    if zeros:
        yield f"  zero   PCR{_ranges(zeros)}"


def _chain(description: Description) -> Iterator[str]:
    yield "Certificates, root first"
    yield ""
    for certificate in _certificates(description.attestation):
        if certificate is None:
            yield "  (one that does not parse)"
            continue
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        yield from textwrap.wrap(
            _common_name(certificate), _WIDTH - 2, initial_indent="  ", subsequent_indent="    "
        )
        yield f"    {_time(begin, milliseconds=False)} to {_time(end, milliseconds=False)}"


def _fields(attestation: Attestation) -> Iterator[str]:
    yield "Fields that the enclave chose"
    yield ""
    yield from _field("public key", attestation.public_key, _public_key_lines)
    yield from _field("nonce", attestation.nonce, _data_lines)
    yield from _field("user data", attestation.user_data, _data_lines)


def _conclusion(description: Description) -> Iterator[str]:
    verdict = description.verdict
    if verdict.error is None:
        yield f"VERIFIED under {verdict.root}, at its own signed time"
        if description.attestation.is_debug:
            yield "  The signature is genuine, but debug mode proves nothing about the code."
        return
    yield f"NOT VERIFIED under {verdict.root}: rule {verdict.error.rule}"
    yield from textwrap.wrap(
        str(verdict.error), _WIDTH, initial_indent="  ", subsequent_indent="  "
    )


def _field(
    name: str, value: bytes | None, lines: Callable[[bytes], Iterator[str]]
) -> Iterator[str]:
    if value is None:
        yield _row(name, "none")
    elif not value:
        yield _row(name, "empty")
    else:
        shown = list(lines(value))
        for number, line in enumerate(shown[:_MAX_LINES]):
            yield _row("" if number else name, line)
        if len(shown) > _MAX_LINES:
            yield _row(
                "", f"... {len(shown) - _MAX_LINES} lines more ({len(value):,} bytes in all)"
            )


def _public_key_lines(value: bytes) -> Iterator[str]:
    kind = _key_kind(value)
    if kind is None:
        yield from _data_lines(value)
        return
    yield f"{kind}, DER SubjectPublicKeyInfo of {len(value)} bytes; its SHA-256 is"
    yield hashlib.sha256(value).hexdigest()


def _key_kind(value: bytes) -> str | None:
    try:
        key = load_der_public_key(value)
    except Exception:  # noqa: BLE001 - the library does not bound what it raises
        return None
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {key.curve.name}"
    return type(key).__name__


def _data_lines(value: bytes) -> Iterator[str]:
    """JSON, else text, else hexadecimal, in rows that fit."""
    decoded = _decoded(value)
    room = _WIDTH - 2 - _INDENT
    if isinstance(decoded, dict | list):
        for line in json.dumps(decoded, indent=2).splitlines():
            yield from textwrap.wrap(line, room, drop_whitespace=False, subsequent_indent="    ")
    elif isinstance(decoded, str):
        for line in decoded.splitlines():
            yield from textwrap.wrap(line, room) or [""]
    else:
        yield from textwrap.wrap(value.hex(), 64)


def _decoded(value: bytes | None) -> object:
    """The JSON object or array in `value`, else its printable text, else None."""
    if not value:
        return None
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return None
    try:
        decoded = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        decoded = None
    if isinstance(decoded, dict | list):
        return decoded
    printable = all(c.isprintable() or c in "\r\n\t" for c in text)
    return text if printable else None


def _finite(number: str) -> float:
    """A number that JSON has, which knows no infinity and no NaN (RFC 8259 section 6)."""
    value = float(number)
    if not math.isfinite(value):
        raise ValueError
    return value


def _certificates(attestation: Attestation) -> list[x509.Certificate | None]:
    """Root first, leaf last; None for one that does not parse."""
    certificates: list[x509.Certificate | None] = []
    for der in (*attestation.cabundle, attestation.certificate):
        try:
            certificate = x509.load_der_x509_certificate(der)
            _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc  # the year 0
        except Exception:  # noqa: BLE001 - the library does not bound what it raises
            certificates.append(None)
        else:
            certificates.append(certificate)
    return certificates


def _certificate_json(certificate: x509.Certificate | None) -> dict[str, str] | None:
    if certificate is None:
        return None
    return {
        "commonName": _common_name(certificate),
        "notBefore": certificate.not_valid_before_utc.isoformat(),
        "notAfter": certificate.not_valid_after_utc.isoformat(),
    }


def _common_name(certificate: x509.Certificate) -> str:
    try:
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except Exception:  # noqa: BLE001 - TypeError, for one, where an attribute is a BIT STRING
        names = []
    text = str(names[0].value) if names else "(no common name)"
    return "".join(c if c.isprintable() else "?" for c in text)


def _region(attestation: Attestation) -> str | None:
    """The region in the leaf's name, `<module id>.<region>.aws`."""
    leaf = _certificates(attestation)[-1]
    name = _common_name(leaf) if leaf else ""
    match = _LEAF_REGION.fullmatch(name.removeprefix(attestation.module_id))
    return match[1] if match else None


def _row(label: str, text: str) -> str:
    return f"  {label:<{_INDENT}}{text}".rstrip()


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def _time(moment: datetime, *, milliseconds: bool = True) -> str:
    text = f"{moment:%Y-%m-%d %H:%M:%S}"
    return f"{text}.{moment.microsecond // 1000:03} UTC" if milliseconds else f"{text} UTC"


def _age(age: timedelta) -> str:
    """An age in its two largest units."""
    if age < timedelta():
        return "in the future"
    days, seconds = age.days, age.seconds
    units = {
        "year": days // 365,
        "day": days % 365,
        "hour": seconds // 3600,
        "minute": seconds % 3600 // 60,
        "second": seconds % 60,
    }
    parts = [f"{count} {unit}{'s' * (count != 1)}" for unit, count in units.items() if count]
    return " ".join(parts[:2] or ["0 seconds"]) + " ago"


def _ranges(numbers: list[int]) -> str:
    """`5-7, 9-15` for 5, 6, 7, 9, ..., 15."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1].append(number)
        else:
            ranges.append([number])
    return ", ".join(f"{r[0]}-{r[-1]}" if len(r) > 1 else str(r[0]) for r in ranges)

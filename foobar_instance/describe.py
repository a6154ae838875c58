"""An attestation document as a person wants to read it, and the same facts for programs."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
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
from foobar_instance.terminal import visible
from foobar_instance.trust import refusal
from foobar_shared.encoding import parse_json
from foobar_shared.errors import MessageError

# Hostile certificates make `cryptography` warn; a user can do nothing about it.
warnings.filterwarnings("ignore", module=re.escape(__name__))

MAX_INPUT: Final = 256 * 1024
"""Longest input in bytes; the longest genuine document has 7,539, one JSON number a line each."""

# AWS Nitro Enclaves user guide, "Cryptographic attestation".
_PCR_MEANINGS: Final = {
    0: "enclave image",
    1: "kernel and boot",
    2: "application",
    3: "IAM role",
    4: "instance id",
    8: "signing cert",
    17: "sandbox policy",
}
_KINDS: Final = {
    "enclave": "Nitro Enclave",
    "sandbox": "PCR17 is set, as in a Nitro Sandbox: PCR17 tells what it runs",
    "unknown": "not known: the module id is no enclave's, and PCR17 is not set",
}
_WIDTH: Final = 80
_INDENT: Final = 12
_MAX_LINES: Final = 12
_COSE_FIRST_BYTES: Final = (b"\x84", b"\xd2")  # an array of 4, or tag 18 (RFC 9052 section 4.2)
_MEMBERS: Final = ("attestation", "document", "attestationDocument", "attestation_doc")
_MAX_NESTING: Final = 1  # of objects around the one that holds the document
_DATA_URI: Final = re.compile(rb"data:[^,]*,", re.IGNORECASE)  # RFC 2397
_STANDARD_ALPHABET: Final = bytes.maketrans(b"-_", b"+/")
_MODULE_ID: Final = re.compile(r"(i-[0-9a-f]+)-([0-9a-z]+)", re.ASCII)
_LEAF_REGION: Final = re.compile(r"\.([a-z0-9-]+)\.aws", re.ASCII)


@dataclass(frozen=True, slots=True)
class Description:
    """A document's content and size, when it was looked at, and whether it verified.

    `certificates` are the document's, root first and leaf last, None for one that does not parse;
    `error` is None where the document verified under the root that `root` names.
    """

    attestation: Attestation
    certificates: tuple[x509.Certificate | None, ...]
    root: str
    error: AttestationError | None
    size: int
    now: datetime

    @property
    def instance_id(self) -> str | None:
        """Return the parent's instance id, where the module id has AWS's form."""
        match = _MODULE_ID.fullmatch(self.attestation.module_id)
        return match[1] if match else None

    @property
    def kind(self) -> str:
        """Return what made the document, as far as it tells: `enclave`, `sandbox` or `unknown`."""
        if self.attestation.is_sandbox:
            return "sandbox"
        match = _MODULE_ID.fullmatch(self.attestation.module_id)
        return "enclave" if match and match[2].startswith("enc") else "unknown"

    @property
    def region(self) -> str | None:
        """Return the AWS region, from the leaf certificate's name `<module id>.<region>.aws`."""
        leaf = self.certificates[-1]
        name = _common_name(leaf) if leaf else ""
        match = _LEAF_REGION.fullmatch(name.removeprefix(self.attestation.module_id))
        return match[1] if match else None

    @property
    def age(self) -> timedelta:
        """Return how long ago the document was signed."""
        return self.now - self.attestation.timestamp


def describe(
    document: bytes, root: x509.Certificate, root_name: str, *, now: datetime
) -> Description:
    """Read a raw document, and verify it under `root` at its own signed time.

    Raises:
        NotVerifiedError: it is no attestation document, so there is nothing to describe.
    """
    try:
        attestation = parse_attestation(document)
    except AttestationError as error:
        raise refusal("the document", error) from error
    broken = None
    try:
        verify_attestation(document, root=root, allow_debug=True)
    except AttestationError as error:
        broken = error
    certificates = tuple(map(_load, (*attestation.cabundle, attestation.certificate)))
    return Description(attestation, certificates, root_name, broken, len(document), now)


def decode_input(data: bytes) -> bytes:
    """Return the raw document in `data`.

    It may be raw, base64 (of either alphabet), hexadecimal (0x or not), a data: URI of base64, a
    JSON list of integers, or an answer in JSON with any of these in a member such as `attestation`.

    Raises:
        NotVerifiedError: too long, or none of these.
    """
    if len(data) > MAX_INPUT:
        raise NotVerifiedError(f"the input is no attestation document: over {MAX_INPUT} bytes")
    if data.startswith(_COSE_FIRST_BYTES):
        return data
    try:
        if data.lstrip().startswith((b"{", b"[", b'"')):
            return _from_json(parse_json(data), _MAX_NESTING)
        return _from_text(data)
    except (ValueError, MessageError) as error:
        raise NotVerifiedError(
            "the input is no attestation document: neither raw, nor base64, hexadecimal, a data: "
            "URI, or JSON with one of them"
        ) from error


def _from_json(value: object, nesting: int) -> bytes:
    if isinstance(value, str):
        return _from_text(value.encode("ascii"))
    if isinstance(value, list):
        if not all(type(number) is int for number in value):
            raise ValueError
        return bytes(value)
    if not isinstance(value, dict) or nesting < 0:
        raise ValueError
    found = [value[name] for name in _MEMBERS if value.get(name) is not None]
    # A message such as {"decrypt": {"attestation": ...}} has the document one object deeper.
    if not found and nesting:
        inner = [item for item in value.values() if isinstance(item, dict)]
        found = [item for item in inner if any(item.get(name) for name in _MEMBERS)]
    if len(found) != 1:
        raise ValueError
    return _from_json(found[0], nesting - 1)


def _from_text(data: bytes) -> bytes:
    text = b"".join(data.split())
    uri = _DATA_URI.match(text)
    if uri:
        if not uri[0].lower().endswith(b";base64,"):
            raise ValueError
        text = text[uri.end() :]
    if re.fullmatch(rb"(?:0[xX])?(?:[0-9A-Fa-f]{2})+", text):
        return bytes.fromhex(text.decode("ascii").lower().removeprefix("0x"))
    text = text.rstrip(b"=").translate(_STANDARD_ALPHABET)
    return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)


def as_json(description: Description) -> str:
    """Return the description as one JSON object; byte strings in hexadecimal."""
    attestation, error = description.attestation, description.error
    return json.dumps(
        {
            "verified": error is None,
            "root": description.root,
            "rule": error.rule if error else None,
            "error": str(error) if error else None,
            "bytes": description.size,
            "kind": description.kind,
            "moduleId": attestation.module_id,
            "instanceId": description.instance_id,
            "region": description.region,
            "timestamp": attestation.timestamp.isoformat(timespec="milliseconds"),
            "ageSeconds": int(description.age.total_seconds()),
            "debug": attestation.is_debug,
            "digest": attestation.digest,
            "pcrs": {str(index): value.hex() for index, value in attestation.pcrs.items()},
            "certificates": [
                {
                    "commonName": _common_name(certificate),
                    "notBefore": certificate.not_valid_before_utc.isoformat(),
                    "notAfter": certificate.not_valid_after_utc.isoformat(),
                }
                if certificate
                else None
                for certificate in description.certificates
            ],
            "publicKey": _hex(attestation.public_key),
            "userData": _hex(attestation.user_data),
            "userDataDecoded": _decoded(attestation.user_data or b""),
            "nonce": _hex(attestation.nonce),
        },
        indent=2,
    )


def as_text(description: Description) -> str:
    """Return the description in at most 80 columns."""
    attestation = description.attestation
    sections = (
        _head(description),
        _measurements(attestation),
        _chain(description.certificates),
        _fields(attestation),
        _verdict(description),
    )
    return "\n\n".join("\n".join(section) for section in sections)


def _head(description: Description) -> Iterator[str]:
    attestation, instance_id = description.attestation, description.instance_id
    yield f"Attestation document, {description.size:,} bytes\n"
    yield _row("kind", _KINDS[description.kind])
    yield _row("module", attestation.module_id)
    if instance_id:
        # PCR4 is SHA-384 over 48 zero bytes and the instance id.
        expected = hashlib.sha384(bytes(48) + instance_id.encode()).digest()
        agrees = attestation.pcrs.get(4) == expected
        yield _row("instance", f"{instance_id} (PCR4 {'agrees' if agrees else 'DOES NOT AGREE'})")
    yield _row("region", description.region or "unknown")
    yield _row("signed", f"{_time(attestation.timestamp, 'milliseconds')} ({_age(description)})")
    debug = "DEBUG: PCR0 is zero, so nothing here says which code ran"
    yield _row("mode", debug if attestation.is_debug else "production")


def _measurements(attestation: Attestation) -> Iterator[str]:
    yield f"Measurements ({attestation.digest})\n"
    zeros: list[int] = []
    for index, value in attestation.pcrs.items():
        if any(value):
            text = value.hex()
            yield f"  PCR{index:<3} {_PCR_MEANINGS.get(index, ''):<16} {text[:48]}"
            yield f"{'':26}{text[48:]}"
        else:
            zeros.append(index)
    if zeros:
        yield f"  zero   PCR{_ranges(zeros)}"


def _chain(certificates: Sequence[x509.Certificate | None]) -> Iterator[str]:
    yield "Certificates, root first\n"
    for certificate in certificates:
        if certificate is None:
            yield "  (one that does not parse)"
            continue
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        yield from textwrap.wrap(
            _common_name(certificate), _WIDTH - 2, initial_indent="  ", subsequent_indent="    "
        )
        yield f"    {_time(begin)} to {_time(end)}"


def _fields(attestation: Attestation) -> Iterator[str]:
    yield "Fields that the enclave chose\n"
    yield from _field("public key", attestation.public_key)
    yield from _field("nonce", attestation.nonce)
    yield from _field("user data", attestation.user_data)


def _verdict(description: Description) -> Iterator[str]:
    error, root = description.error, visible(description.root)  # perhaps a file's name
    if error is None:
        yield f"VERIFIED under {root}, at its own signed time"
        if description.attestation.is_debug:
            yield "  The signature is genuine, but debug mode proves nothing about the code."
        return
    yield f"NOT VERIFIED under {root}: rule {error.rule}"
    yield from textwrap.wrap(str(error), _WIDTH, initial_indent="  ", subsequent_indent="  ")


def _field(name: str, value: bytes | None) -> Iterator[str]:
    if not value:
        yield _row(name, "none" if value is None else "empty")
        return
    key = _key_kind(value) if name == "public key" else None
    if key:
        text = f"{key}, DER SubjectPublicKeyInfo of {len(value)} bytes; its SHA-256 is"
        lines = [text, hashlib.sha256(value).hexdigest()]
    else:
        lines = list(_data_lines(value))
    if len(lines) > _MAX_LINES:
        more = f"... {len(lines) - _MAX_LINES} lines more ({len(value):,} bytes in all)"
        lines = [*lines[:_MAX_LINES], more]
    for number, line in enumerate(lines):
        yield _row("" if number else name, line)


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
    """Return JSON, else text, else hexadecimal, in rows that fit."""
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


def _decoded(value: bytes) -> object:
    """Return the JSON object or array in `value`, else its printable text, else None."""
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
    return text if text and printable else None


def _finite(number: str) -> float:
    """Return a number that JSON has, which knows no infinity and no NaN (RFC 8259 section 6)."""
    value = float(number)
    if not math.isfinite(value):
        raise ValueError
    return value


def _load(der: bytes) -> x509.Certificate | None:
    """Return the certificate, or None where it does not parse."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc  # the year 0
    except Exception:  # noqa: BLE001 - the library does not bound what it raises
        return None
    return certificate


def _common_name(certificate: x509.Certificate) -> str:
    try:
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except Exception:  # noqa: BLE001 - TypeError, for one, where an attribute is a BIT STRING
        names = []
    text = str(names[0].value) if names else "(no common name)"
    return "".join(c if c.isprintable() else "?" for c in text)


def _row(label: str, text: str) -> str:
    return f"  {label:<{_INDENT}}{text}".rstrip()


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def _time(moment: datetime, precision: str = "seconds") -> str:
    return f"{moment.replace(tzinfo=None).isoformat(' ', precision)} UTC"


def _age(description: Description) -> str:
    """Return an age in its two largest units."""
    age = description.age
    if age < timedelta():
        return "in the future"
    units = {
        "year": age.days // 365,
        "day": age.days % 365,
        "hour": age.seconds // 3600,
        "minute": age.seconds % 3600 // 60,
        "second": age.seconds % 60,
    }
    parts = [f"{count} {unit}{'s' * (count != 1)}" for unit, count in units.items() if count]
    return " ".join(parts[:2] or ["0 seconds"]) + " ago"


def _ranges(numbers: list[int]) -> str:
    """Return `5-7, 9-15` for 5, 6, 7, 9, ..., 15."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1].append(number)
        else:
            ranges.append([number])
    return ", ".join(f"{r[0]}-{r[-1]}" if len(r) > 1 else str(r[0]) for r in ranges)

"""An attestation document's content: parsed by AWS's rules, trusted for nothing yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

from foobar_instance.attestation._cose import SignedMessage, decode_cbor, decode_message, kind
from foobar_instance.attestation._rules import (
    CABUNDLE,
    CERTIFICATE,
    DIGEST,
    MANDATORY_FIELDS,
    MAX_CABUNDLE,
    MAX_CERTIFICATE,
    MAX_FIELD,
    MAX_PCRS,
    MAX_TIMESTAMP,
    MODULE_ID,
    NITRO_TPM,
    OPTIONAL_FIELDS,
    PAYLOAD_CBOR,
    PCR_BYTES,
    PCRS,
    TIMESTAMP,
)

_MANDATORY: Final = ("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle")
_MAX_MODULE_ID: Final = 256  # AWS sets no bound; genuine ids have 39 characters
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Attestation:
    """What an attestation document says.

    Attributes:
        module_id: `<instance id>-enc<16 hexadecimal digits>` in genuine documents.
        timestamp: when the Nitro Secure Module signed, to the millisecond; aware, UTC.
        digest: `SHA384`.
        pcrs: the locked platform configuration registers, index to 48 bytes; read-only.
        certificate: DER of the leaf certificate.
        cabundle: DER of the certificates from the root to the leaf's issuer.
        public_key: up to 1,024 bytes that the enclave chose, or None; also `user_data` and `nonce`.
    """

    module_id: str
    timestamp: datetime
    digest: str
    pcrs: Mapping[int, bytes]
    certificate: bytes
    cabundle: tuple[bytes, ...]
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None

    @property
    def is_debug(self) -> bool:
        """Whether the enclave runs in debug mode, in which Nitro reports PCR0 as all zero.

        PCR3 and PCR4 (role and instance) are set in debug mode too, so that PCR0 alone decides.
        """
        return not any(self.pcrs.get(0, b""))


def parse_attestation(document: bytes) -> Attestation:
    """The content of a raw document, without any trust: for looking at, not for relying on.

    Raises:
        MalformedAttestation: the document breaks one of the rules on form.
    """
    return parse_message(document)[1]


def parse_message(document: bytes) -> tuple[SignedMessage, Attestation]:
    """The COSE message and the content of a raw document.

    Raises:
        MalformedAttestation: see `parse_attestation`.
    """
    message = decode_message(document)
    return message, _parse_payload(message.payload)


def _parse_payload(payload: bytes) -> Attestation:
    fields = _fields(payload)
    return Attestation(
        module_id=_module_id(fields["module_id"]),
        digest=_digest(fields["digest"]),
        timestamp=_timestamp(fields["timestamp"]),
        pcrs=_pcrs(fields["pcrs"]),
        certificate=_certificate(fields["certificate"]),
        cabundle=_cabundle(fields["cabundle"]),
        public_key=_optional(fields, "public_key"),
        user_data=_optional(fields, "user_data"),
        nonce=_optional(fields, "nonce"),
    )


def _fields(payload: bytes) -> dict[str, object]:
    """The payload's map. Unknown keys are ignored: AWS may add some, and signs those too."""
    item = decode_cbor(payload, PAYLOAD_CBOR)
    if not isinstance(item, dict):
        raise PAYLOAD_CBOR.broken(f"it is {kind(item)}")
    if not all(isinstance(key, str) for key in item):
        raise PAYLOAD_CBOR.broken("a key is not text")
    if "pcrs" not in item and "nitrotpm_pcrs" in item:
        raise NITRO_TPM.broken("this one is a NitroTPM document of a whole EC2 instance")
    missing = [name for name in _MANDATORY if item.get(name) is None]
    if missing:
        raise MANDATORY_FIELDS.broken(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'}"
        )
    return item


def _module_id(value: object) -> str:
    if not isinstance(value, str):
        raise MODULE_ID.broken(f"it is {kind(value)}")
    if not 0 < len(value) <= _MAX_MODULE_ID:
        raise MODULE_ID.broken(f"it has {len(value)}")
    if not value.isascii() or not value.isprintable():
        raise MODULE_ID.broken("some are not printable ASCII")
    return value


def _digest(value: object) -> str:
    if value != "SHA384":
        raise DIGEST.broken(
            f"it is {kind(value) if not isinstance(value, str) else 'another text'}"
        )
    return "SHA384"


def _timestamp(value: object) -> datetime:
    if type(value) is not int:
        raise TIMESTAMP.broken(f"it is {kind(value)}")
    if not 0 < value <= MAX_TIMESTAMP:
        raise TIMESTAMP.broken(f"it is {value}")
    return _EPOCH + timedelta(milliseconds=value)


def _pcrs(value: object) -> Mapping[int, bytes]:
    if not isinstance(value, dict) or not 0 < len(value) <= MAX_PCRS:
        raise PCRS.broken(f"it is {kind(value)}")
    pcrs: dict[int, bytes] = {}
    for index, register in value.items():
        if type(index) is not int or not 0 <= index < MAX_PCRS:
            raise PCRS.broken("an index is no such integer")
        if not isinstance(register, bytes) or len(register) != PCR_BYTES:
            raise PCRS.broken(f"PCR{index} is {kind(register)}")
        pcrs[index] = register
    return MappingProxyType(dict(sorted(pcrs.items())))


def _certificate(value: object) -> bytes:
    if not isinstance(value, bytes) or not 0 < len(value) <= MAX_CERTIFICATE:
        raise CERTIFICATE.broken(f"it is {kind(value)}")
    return value


def _cabundle(value: object) -> tuple[bytes, ...]:
    if not isinstance(value, list | tuple) or not 0 < len(value) <= MAX_CABUNDLE:
        raise CABUNDLE.broken(f"it is {kind(value)}")
    for number, certificate in enumerate(value, 1):
        if not isinstance(certificate, bytes) or not 0 < len(certificate) <= MAX_CERTIFICATE:
            raise CABUNDLE.broken(f"number {number} is {kind(certificate)}")
    return tuple(value)


def _optional(fields: dict[str, object], name: str) -> bytes | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, bytes) or len(value) > MAX_FIELD:
        raise OPTIONAL_FIELDS.broken(f"{name} is {kind(value)}")
    return value

"""The content of an attestation document: parsed by AWS's rules, not yet trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

from foobar_instance.attestation import _rules as rules
from foobar_instance.attestation._cose import Es384Message, decode_cbor, decode_message
from foobar_instance.attestation._rules import kind
from foobar_shared.key_policy import PCR_BYTES, SANDBOX_PCR, is_debug_mode

_MANDATORY: Final = ("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Attestation:
    """What an attestation document says.

    Attributes:
        module_id: `<instance id>-enc<16 hexadecimal digits>` in genuine documents.
        timestamp: when the Nitro Secure Module signed, to the millisecond; aware, UTC.
        digest: `SHA384`.
        pcrs: the locked PCRs, index to 48 bytes; read-only.
        certificate: DER of the leaf certificate.
        cabundle: DER of the certificates from the root to the leaf's issuer.
        public_key: up to 4,050 bytes that the enclave chose, or None where it gave none.
        user_data: likewise.
        nonce: likewise; in the answer to a request, what the request carried.
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
        """Return whether the enclave runs in debug mode, or its document has no PCR0.

        PCR3 and PCR4 (role and instance) are set in debug mode too, so PCR0 alone decides.
        """
        return is_debug_mode(self.pcrs.get(0, b""))

    @property
    def is_sandbox(self) -> bool:
        """Return whether PCR17 is set, as in a confidential Nitro Sandbox of AWS's.

        Its guest measures the policy that says what it runs into PCR17; PCR0 is AWS's own guest.
        """
        return any(self.pcrs.get(SANDBOX_PCR, b""))


def parse_attestation(document: bytes) -> Attestation:
    """Return what a raw document claims, without verifying anything: for display, never for trust.

    Raises:
        MalformedAttestation: the document breaks one of the rules on form.
    """
    return parse_message(document)[1]


def parse_message(document: bytes) -> tuple[Es384Message, Attestation]:
    """Return the COSE message and the content of a raw document.

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
    """Return the payload's map. Unknown keys are ignored: AWS may add some, and signs them too."""
    item = decode_cbor(payload, rules.PAYLOAD_CBOR)
    if not isinstance(item, dict):
        raise rules.PAYLOAD_CBOR.broken(f"it is {kind(item)}")
    if not all(isinstance(key, str) for key in item):
        raise rules.PAYLOAD_CBOR.broken("a key is not text")
    if "pcrs" not in item and "nitrotpm_pcrs" in item:
        raise rules.NITRO_TPM.broken("this one is a NitroTPM document of a whole EC2 instance")
    missing = [name for name in _MANDATORY if item.get(name) is None]
    if missing:
        raise rules.MANDATORY_FIELDS.broken(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'}"
        )
    return item


def _module_id(value: object) -> str:
    if not isinstance(value, str):
        raise rules.MODULE_ID.broken(f"it is {kind(value)}")
    if not 0 < len(value) <= rules.MAX_MODULE_ID:
        raise rules.MODULE_ID.broken(f"it has {len(value)}")
    if not value.isascii() or not value.isprintable():
        raise rules.MODULE_ID.broken("some are not printable ASCII")
    return value


def _digest(value: object) -> str:
    if value != "SHA384":
        found = "another text" if isinstance(value, str) else kind(value)
        raise rules.DIGEST.broken(f"it is {found}")
    return "SHA384"


def _timestamp(value: object) -> datetime:
    if type(value) is not int:
        raise rules.TIMESTAMP.broken(f"it is {kind(value)}")
    if not 0 < value <= rules.MAX_TIMESTAMP:
        raise rules.TIMESTAMP.broken(f"it is {value}")
    return _EPOCH + timedelta(milliseconds=value)


def _pcrs(value: object) -> Mapping[int, bytes]:
    if not isinstance(value, dict) or not 0 < len(value) <= rules.MAX_PCRS:
        raise rules.PCRS.broken(f"it is {kind(value)}")
    pcrs: dict[int, bytes] = {}
    for index, pcr in value.items():
        if type(index) is not int or not 0 <= index < rules.MAX_PCRS:
            raise rules.PCRS.broken("an index is no such integer")
        if not isinstance(pcr, bytes) or len(pcr) != PCR_BYTES:
            raise rules.PCRS.broken(f"PCR{index} is {kind(pcr)}")
        pcrs[index] = pcr
    return MappingProxyType(dict(sorted(pcrs.items())))


def _certificate(value: object) -> bytes:
    if not isinstance(value, bytes) or not 0 < len(value) <= rules.MAX_CERTIFICATE:
        raise rules.CERTIFICATE.broken(f"it is {kind(value)}")
    return value


def _cabundle(value: object) -> tuple[bytes, ...]:
    if not isinstance(value, list | tuple) or not 0 < len(value) <= rules.MAX_CABUNDLE:
        raise rules.CABUNDLE.broken(f"it is {kind(value)}")
    for number, certificate in enumerate(value, 1):
        if not isinstance(certificate, bytes) or not 0 < len(certificate) <= rules.MAX_CERTIFICATE:
            raise rules.CABUNDLE.broken(f"number {number} is {kind(certificate)}")
    return tuple(value)


def _optional(fields: dict[str, object], name: str) -> bytes | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, bytes) or len(value) > rules.MAX_FIELD:
        raise rules.OPTIONAL_FIELDS.broken(f"{name} is {kind(value)}")
    return value

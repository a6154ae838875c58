"""The `Recipient` of a request: a verified attestation document and the key to answer under."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from emulator.kms_fault import invalid
from foobar_instance.attestation import AttestationError, StaleAttestation, Verifier
from foobar_shared.encoding import Fields

MAX_AGE: Final = timedelta(minutes=5)

_RSA_BITS: Final = 2048
_ALGORITHM: Final = "RSAES_OAEP_SHA_256"
_CONDITION: Final = "kms:recipientattestation:"


@dataclass(frozen=True, slots=True)
class Recipient:
    """An attested enclave."""

    public_key: rsa.RSAPublicKey
    context: Mapping[str, str]
    """Condition keys in lower case, and lower-case hexadecimal."""


def verify_recipient(fields: Fields, verifier: Verifier, *, now: datetime) -> Recipient:
    """Return the recipient in a request's `Recipient` member.

    A debug enclave's document is taken: its zero PCRs fail the policy.

    Raises:
        KmsFault: ValidationException where the document does not verify, is older than five
            minutes, or holds no RSA-2048 public key.
        MessageError: a member is missing or of another type.
    """
    if fields.text("KeyEncryptionAlgorithm") != _ALGORITHM:
        raise invalid(f"KeyEncryptionAlgorithm must be {_ALGORITHM}.")
    document = fields.data("AttestationDocument")
    try:
        attestation = verifier.verify(document, at=now, max_age=MAX_AGE, allow_debug=True)
    except StaleAttestation:
        raise invalid("The attestation document has exceeded the five-minute age limit.") from None
    except AttestationError as error:
        raise invalid(f"KMS cannot parse the attestation document: {error}") from None
    context = {f"{_CONDITION}pcr{index}": pcr.hex() for index, pcr in attestation.pcrs.items()}
    if 0 in attestation.pcrs:
        context[f"{_CONDITION}imagesha384"] = attestation.pcrs[0].hex()
    return Recipient(_rsa_key(attestation.public_key), context)


def _rsa_key(der: bytes | None) -> rsa.RSAPublicKey:
    refusal = invalid("The attestation document holds no RSA-2048 public key.")
    try:
        key = load_der_public_key(der or b"")
    except Exception as error:  # the library does not bound what it raises
        raise refusal from error
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size != _RSA_BITS:
        raise refusal
    return key

"""The `Recipient` of a request: a verified attestation document and the key to answer under."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from emulator.kms.errors import validation_error
from emulator.kms.fields import Fields
from foobar_instance.attestation import AttestationError, StaleAttestation, Verifier

MAX_AGE: Final = timedelta(minutes=5)
MAX_DOCUMENT: Final = 262144  # KMS API, RecipientInfo

_RSA_BITS: Final = 2048
_ALGORITHM: Final = "RSAES_OAEP_SHA_256"


@dataclass(frozen=True, slots=True)
class Recipient:
    """Who asked, as the Nitro hypervisor attests it.

    `context` holds the condition keys in lower case: `kms:recipientattestation:pcr<n>` for each
    register in the document and `...:imagesha384`, lower-case hexadecimal.
    """

    public_key: rsa.RSAPublicKey
    context: Mapping[str, str]


def verify_recipient(fields: Fields, verifier: Verifier, *, now: datetime) -> Recipient:
    """The recipient in a request's `Recipient` member.

    A debug enclave's document is as good as another: its zero registers fail the policy.

    Raises:
        KmsError: ValidationException where the document does not verify, is older than five
            minutes, or holds no RSA-2048 public key.
    """
    fields.choice("KeyEncryptionAlgorithm", {_ALGORITHM})
    document = fields.blob("AttestationDocument", maximum=MAX_DOCUMENT)
    try:
        attestation = verifier.verify(document, at=now, max_age=MAX_AGE, allow_debug=True)
    except StaleAttestation:
        raise validation_error(
            "The attestation document has exceeded the five-minute age limit."
        ) from None
    except AttestationError as error:
        raise validation_error(f"KMS cannot parse the attestation document: {error}") from None
    context = {
        f"kms:recipientattestation:pcr{index}": value.hex()
        for index, value in attestation.pcrs.items()
    }
    if 0 in attestation.pcrs:
        context["kms:recipientattestation:imagesha384"] = attestation.pcrs[0].hex()
    return Recipient(_rsa_key(attestation.public_key), context)


def _rsa_key(der: bytes | None) -> rsa.RSAPublicKey:
    refusal = validation_error("The attestation document holds no RSA-2048 public key.")
    try:
        key = load_der_public_key(der or b"")
    except Exception as error:  # the library does not bound what it raises
        raise refusal from error
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size != _RSA_BITS:
        raise refusal
    return key

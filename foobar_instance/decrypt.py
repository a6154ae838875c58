"""`decrypt`: has the enclave decrypt and count, and checks that the answer is to this question."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime

from foobar_instance.attestation import Attestation
from foobar_instance.enclave_client import EnclaveClient
from foobar_instance.errors import KmsStaleAttestationError
from foobar_instance.kms_client import KmsService
from foobar_instance.proof import KEY, RESULT, Proof, Result, attested_count, check_same_enclave
from foobar_instance.terminal import Progress
from foobar_instance.trust import Trust, key_claims
from foobar_shared.addresses import Address
from foobar_shared.envelope import Message
from foobar_shared.messages import (
    NONCE_BYTES,
    DecryptRequest,
    GetAttestationRequest,
    encode_request,
    name_of,
)


def decrypt(
    message: Message,
    key_document: bytes,
    enclave_address: Address,
    trust: Trust,
    progress: Progress,
    *,
    now: Callable[[], datetime],
    kms: Callable[[str], KmsService] = KmsService,
) -> Result:
    """Have the enclave decrypt `message`, which is for the key that `key_document` attests.

    `now` is the clock; `kms` makes the client of KMS in a region.

    Raises:
        InstanceError: a step failed, or something does not verify.
    """
    key_attestation = trust.verify_saved(key_document, KEY)
    key = key_claims(key_attestation, KEY)
    progress.step(f"key attestation verified: {key.key_arn}")
    with EnclaveClient(enclave_address) as enclave:
        service = kms(key.region)

        def derive() -> bytes:
            document = _fresh_document(enclave, trust, key_attestation, now)
            progress.step("enclave attestation verified")
            with progress.waiting("KMS derives the shared secret"):
                return service.derive_shared_secret(
                    key_arn=key.key_arn, ephemeral_key=message.ephemeral_key, attestation=document
                )

        try:
            enveloped = derive()
        except KmsStaleAttestationError:
            progress.warn("KMS says that the attestation is too old: asking for a new one")
            enveloped = derive()
        progress.step("KMS answered: shared secret, encrypted to the enclave")
        challenge = secrets.token_bytes(NONCE_BYTES)
        request = DecryptRequest(enveloped, message.nonce, message.ciphertext, challenge)
        line = encode_request(request)
        with progress.waiting("the enclave decrypts"):
            document = enclave.ask_line(line, name_of(request))
    attestation = trust.verify_fresh(document, RESULT, nonce=challenge, now=now())
    check_same_enclave(attestation, key_attestation, RESULT)
    count = attested_count(attestation, line)
    progress.step("result verified: its attestation is for this very request")
    return Result(count, key, attestation, Proof(key_document, line, document))


def _fresh_document(
    enclave: EnclaveClient, trust: Trust, key: Attestation, now: Callable[[], datetime]
) -> bytes:
    """Return a new attestation document of the enclave that made the key."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    document = enclave.ask(GetAttestationRequest(nonce))
    what = "the enclave's attestation"
    attestation = trust.verify_fresh(document, what, nonce=nonce, now=now())
    check_same_enclave(attestation, key, what)
    return document

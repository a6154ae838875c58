"""`decrypt`: has the enclave decrypt and count, and checks that the answer is to this question."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from foobar_instance.enclave_client import EnclaveClient
from foobar_instance.errors import KmsStaleAttestationError
from foobar_instance.kms_client import KmsService
from foobar_instance.progress import Progress
from foobar_instance.result import Result, attested_count, check_same_enclave
from foobar_instance.trust import Trust, key_claims
from foobar_shared.addresses import Address
from foobar_shared.claims import KeyClaims
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
) -> Result:
    """Have the enclave decrypt `message`, which is for the key that `key_document` attests.

    Raises:
        InstanceError: a step failed, or something does not verify.
    """
    key_attestation = trust.saved(key_document, "the key's attestation")
    key = key_claims(key_attestation, "the key's attestation")
    progress.step(f"key attestation verified: {key.key_arn}")
    pcr0 = key_attestation.pcrs.get(0, b"")
    with EnclaveClient(enclave_address) as enclave:
        asker = _Asker(enclave, trust, pcr0, progress, now)
        enveloped = asker.shared_secret(KmsService(key.region), key, message)
        challenge = secrets.token_bytes(NONCE_BYTES)
        request = DecryptRequest(enveloped, message.nonce, message.ciphertext, challenge)
        line = encode_request(request)
        with progress.waiting("the enclave decrypts"):
            document = enclave.ask_line(line, name_of(request))
    attestation = trust.fresh(document, "the result's attestation", nonce=challenge, now=now())
    check_same_enclave(attestation, pcr0, "the result's attestation")
    count = attested_count(attestation, line)
    progress.step("result verified: its attestation is for this very request")
    return Result(count, key, attestation, key_document, line, document)


@dataclass(frozen=True, slots=True)
class _Asker:
    """Gets the shared secret, with a document of just now; once more where KMS finds it too old."""

    enclave: EnclaveClient
    trust: Trust
    pcr0: bytes
    progress: Progress
    now: Callable[[], datetime]

    def shared_secret(self, kms: KmsService, key: KeyClaims, message: Message) -> bytes:
        try:
            return self._derive(kms, key, message)
        except KmsStaleAttestationError:
            self.progress.warn("KMS says that the attestation is too old: asking for a new one")
            return self._derive(kms, key, message)

    def _derive(self, kms: KmsService, key: KeyClaims, message: Message) -> bytes:
        document = self._fresh_document()
        with self.progress.waiting("KMS derives the shared secret"):
            enveloped = kms.derive_shared_secret(
                key_arn=key.key_arn, ephemeral_key=message.ephemeral_key, attestation=document
            )
        self.progress.step("KMS answered: shared secret, encrypted to the enclave")
        return enveloped

    def _fresh_document(self) -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        document = self.enclave.ask(GetAttestationRequest(nonce))
        what = "the enclave's attestation"
        attestation = self.trust.fresh(document, what, nonce=nonce, now=self.now())
        check_same_enclave(attestation, self.pcr0, what)
        self.progress.step("enclave attestation verified")
        return document

"""`decrypt`: has the enclave decrypt and count, and checks that the answer is to this question."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from foobar_instance.attestation import Attestation
from foobar_instance.enclave_client import EnclaveClient
from foobar_instance.errors import KmsStaleAttestationError, NotVerifiedError
from foobar_instance.kms import KmsService
from foobar_instance.progress import Progress
from foobar_instance.trust import Trust, key_claims
from foobar_shared.addresses import Address
from foobar_shared.claims import KeyClaims, parse_result_claims
from foobar_shared.envelope import Message
from foobar_shared.errors import MessageError
from foobar_shared.messages import (
    NONCE_BYTES,
    DecryptRequest,
    GetAttestationRequest,
    encode_request,
    name_of,
)


@dataclass(frozen=True, slots=True)
class Result:
    """A verified result, and the three things that prove it to others.

    `key_document` and `result_document` are raw attestation documents, `request_line` is the
    request as sent, without its line feed.
    """

    count: int
    key: KeyClaims
    attestation: Attestation
    key_document: bytes
    request_line: bytes
    result_document: bytes


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


def check_same_enclave(attestation: Attestation, pcr0: bytes, what: str) -> None:
    """The document is of the enclave image that the key is locked to.

    Raises:
        NotVerifiedError: it is of another.
    """
    if not hmac.compare_digest(attestation.pcrs.get(0, b""), pcr0):
        raise NotVerifiedError(
            f"{what} has another PCR0 than the key's: the key was made by another enclave image"
        )


def attested_count(attestation: Attestation, request_line: bytes) -> int:
    """The count that a verified document attests for this very request.

    Raises:
        NotVerifiedError: it attests no result, or that of another request.
    """
    try:
        claims = parse_result_claims(attestation.user_data)
    except MessageError as error:
        raise NotVerifiedError(f"the result's attestation holds no result: {error}") from error
    if not hmac.compare_digest(claims.request_sha256, hashlib.sha256(request_line).digest()):
        raise NotVerifiedError(
            "the result's attestation is for another request than the one that was sent"
        )
    return claims.count

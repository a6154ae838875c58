"""`decrypt`: has the enclave decrypt and compute, and checks that the answer is to this question.

For each message: a recent attestation document of the enclave (with its RSA key) goes to KMS, whose
answer only that enclave opens. Answer and message go to the enclave with a challenge, and the
result comes back in an attestation document that is verified before anything is printed.
"""

from __future__ import annotations

import contextlib
import glob
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from foobar_instance.attestation import Attestation, AttestationError, parse_attestation
from foobar_instance.enclaves import Enclave, Enclaves
from foobar_instance.errors import (
    EnclaveRefusedError,
    FileError,
    KmsStaleAttestationError,
    NotDecryptedError,
    UsageError,
)
from foobar_instance.files import MAX_DOCUMENT, read_file
from foobar_instance.kms_client import KmsService
from foobar_instance.proof import (
    RESULT,
    AnyMessage,
    MessagesProof,
    RequestProof,
    VerifiedResult,
    attested_result,
    check_same_enclave,
    computed_result,
    hashes_of,
)
from foobar_instance.terminal import Progress
from foobar_instance.trust import Trust
from foobar_instance.workers import in_order
from foobar_shared.claims import parse_key_claims
from foobar_shared.envelope import Message
from foobar_shared.errors import MessageError
from foobar_shared.framing import MAX_COMPUTE_LINE
from foobar_shared.hpke import SealedMessage, key_hint
from foobar_shared.messages import (
    NONCE_BYTES,
    ComputeMessage,
    ComputeRequest,
    DecryptRequest,
    GetAttestationRequest,
    Request,
    encode_request,
    name_of,
)

_ENCLAVE: Final = "the enclave's attestation"
_DOES_NOT_DECRYPT: Final = "the message does not decrypt"  # the enclave's one text for every cause

_SECRET_RESERVE: Final = 1024
"""Bytes that a request keeps free for each of KMS's answers; one has some 450."""


class Decryptor:
    """Decryption with one verified key. Safe to use from several threads."""

    def __init__(
        self,
        key_document: bytes,
        enclaves: Enclaves,
        trust: Trust,
        progress: Progress,
        *,
        key_path: Path | None = None,
        now: Callable[[], datetime],
        kms: Callable[[str], KmsService] = KmsService,
    ) -> None:
        """Verify the key's document; the enclave and KMS are not asked yet.

        Args:
            key_document: attests the key that messages are sealed to.
            enclaves: whom to ask.
            trust: what every document must match.
            progress: is told each step.
            key_path: the document's file; those of other keys may be beside it.
            now: the clock.
            kms: makes the client of KMS in a region.

        Raises:
            NotVerifiedError: the document, or what it attests, does not verify.
        """
        self._document = key_document
        self._key_path = key_path
        self._attestation, self._key = trust.verify_key(key_document)
        self._enclaves = enclaves
        self._trust = trust
        self._progress = progress
        self._now = now
        self._kms = kms(self._key.region)
        progress.step(f"key attestation verified: {self._key.key_arn}")

    def check_enclaves(self) -> None:
        """Check that every enclave that answers is of the image that the key is locked to.

        Raises:
            InstanceError: one is not, or none answers.
        """
        self._enclaves.run_on_each(lambda enclave: enclave.recipient(lambda: self._fetch(enclave)))

    def decrypt(self, message: AnyMessage) -> VerifiedResult:
        """Return the verified result for one message, of either format.

        Raises:
            InstanceError: a step failed, or something does not verify.
        """
        return self._enclaves.run(lambda enclave: self._decrypt(enclave, message))

    def together(self, given: Sequence[AnyMessage], *, jobs: int) -> VerifiedResult:
        """Return the one verified result over all messages; KMS is asked by `jobs` threads.

        Raises:
            UsageError: they are more than one request holds, or one is of format 1.
            InstanceError: a step failed, or something does not verify; the text names the line of
                a message that does not decrypt.
        """
        messages = [message for message in given if isinstance(message, SealedMessage)]
        for line, message in enumerate(given, 1):
            if isinstance(message, Message):
                raise UsageError(f"line {line}: a message of format 1 takes a request of its own")
        reserved = self._request(messages, [bytes(_SECRET_RESERVE)] * len(messages))
        if len(encode_request(reserved)) >= MAX_COMPUTE_LINE:
            raise UsageError(
                f"these messages are longer than one request holds, {MAX_COMPUTE_LINE} bytes with "
                f"{_SECRET_RESERVE} for each of KMS's answers: leave some out"
            )
        return self._enclaves.run(lambda enclave: self._together(enclave, messages, jobs))

    def _together(
        self, enclave: Enclave, messages: Sequence[SealedMessage], jobs: int
    ) -> VerifiedResult:
        derived = list(in_order(lambda m: self._derive(enclave, m), messages, jobs=jobs))
        try:
            return self._compute(enclave, messages, derived)
        except NotDecryptedError:
            # The enclave does not say which: one that is asked alone tells.
            for line, (message, secret) in enumerate(zip(messages, derived, strict=True), 1):
                try:
                    self._compute(enclave, [message], [secret])
                except NotDecryptedError as error:
                    raise NotDecryptedError(f"line {line}: {error}") from error
            raise

    def _decrypt(self, enclave: Enclave, message: AnyMessage) -> VerifiedResult:
        secret = self._derive(enclave, message)
        if isinstance(message, SealedMessage):
            return self._compute(enclave, [message], [secret])
        challenge = secrets.token_bytes(NONCE_BYTES)
        request = DecryptRequest(secret, message.nonce, message.ciphertext, challenge)
        line = encode_request(request)
        document = self._ask(enclave, line, name_of(request), None)
        attestation = self._verify_result(document, challenge)
        result = attested_result(attestation, line)
        self._progress.step("result verified: its attestation is for this very request")
        proof = RequestProof(self._document, line, document)
        return VerifiedResult(result, self._key, attestation, proof)

    def _compute(
        self, enclave: Enclave, messages: Sequence[SealedMessage], derived: Sequence[bytes]
    ) -> VerifiedResult:
        request = self._request(messages, derived)
        hint = messages[0].hint if len(messages) == 1 else None
        document = self._ask(enclave, encode_request(request), name_of(request), hint)
        attestation = self._verify_result(document, request.challenge)
        hashes = hashes_of(messages)
        result = computed_result(attestation, hashes, self._key)
        self._progress.step("result verified: its attestation is for these very messages")
        proof = MessagesProof(self._document, document, hashes)
        return VerifiedResult(result, self._key, attestation, proof)

    def _request(
        self, messages: Sequence[SealedMessage], derived: Sequence[bytes]
    ) -> ComputeRequest:
        return ComputeRequest(
            key_arn=self._key.key_arn,
            public_key=self._key.public_key,
            messages=tuple(
                ComputeMessage(secret, message.enc, message.ciphertext)
                for message, secret in zip(messages, derived, strict=True)
            ),
            challenge=secrets.token_bytes(NONCE_BYTES),
        )

    def _derive(self, enclave: Enclave, message: AnyMessage) -> bytes:
        """Return KMS's answer for a message, which only this enclave opens."""
        document = enclave.recipient(lambda: self._fetch(enclave))
        try:
            return self._ask_kms(message, document)
        except KmsStaleAttestationError:
            self._progress.step("KMS says that the attestation is too old: asking for a new one")
        document = enclave.recipient(lambda: self._fetch(enclave), refused=document)
        return self._ask_kms(message, document)

    def _ask_kms(self, message: AnyMessage, document: bytes) -> bytes:
        with self._progress.waiting("KMS derives the shared secret"):
            secret = self._kms.derive_shared_secret(
                key_arn=self._key.key_arn,
                ephemeral_key=ephemeral_key_of(message),
                attestation=document,
            )
        self._progress.step("KMS answered: shared secret, encrypted to the enclave")
        return secret

    def _fetch(self, enclave: Enclave) -> bytes:
        """Return a new attestation document of an enclave of the image that made the key."""
        document = fetch_recipient(enclave.ask, self._attestation, self._trust, now=self._now)
        self._progress.step("enclave attestation verified")
        return document

    def _ask(self, enclave: Enclave, line: bytes, name: str, hint: bytes | None) -> bytes:
        """Return the enclave's answer; `hint` says which key the one message is for."""
        try:
            with self._progress.waiting("the enclave decrypts"):
                return enclave.ask_line(line, name)
        except EnclaveRefusedError as error:
            if not str(error).endswith(_DOES_NOT_DECRYPT):
                raise
            raise NotDecryptedError(f"{error}{self._explanation(hint)}") from error

    def _verify_result(self, document: bytes, challenge: bytes) -> Attestation:
        attestation = self._trust.verify_fresh(document, RESULT, nonce=challenge, now=self._now())
        check_same_enclave(attestation, self._attestation, RESULT)
        return attestation

    def _explanation(self, hint: bytes | None) -> str:
        """Return why a message does not decrypt, as far as it says itself which key it is for."""
        if hint is None:
            return ""
        if hint == key_hint(self._key.public_key):
            return ": it was damaged or changed on its way"
        path = _document_of(hint, self._key_path)
        advice = f": use --attestation-path {path}" if path else ""
        return f"; this message is sealed to another key{advice}"


def fetch_recipient(
    ask: Callable[[Request], bytes],
    key: Attestation,
    trust: Trust,
    *,
    now: Callable[[], datetime],
) -> bytes:
    """Return a new attestation document that KMS takes as a recipient.

    `ask` sends a request to an enclave, `key` is the content of the key's attestation document,
    and `now` is the clock.

    Raises:
        InstanceError: the enclave does not answer, or its document does not verify or is of
            another image than the key's.
    """
    nonce = secrets.token_bytes(NONCE_BYTES)
    document = ask(GetAttestationRequest(nonce))
    attestation = trust.verify_fresh(document, _ENCLAVE, nonce=nonce, now=now())
    check_same_enclave(attestation, key, _ENCLAVE)
    return document


def ephemeral_key_of(message: AnyMessage) -> bytes:
    """Return the sender's ephemeral public key as KMS takes it: DER SubjectPublicKeyInfo."""
    if isinstance(message, Message):
        return message.ephemeral_key
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), message.enc)
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _document_of(hint: bytes, key_path: Path | None) -> Path | None:
    """Return the file beside `key_path` that attests the key with this hint, if there is one.

    Nothing in it is verified: it is advice, and whoever follows it verifies the file.
    """
    if key_path is None:
        return None
    stem = glob.escape(key_path.name.split(".")[0])
    for path in sorted(key_path.parent.glob(f"{stem}*{glob.escape(key_path.suffix)}")):
        with contextlib.suppress(FileError, AttestationError, MessageError):
            document = parse_attestation(read_file(path, limit=MAX_DOCUMENT))
            if key_hint(parse_key_claims(document.user_data).public_key) == hint:
                return path
    return None

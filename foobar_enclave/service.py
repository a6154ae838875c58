"""Turns a request line into a response line."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from foobar_enclave.cms import decrypt_enveloped_data
from foobar_enclave.create_key import create_key
from foobar_enclave.errors import BusyError, DecryptionError, EnclaveError, one_line
from foobar_enclave.kms import KmsConnector
from foobar_enclave.nsm import NsmDevice
from foobar_shared import computation, envelope, hpke
from foobar_shared.claims import ComputeClaims, ResultClaims, hash_of_messages, message_hash
from foobar_shared.envelope import SHARED_SECRET_BYTES
from foobar_shared.errors import EnvelopeError, LineTooLongError, SharedError
from foobar_shared.framing import MAX_LINE
from foobar_shared.messages import (
    AttestationResponse,
    ComputeMessage,
    ComputeRequest,
    CreateKeyRequest,
    DecryptRequest,
    ErrorResponse,
    GetAttestationRequest,
    Request,
    Response,
    encode_response,
    name_of,
    parse_request,
)

MAX_KEYS: Final = 4
"""Keys that are asked for at the same time; each takes a session of the SDK, some 10 MiB."""

_logger = logging.getLogger(__name__)


class EnclaveService:
    """Answers the requests of the wire contract. Safe to use from several threads.

    Only the answer to getAttestation carries `public_key`, so that KMS takes no other document as
    a recipient.
    """

    def __init__(
        self,
        *,
        nsm: NsmDevice,
        kms: KmsConnector,
        key: RSAPrivateKey,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Keep what requests need: `key` is RSA-2048, this enclave's own; `clock` is in seconds."""
        self._nsm = nsm
        self._kms = kms
        self._key = key
        self._public_key = key.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        self._keys = threading.Semaphore(MAX_KEYS)
        self._clock = clock

    def handle(self, line: bytes) -> bytes:
        """Return the response to any bytes whatever, and log that they were answered.

        `line` may have its line feed or not. The response has one, and at most 64 KiB.
        """
        started = self._clock()
        line = line.removesuffix(b"\n")
        name, outcome = "none", "ok"
        response: Response
        try:
            request = _parse(line)
            name = name_of(request)
            response = AttestationResponse(name_of(request), self._attestation(request, line))
        except (EnclaveError, SharedError) as error:
            outcome = type(error).__name__
            response = ErrorResponse(one_line(error))
        except Exception as error:  # noqa: BLE001 - a defect must not end the enclave or speak
            outcome = f"defect:{type(error).__name__}"
            response = ErrorResponse("the enclave failed at this request; its console has the kind")
        answer = encode_response(response) + b"\n"
        _logger.info(
            "event=request type=%s outcome=%s bytes_in=%d bytes_out=%d seconds=%.3f",
            *(name, outcome, len(line), len(answer), self._clock() - started),
        )
        return answer

    def _attestation(self, request: Request, line: bytes) -> bytes:
        if isinstance(request, CreateKeyRequest):
            return self._key_attestation(request)
        if isinstance(request, GetAttestationRequest):
            return self._nsm.attest(nonce=request.nonce, public_key=self._public_key)
        if isinstance(request, ComputeRequest):
            claims = self._compute(request)
        else:
            claims = self._decrypt(request, line)
        return self._nsm.attest(user_data=claims, nonce=request.challenge)

    def _key_attestation(self, request: CreateKeyRequest) -> bytes:
        if not self._keys.acquire(blocking=False):
            raise BusyError
        try:
            return create_key(request, nsm=self._nsm, kms=self._kms)
        finally:
            self._keys.release()

    def _decrypt(self, request: DecryptRequest, line: bytes) -> bytes:
        """Return the claims for one message of format 1."""
        plaintext = self._open(
            request.shared_secret,
            lambda secret: envelope.decrypt(request.nonce, request.ciphertext, secret),
        )
        if plaintext is None:
            raise DecryptionError
        result = computation.compute([plaintext])
        return ResultClaims(hashlib.sha256(line).digest(), result).encode()

    def _compute(self, request: ComputeRequest) -> bytes:
        """Return the claims for all messages of a request."""
        opened = [self._open_sealed(message, request) for message in request.messages]
        plaintexts = [plaintext for plaintext in opened if plaintext is not None]
        # All are tried first: an answer after the first failure would tell by its time which it is.
        if len(plaintexts) != len(request.messages):
            raise DecryptionError
        hashes = [message_hash(message.enc, message.ciphertext) for message in request.messages]
        return ComputeClaims(
            computation=computation.NAME,
            key_arn=request.key_arn,
            messages_sha256=hash_of_messages(hashes),
            messages=len(request.messages),
            result=computation.compute(plaintexts),
        ).encode()

    def _open_sealed(self, message: ComputeMessage, request: ComputeRequest) -> bytes | None:
        return self._open(
            message.shared_secret,
            lambda secret: hpke.open_message(
                message.enc, message.ciphertext, secret, request.public_key, request.key_arn
            ),
        )

    def _open(self, shared_secret: bytes, open_message: Callable[[bytes], bytes]) -> bytes | None:
        """Return a message's plaintext, or None if it does not open.

        If KMS's answer does not open, the work goes on with a random secret: an answer that came
        sooner would tell the parent which of the two layers has failed. Demanding a secret's size
        keeps the parent from measuring how much of the padding was right.
        """
        secret, opened = os.urandom(SHARED_SECRET_BYTES), False
        with contextlib.suppress(DecryptionError):
            secret = decrypt_enveloped_data(shared_secret, self._key, size=SHARED_SECRET_BYTES)
            opened = True
        try:
            plaintext = open_message(secret)
        except EnvelopeError:
            return None
        return plaintext if opened else None


def _parse(line: bytes) -> Request:
    request = parse_request(line)
    # Only compute, which the original does not have, may be longer than the original's lines.
    if len(line) >= MAX_LINE and not isinstance(request, ComputeRequest):
        raise LineTooLongError(f"line longer than {MAX_LINE} bytes")
    return request

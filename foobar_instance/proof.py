"""The proof of a result: a file from which a third person verifies the count, offline.

It holds three things: the key's attestation document, the decrypt request as it was sent, and the
result's attestation document. `docs/proof.md` describes the format and each check.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Final

from foobar_instance.attestation import Attestation
from foobar_instance.errors import NotVerifiedError
from foobar_instance.result import Result, attested_count, check_same_enclave
from foobar_instance.trust import Trust, key_claims
from foobar_shared.encoding import Fields, parse_json_object, to_base64, to_json
from foobar_shared.envelope import Message
from foobar_shared.errors import MessageError
from foobar_shared.framing import MAX_LINE
from foobar_shared.messages import DecryptRequest, parse_request

PROOF_TYPE: Final = "foobar/proof/1"

_MAX_DOCUMENT: Final = 32 * 1024
MAX_PROOF: Final = (2 * _MAX_DOCUMENT + MAX_LINE) * 4 // 3 + 1024
"""Longest proof file in bytes: two documents and a request line, in base64."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What a third person needs to verify a result.

    `key` and `result` are raw attestation documents (COSE_Sign1); `request` is the decrypt request
    line as it was sent, without its line feed.
    """

    key: bytes
    request: bytes
    result: bytes

    def encode(self) -> bytes:
        """The file: one line of JSON. The same three things always give the same bytes."""
        fields = {
            "type": PROOF_TYPE,
            "key": to_base64(self.key),
            "request": to_base64(self.request),
            "result": to_base64(self.result),
        }
        return to_json(fields) + b"\n"


def proof_of(result: Result) -> Proof:
    """The proof of a result that has been verified."""
    return Proof(result.key_document, result.request_line, result.result_document)


def parse_proof(data: bytes) -> Proof:
    """The proof in a file.

    Raises:
        NotVerifiedError: not the one encoding of a proof of this version.
    """
    if len(data) > MAX_PROOF:
        raise NotVerifiedError(f"the proof is longer than {MAX_PROOF} bytes")
    try:
        fields = Fields("", parse_json_object(data))
        if fields.text("type") != PROOF_TYPE:
            raise MessageError(f"type is not {PROOF_TYPE}")
        proof = Proof(*(fields.data(name) for name in ("key", "request", "result")))
    except MessageError as error:
        raise NotVerifiedError(f"not a proof that decrypt --proof has written: {error}") from error
    # Nothing in the file is free to vary: what no check reads could still mislead a reader.
    if proof.encode() != data:
        raise NotVerifiedError("not a proof that decrypt --proof has written: it was changed since")
    return proof


def verify_proof(proof: Proof, message: Message, trust: Trust) -> Result:
    """The result that `proof` proves for the ciphertext `message`.

    1. The key's document verifies at its own time, is of the pinned enclave, and attests a key.
    2. The result's document verifies at its own time and is of the same pinned enclave.
    3. The result is for this very request: its hash, and the challenge in it.
    4. The request is for this very message: nonce and ciphertext.
    5. The result is not older than the key.

    Raises:
        NotVerifiedError: one of these is not so; the text says which.
    """
    key_attestation = trust.saved(proof.key, "the key's attestation")
    key = key_claims(key_attestation, "the key's attestation")
    attestation = trust.saved(proof.result, "the result's attestation")
    check_same_enclave(attestation, key_attestation.pcrs.get(0, b""), "the result's attestation")
    count = attested_count(attestation, proof.request)
    _check_request(proof.request, attestation, message)
    if attestation.timestamp < key_attestation.timestamp:
        raise NotVerifiedError("the result is older than the key: they do not belong together")
    return Result(count, key, attestation, proof.key, proof.request, proof.result)


def _check_request(line: bytes, attestation: Attestation, message: Message) -> None:
    try:
        request = parse_request(line)
    except MessageError as error:
        raise NotVerifiedError(f"the proof's request is malformed: {error}") from error
    if not isinstance(request, DecryptRequest):
        raise NotVerifiedError("the proof's request is not one to decrypt")
    if request.challenge is None or request.challenge != attestation.nonce:
        raise NotVerifiedError("the result's attestation does not carry the request's challenge")
    same = hmac.compare_digest(request.nonce, message.nonce) and hmac.compare_digest(
        request.ciphertext, message.ciphertext
    )
    if not same:
        raise NotVerifiedError("the result is for another ciphertext than the one that was given")

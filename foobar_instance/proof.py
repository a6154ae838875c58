"""A verified result, and the proof from which a third person verifies it offline.

A proof is a file of three things: the key's attestation document, the decrypt request as it was
sent, and the result's attestation document. `docs/proof.md` describes format and checks.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Final

from foobar_instance.attestation import Attestation
from foobar_instance.errors import NotVerifiedError
from foobar_instance.trust import Trust, key_claims
from foobar_shared.claims import KeyClaims, parse_result_claims
from foobar_shared.encoding import Fields, parse_json_object, to_base64, to_json
from foobar_shared.envelope import Message
from foobar_shared.errors import MessageError
from foobar_shared.framing import MAX_LINE
from foobar_shared.messages import DecryptRequest, parse_request

PROOF_TYPE: Final = "foobar/proof/1"
KEY: Final = "the key's attestation"
RESULT: Final = "the result's attestation"

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
        """Return the file: one line of JSON, always the same bytes for the same three things."""
        fields = {
            "type": PROOF_TYPE,
            "key": to_base64(self.key),
            "request": to_base64(self.request),
            "result": to_base64(self.result),
        }
        return to_json(fields) + b"\n"


@dataclass(frozen=True, slots=True)
class Result:
    """A verified result: what the enclave computed, under which key, and the proof of it."""

    count: int
    key: KeyClaims
    attestation: Attestation
    proof: Proof


def parse_proof(data: bytes) -> Proof:
    """Parse a proof file.

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
    # What no check reads could still mislead a reader, so nothing in the file may vary.
    if proof.encode() != data:
        raise NotVerifiedError("not a proof that decrypt --proof has written: it was changed since")
    return proof


def verify_proof(proof: Proof, message: Message, trust: Trust) -> Result:
    """Verify that `proof` proves a result for the ciphertext `message`, and return the result.

    1. The key's document verifies at its own time, is of the pinned enclave, and attests a key.
    2. The result's document verifies at its own time and is of the same pinned enclave.
    3. The result is for this very request: its hash, and the challenge in it.
    4. The request is for this very message: nonce and ciphertext.
    5. The result is not older than the key.

    Raises:
        NotVerifiedError: one of these does not hold; the text says which.
    """
    key_attestation = trust.verify_saved(proof.key, KEY)
    key = key_claims(key_attestation, KEY)
    attestation = trust.verify_saved(proof.result, RESULT)
    check_same_enclave(attestation, key_attestation, RESULT)
    count = attested_count(attestation, proof.request)
    _check_request(proof.request, attestation, message)
    if attestation.timestamp < key_attestation.timestamp:
        raise NotVerifiedError("the result is older than the key: they do not belong together")
    return Result(count, key, attestation, proof)


def check_same_enclave(attestation: Attestation, key: Attestation, what: str) -> None:
    """Check that a document is of the enclave image that the key is locked to.

    Raises:
        NotVerifiedError: it is of another.
    """
    if not hmac.compare_digest(attestation.pcrs.get(0, b""), key.pcrs.get(0, b"")):
        raise NotVerifiedError(
            f"{what} has another PCR0 than the key's: the key was made by another enclave image"
        )


def attested_count(attestation: Attestation, request_line: bytes) -> int:
    """Return the count that a verified document attests for this very request.

    Raises:
        NotVerifiedError: it attests no result, or that of another request.
    """
    try:
        claims = parse_result_claims(attestation.user_data)
    except MessageError as error:
        raise NotVerifiedError(f"{RESULT} holds no result: {error}") from error
    if not hmac.compare_digest(claims.request_sha256, hashlib.sha256(request_line).digest()):
        raise NotVerifiedError(f"{RESULT} is for another request than the one that was sent")
    return claims.result.count


def _check_request(line: bytes, attestation: Attestation, message: Message) -> None:
    try:
        request = parse_request(line)
    except MessageError as error:
        raise NotVerifiedError(f"the proof's request is malformed: {error}") from error
    if not isinstance(request, DecryptRequest):
        raise NotVerifiedError("the proof's request is not one to decrypt")
    if request.challenge is None or request.challenge != attestation.nonce:
        raise NotVerifiedError(f"{RESULT} does not carry the request's challenge")
    if (request.nonce, request.ciphertext) != (message.nonce, message.ciphertext):
        raise NotVerifiedError("the result is for another ciphertext than the one that was given")


def as_line(result: Result) -> str:
    """Return the count alone, as the original prints it."""
    return f"Count 'a': {result.count}"


def as_text(result: Result, trust: Trust) -> str:
    """Return the count, and what it rests on, for people."""
    attestation = result.attestation
    return "\n".join(
        (
            as_line(result),
            f"computed:  {attestation.timestamp:%Y-%m-%d %H:%M:%S} UTC",
            f"by PCR0:   {attestation.pcrs[0].hex()}",
            f"key:       {result.key.key_arn}",
            f"root:      {trust.root}",
            f"pinned by: {', '.join(trust.pinned_by) or 'nothing: any enclave is trusted'}",
            f"mode:      {'DEBUG: it proves nothing' if attestation.is_debug else 'production'}",
        )
    )


def as_json_text(result: Result, trust: Trust) -> str:
    """Return the count, and what it rests on, as one indented JSON object."""
    attestation = result.attestation
    pcrs = trust.measurements.pcrs if trust.measurements else {}
    return json.dumps(
        {
            "count": result.count,
            "keyArn": result.key.key_arn,
            "pcr0": attestation.pcrs[0].hex(),
            "moduleId": attestation.module_id,
            "timestamp": attestation.timestamp.isoformat(timespec="milliseconds"),
            "requestSha256": hashlib.sha256(result.proof.request).hexdigest(),
            "root": trust.root,
            "pinned": {f"PCR{index}": value.hex() for index, value in pcrs.items()},
            "pinnedBy": trust.pinned_by,
            "debug": attestation.is_debug,
        },
        indent=2,
    )

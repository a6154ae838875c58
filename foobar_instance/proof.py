"""A verified result, and the proof from which a third person verifies it offline.

A proof is a file of three things: the key's attestation document, what the result is for, and the
result's attestation document. `docs/proof.md` describes formats and checks.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, Final, TypeAlias

from foobar_instance.attestation import Attestation, AttestationError, has_one_spelling
from foobar_instance.errors import NotVerifiedError
from foobar_instance.terminal import visible
from foobar_instance.trust import KEY, Trust, refusal
from foobar_shared import computation
from foobar_shared.claims import (
    MAX_MESSAGES,
    SHA256_BYTES,
    KeyClaims,
    hash_of_messages,
    message_hash,
    parse_compute_claims,
    parse_result_claims,
)
from foobar_shared.encoding import Fields, from_base64, parse_json_object, to_json
from foobar_shared.envelope import Message
from foobar_shared.errors import MessageError
from foobar_shared.framing import MAX_LINE
from foobar_shared.hpke import SealedMessage
from foobar_shared.messages import DecryptRequest, parse_request

RESULT: Final = "the result's attestation"

_MAX_DOCUMENT: Final = 32 * 1024
MAX_PROOF: Final = (2 * _MAX_DOCUMENT + MAX_LINE) * 4 // 3 + 1024
"""Longest proof file in bytes: two documents and a request line, in base64."""

AnyMessage: TypeAlias = Message | SealedMessage


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A proof whose fields, under their names and in their order, are the file."""

    TYPE: ClassVar[str]

    def encode(self) -> bytes:
        """Return the file: one line of JSON, always the same bytes for the same fields."""
        return to_json({"type": self.TYPE, **asdict(self)}) + b"\n"


@dataclass(frozen=True, slots=True)
class RequestProof(_Encoded):
    """What a third person needs to verify the result for one message of format 1.

    `key` and `result` are raw attestation documents (COSE_Sign1); `request` is the decrypt request
    line as it was sent, without its line feed.
    """

    TYPE: ClassVar[str] = "foobar/proof/1"

    key: bytes
    request: bytes
    result: bytes


@dataclass(frozen=True, slots=True)
class MessagesProof(_Encoded):
    """What a third person needs to verify the result over messages of format 2.

    `key` and `result` are raw attestation documents (COSE_Sign1); `messages` has the
    `message_hash` of each message, in order.
    """

    TYPE: ClassVar[str] = "foobar/proof/2"

    key: bytes
    result: bytes
    messages: tuple[bytes, ...]


Proof: TypeAlias = RequestProof | MessagesProof


@dataclass(frozen=True, slots=True)
class VerifiedResult:
    """What the enclave computed, under which key, and the proof of it."""

    result: computation.Result
    key: KeyClaims
    attestation: Attestation
    proof: Proof

    @property
    def names_key(self) -> bool:
        """Return whether the result names the key's ARN; for a message of format 1 it does not."""
        return isinstance(self.proof, MessagesProof)


def parse_proof(data: bytes) -> Proof:
    """Parse a proof file.

    Raises:
        NotVerifiedError: not the one encoding of a proof of a known version.
    """
    if len(data) > MAX_PROOF:
        raise NotVerifiedError(f"the proof is longer than {MAX_PROOF} bytes")
    try:
        proof = _parse(parse_json_object(data))
    except MessageError as error:
        raise NotVerifiedError(f"not a proof that decrypt --proof has written: {error}") from error
    # What no check reads could still mislead a reader, so nothing in the file may vary.
    if proof.encode() != data:
        raise NotVerifiedError("not a proof that decrypt --proof has written: it was changed since")
    return proof


def verify_proof(proof: Proof, messages: Sequence[AnyMessage], trust: Trust) -> VerifiedResult:
    """Verify that `proof` proves a result for these very messages, and return the result.

    1. The key's document verifies at its own time, is of the pinned enclave, and attests a key.
    2. The result's document verifies at its own time and is of the same pinned enclave.
    3. Both documents have the one spelling that Nitro writes.
    4. Format 2: the result is for messages with these hashes, in this order, under this key's ARN.
       Format 1: the result is for the request in the proof, and that is for this message.
    5. The result is not older than the key.

    Raises:
        NotVerifiedError: one of these does not hold; the text says which.
    """
    key_attestation, key = trust.verify_key(proof.key)
    attestation = trust.verify_saved(proof.result, RESULT)
    _check_spelling(proof.key, KEY)
    _check_spelling(proof.result, RESULT)
    check_same_enclave(attestation, key_attestation, RESULT)
    if isinstance(proof, MessagesProof):
        if proof.messages != hashes_of(messages):
            raise NotVerifiedError("the result is for other messages than those that were given")
        result = computed_result(attestation, proof.messages, key)
    else:
        result = attested_result(attestation, proof.request)
        _check_request(proof.request, attestation, messages)
    if attestation.timestamp < key_attestation.timestamp:
        raise NotVerifiedError("the result is older than the key: they do not belong together")
    return VerifiedResult(result, key, attestation, proof)


def check_same_enclave(attestation: Attestation, key: Attestation, what: str) -> None:
    """Check that a document is of the enclave image that the key is locked to.

    Raises:
        NotVerifiedError: it is of another.
    """
    if not hmac.compare_digest(attestation.pcrs.get(0, b""), key.pcrs.get(0, b"")):
        raise NotVerifiedError(
            f"{what} has another PCR0 than the key's: the key was made by another enclave image"
        )


def attested_result(attestation: Attestation, request_line: bytes) -> computation.Result:
    """Return the result that a verified document attests for this very decrypt request.

    Raises:
        NotVerifiedError: it attests no result, or that of another request.
    """
    try:
        claims = parse_result_claims(attestation.user_data)
    except MessageError as error:
        raise NotVerifiedError(f"{RESULT} holds no result: {error}") from error
    if not hmac.compare_digest(claims.request_sha256, hashlib.sha256(request_line).digest()):
        raise NotVerifiedError(f"{RESULT} is for another request than the one that was sent")
    return claims.result


def computed_result(
    attestation: Attestation, hashes: Sequence[bytes], key: KeyClaims
) -> computation.Result:
    """Return the result that a verified document attests for messages sealed to `key`.

    `hashes` has the `message_hash` of each message, in order.

    Raises:
        NotVerifiedError: it attests no result, or one of another computation, key or messages.
    """
    try:
        claims = parse_compute_claims(attestation.user_data)
    except MessageError as error:
        raise NotVerifiedError(f"{RESULT} holds no result: {error}") from error
    if claims.computation != computation.NAME:
        raise NotVerifiedError(
            f"{RESULT} is of the computation {claims.computation}, not {computation.NAME}"
        )
    if claims.key_arn != key.key_arn:
        raise NotVerifiedError(f"{RESULT} is for messages to another key, {claims.key_arn}")
    expected = hash_of_messages(hashes)
    if claims.messages != len(hashes) or not hmac.compare_digest(claims.messages_sha256, expected):
        raise NotVerifiedError(f"{RESULT} is for other messages")
    return claims.result


def hashes_of(messages: Sequence[AnyMessage]) -> tuple[bytes, ...]:
    """Return the `message_hash` of each message of format 2.

    Raises:
        NotVerifiedError: one is of format 1.
    """
    if not all(isinstance(message, SealedMessage) for message in messages):
        raise NotVerifiedError("a message is of format 1: a proof holds such a one by itself")
    return tuple(
        message_hash(message.enc, message.ciphertext)
        for message in messages
        if isinstance(message, SealedMessage)
    )


def as_text(verified: VerifiedResult, trust: Trust) -> str:
    """Return the result, and what it rests on, for people."""
    attestation = verified.attestation
    pinned_by = ", ".join(trust.pinned_by)  # perhaps with a file's name
    return "\n".join(
        (
            str(verified.result),
            f"computed:  {attestation.timestamp:%Y-%m-%d %H:%M:%S} UTC",
            f"by PCR0:   {attestation.pcrs[0].hex()}",
            f"key:       {verified.key.key_arn}"
            + ("" if verified.names_key else " (key in the file, not bound to this result)"),
            f"root:      {trust.root}",
            f"pinned by: {visible(pinned_by) or 'nothing: any enclave is trusted'}",
            f"mode:      {'DEBUG: it proves nothing' if attestation.is_debug else 'production'}",
        )
    )


def facts(verified: VerifiedResult, trust: Trust) -> dict[str, object]:
    """Return the result's fields, and what it rests on, for JSON."""
    attestation, proof = verified.attestation, verified.proof
    pcrs = trust.measurements.pcrs if trust.measurements else {}
    computed_for: dict[str, object] = (
        {
            "messagesSha256": hash_of_messages(proof.messages).hex(),
            "messages": len(proof.messages),
        }
        if isinstance(proof, MessagesProof)
        else {"requestSha256": hashlib.sha256(proof.request).hexdigest()}
    )
    return {
        **verified.result.fields(),
        "keyArn": verified.key.key_arn,
        "keyBound": verified.names_key,
        "pcr0": attestation.pcrs[0].hex(),
        "moduleId": attestation.module_id,
        "timestamp": attestation.timestamp.isoformat(timespec="milliseconds"),
        **computed_for,
        "root": trust.root,
        "pinned": {f"PCR{index}": value.hex() for index, value in pcrs.items()},
        "pinnedBy": trust.pinned_by,
        "debug": attestation.is_debug,
    }


def as_json_text(verified: VerifiedResult, trust: Trust) -> str:
    """Return the result, and what it rests on, as one indented JSON object."""
    return json.dumps(facts(verified, trust), indent=2)


def _parse(values: dict[str, object]) -> Proof:
    fields = Fields("", values)
    proof_type = fields.text("type")
    if proof_type == RequestProof.TYPE:
        return RequestProof(*(fields.data(name) for name in ("key", "request", "result")))
    if proof_type == MessagesProof.TYPE:
        return MessagesProof(fields.data("key"), fields.data("result"), _hashes(values))
    raise MessageError(f"type is neither {RequestProof.TYPE} nor {MessagesProof.TYPE}")


def _hashes(values: dict[str, object]) -> tuple[bytes, ...]:
    texts = values.get("messages")
    if not isinstance(texts, list) or not 0 < len(texts) <= MAX_MESSAGES:
        raise MessageError(f"messages: not an array of 1 to {MAX_MESSAGES} hashes")
    hashes = tuple(from_base64(text) if isinstance(text, str) else b"" for text in texts)
    if any(len(value) != SHA256_BYTES for value in hashes):
        raise MessageError(f"messages: a hash has not {SHA256_BYTES} bytes")
    return hashes


def _check_spelling(document: bytes, what: str) -> None:
    try:
        if has_one_spelling(document):
            return
    except AttestationError as error:
        raise refusal(what, error) from error
    raise NotVerifiedError(f"{what} is not spelled as Nitro writes it: the proof was changed")


def _check_request(line: bytes, attestation: Attestation, messages: Sequence[AnyMessage]) -> None:
    try:
        request = parse_request(line)
    except MessageError as error:
        raise NotVerifiedError(f"the proof's request is malformed: {error}") from error
    if not isinstance(request, DecryptRequest):
        raise NotVerifiedError("the proof's request is not one to decrypt")
    if request.challenge is None or request.challenge != attestation.nonce:
        raise NotVerifiedError(f"{RESULT} does not carry the request's challenge")
    given = [(m.nonce, m.ciphertext) for m in messages if isinstance(m, Message)]
    if len(messages) != 1 or given != [(request.nonce, request.ciphertext)]:
        raise NotVerifiedError("the result is for another ciphertext than the one that was given")

"""What the enclave says in the `user_data` of its attestation documents, by purpose."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from foobar_shared.computation import Result
from foobar_shared.encoding import Fields, parse_json_object, to_json
from foobar_shared.errors import MessageError

CREATE_KEY: Final = "foobar/create-key/1"
DECRYPT: Final = "foobar/decrypt/1"
COMPUTE: Final = "foobar/compute/1"
SHA256_BYTES: Final = 32

MAX_MESSAGES: Final = 512
"""Messages that one compute request holds at most."""

MAX_KEY_ARN: Final = 256
"""Longest key ARN in characters; an ARN of KMS has some 90."""

MAX_RESULT: Final = 512
"""Longest JSON of a result's fields in bytes; with all other fields it fits the 1,024 bytes of
`user_data`."""

_MAX_NAME: Final = 64
_RESERVED: Final = ("request", "type")  # of a decrypt attestation, beside the result's fields


@dataclass(frozen=True, slots=True)
class KeyClaims:
    """A KMS key that the enclave has created and locked to its own PCR0.

    `public_key` is DER SubjectPublicKeyInfo of a P-256 key (91 bytes), `policy_sha256` 32 bytes
    over the key policy text as sent to KMS.
    """

    key_id: str
    key_arn: str
    public_key: bytes
    region: str
    policy_sha256: bytes

    def encode(self) -> bytes:
        """Return the claims as JSON; the original's three fields first."""
        return to_json(
            {
                "keyId": self.key_id,
                "pubKey": self.public_key,
                "Region": self.region,
                "type": CREATE_KEY,
                "keyArn": self.key_arn,
                "policySha256": self.policy_sha256,
            }
        )


@dataclass(frozen=True, slots=True)
class ResultClaims:
    """The result for one message of format 1, and SHA-256 (32 bytes) of its request line."""

    request_sha256: bytes
    result: Result

    def encode(self) -> bytes:
        """Return the claims as JSON; raise ValueError if the result breaks a rule for fields."""
        fields = _bounded(self.result)
        return to_json({"request": self.request_sha256, **fields, "type": DECRYPT})


@dataclass(frozen=True, slots=True)
class ComputeClaims:
    """The result over messages of format 2 that were sealed to one key.

    `computation` names what was computed, `messages_sha256` (32 bytes) is `hash_of_messages` of
    all messages in order, `messages` is their number.
    """

    computation: str
    key_arn: str
    messages_sha256: bytes
    messages: int
    result: Result

    def encode(self) -> bytes:
        """Return the claims as JSON; raise ValueError if name or result break a rule for them."""
        if not 0 < len(self.computation) <= _MAX_NAME:
            raise ValueError("the computation's name is too long")
        return to_json(
            {
                "type": COMPUTE,
                "computation": self.computation,
                "keyArn": self.key_arn,
                "messagesSha256": self.messages_sha256,
                "messages": self.messages,
                "result": _bounded(self.result),
            }
        )


def message_hash(enc: bytes, ciphertext: bytes) -> bytes:
    """Return SHA-256 (32 bytes) over `enc` followed by the ciphertext of a message of format 2."""
    return hashlib.sha256(enc + ciphertext).digest()


def hash_of_messages(hashes: Iterable[bytes]) -> bytes:
    """Return SHA-256 (32 bytes) over the `message_hash` of each message, in order."""
    return hashlib.sha256(b"".join(hashes)).digest()


def parse_key_claims(user_data: bytes | None) -> KeyClaims:
    """Parse the `user_data` of a create-key attestation; raise MessageError if it is none."""
    values = _claims(user_data, CREATE_KEY)
    fields = Fields("user_data", values)
    return KeyClaims(
        key_id=fields.text("keyId"),
        key_arn=fields.text("keyArn"),
        public_key=fields.data("pubKey"),
        region=fields.text(_region_field(values)),
        policy_sha256=fields.data("policySha256", length=SHA256_BYTES),
    )


def parse_result_claims(user_data: bytes | None) -> ResultClaims:
    """Parse the `user_data` of a decrypt attestation; raise MessageError if it is none."""
    values = _claims(user_data, DECRYPT)
    return ResultClaims(
        request_sha256=Fields("user_data", values).data("request", length=SHA256_BYTES),
        result=Result.from_fields(
            {name: value for name, value in values.items() if name not in _RESERVED}
        ),
    )


def parse_compute_claims(user_data: bytes | None) -> ComputeClaims:
    """Parse the `user_data` of a compute attestation; raise MessageError if it is none."""
    values = _claims(user_data, COMPUTE)
    fields = Fields("user_data", values)
    result = values.get("result")
    if not isinstance(result, dict):
        raise fields.error("result", "not a JSON object")
    return ComputeClaims(
        computation=fields.text("computation", maximum=_MAX_NAME),
        key_arn=fields.text("keyArn", maximum=MAX_KEY_ARN),
        messages_sha256=fields.data("messagesSha256", length=SHA256_BYTES),
        messages=fields.integer("messages", minimum=1, maximum=MAX_MESSAGES),
        result=Result.from_fields(result),
    )


def _bounded(result: Result) -> dict[str, object]:
    fields = result.fields()
    if len(to_json(fields)) > MAX_RESULT or not fields.keys().isdisjoint(_RESERVED):
        raise ValueError(f"the result's fields are over {MAX_RESULT} bytes or use a reserved name")
    return fields


def _claims(user_data: bytes | None, purpose: str) -> dict[str, object]:
    if not user_data:
        raise MessageError(f"no user_data (expected claims of type {purpose})")
    try:
        values = parse_json_object(user_data)
    except MessageError as error:
        raise MessageError(f"user_data: {error}") from None
    if values.get("type") != purpose:
        raise MessageError(f"user_data.type: not {purpose}")
    return values


def _region_field(values: dict[str, object]) -> str:
    # The original's structure has no JSON tag there, so case does not matter.
    names = [name for name in values if name.lower() == "region"]
    if len(names) > 1:
        raise MessageError("user_data.Region: given twice")
    return names[0] if names else "Region"

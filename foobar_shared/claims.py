"""What the enclave says in the `user_data` of its attestation documents, by purpose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from foobar_shared.encoding import Fields, parse_json_object, to_base64, to_json
from foobar_shared.errors import MessageError

CREATE_KEY: Final = "foobar/create-key/1"
DECRYPT: Final = "foobar/decrypt/1"
SHA256_BYTES: Final = 32

_MAX_COUNT: Final = 2**32 - 1


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
                "pubKey": to_base64(self.public_key),
                "Region": self.region,
                "type": CREATE_KEY,
                "keyArn": self.key_arn,
                "policySha256": to_base64(self.policy_sha256),
            }
        )


@dataclass(frozen=True, slots=True)
class ResultClaims:
    """A computed result: the request's SHA-256 (32 bytes) and the number of letters `a`."""

    request_sha256: bytes
    count: int

    def encode(self) -> bytes:
        """Return the claims as JSON; the original's two fields first."""
        return to_json(
            {"request": to_base64(self.request_sha256), "count": self.count, "type": DECRYPT}
        )


def parse_key_claims(user_data: bytes | None) -> KeyClaims:
    """Parse the `user_data` of a create-key attestation.

    The name of the region's field is read without regard to case: the original's structure has no
    JSON tag there.

    Raises:
        MessageError: not such claims, of another type, or a field is missing or malformed.
    """
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
    """Parse the `user_data` of a decrypt attestation.

    Raises:
        MessageError: not such claims, of another type, or a field is missing or malformed.
    """
    fields = Fields("user_data", _claims(user_data, DECRYPT))
    return ResultClaims(
        request_sha256=fields.data("request", length=SHA256_BYTES),
        count=fields.integer("count", maximum=_MAX_COUNT),
    )


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
    names = [name for name in values if name.lower() == "region"]
    if len(names) > 1:
        raise MessageError("user_data.Region: given twice")
    return names[0] if names else "Region"

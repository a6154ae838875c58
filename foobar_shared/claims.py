"""What the enclave says in the `user_data` of its attestation documents, by purpose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from foobar_shared.encoding import from_base64, parse_json_object, to_base64, to_json
from foobar_shared.errors import MessageError

CREATE_KEY: Final = "foobar/create-key/1"
DECRYPT: Final = "foobar/decrypt/1"
SHA256_BYTES: Final = 32

_MAX_COUNT: Final = 2**32


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
        """The claims as JSON; the original's three fields first."""
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
        """The claims as JSON; the original's two fields first."""
        return to_json(
            {"request": to_base64(self.request_sha256), "count": self.count, "type": DECRYPT}
        )


def parse_key_claims(user_data: bytes | None) -> KeyClaims:
    """The claims in the `user_data` of a create-key attestation.

    The name of the region's field is read without regard to case: the original's structure has no
    JSON tag there.

    Raises:
        MessageError: not such claims, of another type, or a field is missing or malformed.
    """
    fields = _claims(user_data, CREATE_KEY)
    return KeyClaims(
        key_id=_text(fields, "keyId"),
        key_arn=_text(fields, "keyArn"),
        public_key=_data(fields, "pubKey"),
        region=_text(fields, _region_field(fields)),
        policy_sha256=_data(fields, "policySha256", SHA256_BYTES),
    )


def parse_result_claims(user_data: bytes | None) -> ResultClaims:
    """The claims in the `user_data` of a decrypt attestation.

    Raises:
        MessageError: not such claims, of another type, or a field is missing or malformed.
    """
    fields = _claims(user_data, DECRYPT)
    count = fields.get("count")
    if type(count) is not int or not 0 <= count < _MAX_COUNT:
        raise MessageError("user_data.count: not a count")
    return ResultClaims(request_sha256=_data(fields, "request", SHA256_BYTES), count=count)


def _claims(user_data: bytes | None, purpose: str) -> dict[str, object]:
    if not user_data:
        raise MessageError(f"no user_data (expected claims of type {purpose})")
    try:
        fields = parse_json_object(user_data)
    except MessageError as error:
        raise MessageError(f"user_data: {error}") from None
    if fields.get("type") != purpose:
        raise MessageError(f"user_data.type: not {purpose}")
    return fields


def _region_field(fields: dict[str, object]) -> str:
    names = [name for name in fields if name.lower() == "region"]
    if len(names) > 1:
        raise MessageError("user_data.Region: given twice")
    return names[0] if names else "Region"


def _text(fields: dict[str, object], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
        raise MessageError(f"user_data.{name}: missing or not printable text")
    return value


def _data(fields: dict[str, object], name: str, length: int | None = None) -> bytes:
    try:
        data = from_base64(_text(fields, name))
    except MessageError:
        raise MessageError(f"user_data.{name}: missing or not base64") from None
    if length is not None and len(data) != length:
        raise MessageError(f"user_data.{name}: not {length} bytes")
    return data

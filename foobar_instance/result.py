"""A verified result, and the checks that tie its attestation to a request and to a key."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass

from foobar_instance.attestation import Attestation
from foobar_instance.errors import NotVerifiedError
from foobar_shared.claims import KeyClaims, parse_result_claims
from foobar_shared.errors import MessageError


@dataclass(frozen=True, slots=True)
class Result:
    """A verified result, and the three things that prove it to others.

    `attestation` is the result document's content; `key_document` and `result_document` are raw
    attestation documents, `request_line` is the request as sent, without its line feed.
    """

    count: int
    key: KeyClaims
    attestation: Attestation
    key_document: bytes
    request_line: bytes
    result_document: bytes


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


def as_line(result: Result) -> str:
    """The count alone, as the original prints it."""
    return f"Count 'a': {result.count}"


def as_text(result: Result) -> str:
    """The count, when it was computed, by which enclave image, and under which key."""
    attestation = result.attestation
    return "\n".join(
        (
            as_line(result),
            f"computed:  {attestation.timestamp:%Y-%m-%d %H:%M:%S} UTC",
            f"by PCR0:   {attestation.pcrs[0].hex()}",
            f"key:       {result.key.key_arn}",
        )
    )


def as_json_text(result: Result) -> str:
    """An indented JSON object of the count and what it rests on."""
    attestation = result.attestation
    return json.dumps(
        {
            "count": result.count,
            "keyArn": result.key.key_arn,
            "pcr0": attestation.pcrs[0].hex(),
            "moduleId": attestation.module_id,
            "timestamp": attestation.timestamp.isoformat(timespec="milliseconds"),
            "requestSha256": hashlib.sha256(result.request_line).hexdigest(),
        },
        indent=2,
    )

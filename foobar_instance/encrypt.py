"""`encrypt`: to the key of a verified attestation, with no network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from foobar_instance.trust import Trust
from foobar_shared import envelope, hpke

MAX_PLAINTEXT: Final = {1: envelope.MAX_PLAINTEXT, 2: hpke.MAX_PLAINTEXT}
"""Longest plaintext in bytes, by message format."""


def sealer(document: bytes, trust: Trust, message_format: int = 2) -> Callable[[bytes], str]:
    """Return the function that makes of a plaintext a message for the key in `document`.

    It raises EnvelopeError where the plaintext is too long.

    Raises:
        NotVerifiedError: the document, or what it attests, does not verify.
    """
    _, claims = trust.verify_key(document)
    if message_format == 1:
        return lambda plaintext: envelope.encrypt(plaintext, claims.public_key)
    return lambda plaintext: hpke.seal(plaintext, claims.public_key, claims.key_arn)

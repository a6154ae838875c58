"""`encrypt`: to the key of a verified attestation, with no network."""

from __future__ import annotations

from foobar_instance.trust import Trust, key_claims
from foobar_shared import envelope


def encrypt(plaintext: bytes, document: bytes, trust: Trust) -> str:
    """Return the message that holds `plaintext`, for the key that `document` attests.

    Raises:
        NotVerifiedError: the document, or what it attests, does not verify.
        EnvelopeError: the plaintext is too long.
    """
    attestation = trust.verify_saved(document, "the key's attestation")
    claims = key_claims(attestation, "the key's attestation")
    return envelope.encrypt(plaintext, claims.public_key)

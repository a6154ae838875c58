"""Message format 1: ephemeral ECDH on P-256, HKDF-SHA-256, AES-256-GCM.

The names, the key schedule and the encoding are the original's, so that either CLI's messages
are read by either enclave.

    ephemeral key ──┐
                    ├─ ECDH ─ HKDF ─ content encryption key (CEK) ─ AES-256-GCM ─ ciphertext
    attested key  ──┘
"""

from __future__ import annotations

import base64
import functools
import os
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from foobar_shared.encoding import Fields, parse_json_object, to_base64url, to_json
from foobar_shared.errors import EnvelopeError, MessageError, MessageTooLongError

GCM_NONCE_BYTES: Final = 12  # NIST SP 800-38D section 8.2
GCM_TAG_BYTES: Final = 16
CEK_BYTES: Final = 32
SHARED_SECRET_BYTES: Final = 32  # the x coordinate of a P-256 point (SEC 1 section 3.3.1)
MAX_CIPHERTEXT: Final = 42_906
"""Longest ciphertext in bytes: it fits a decrypt request, a line of 64 KiB, beside the longest
enveloped data."""
MAX_PLAINTEXT: Final = MAX_CIPHERTEXT - GCM_TAG_BYTES

_SALT: Final = b"foobar-service-salt"
# The longest ciphertext in base64, in JSON beside an ephemeral key and a nonce, in base64url.
MAX_MESSAGE: Final = (MAX_CIPHERTEXT * 4 // 3 + 512) * 4 // 3
_LIMIT: Final = f"its plaintext may have {MAX_PLAINTEXT} bytes"


@dataclass(frozen=True, slots=True)
class Message:
    """A parsed ciphertext message.

    `ephemeral_key` is DER SubjectPublicKeyInfo on P-256, `nonce` 12 bytes, `ciphertext` ends in
    the 16-byte tag.
    """

    ephemeral_key: bytes
    nonce: bytes
    ciphertext: bytes = field(repr=False)


def encrypt(plaintext: bytes, public_key_der: bytes) -> str:
    """Return the message that only the holder of the private key can read.

    Raises:
        EnvelopeError: the plaintext is longer than `MAX_PLAINTEXT`, or the key is not a P-256
            public key in DER SubjectPublicKeyInfo.
    """
    if len(plaintext) > MAX_PLAINTEXT:
        raise EnvelopeError(
            f"the plaintext has {len(plaintext)} bytes; at most {MAX_PLAINTEXT} fit a request"
        )
    recipient = load_p256_public_key(public_key_der)
    ephemeral = ec.generate_private_key(ec.SECP256R1())
    cek = _content_encryption_key(ephemeral.exchange(ec.ECDH(), recipient))
    nonce = os.urandom(GCM_NONCE_BYTES)
    ciphertext = AESGCM(cek).encrypt(nonce, plaintext, None)
    ephemeral_key = ephemeral.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    return encode_message(Message(ephemeral_key, nonce, ciphertext))


def decrypt(nonce: bytes, ciphertext: bytes, shared_secret: bytes) -> bytes:
    """Return the plaintext of a message, given the 32-byte ECDH shared secret.

    Raises:
        EnvelopeError: it does not decrypt; one text for every cause.
    """
    if len(nonce) != GCM_NONCE_BYTES or len(shared_secret) != SHARED_SECRET_BYTES:
        raise EnvelopeError("the message does not decrypt")
    try:
        return AESGCM(_content_encryption_key(shared_secret)).decrypt(nonce, ciphertext, None)
    except InvalidTag:
        raise EnvelopeError("the message does not decrypt") from None


def encode_message(message: Message) -> str:
    """Return the message's text: base64url without padding of its JSON."""
    fields = {"e": message.ephemeral_key, "n": message.nonce, "c": message.ciphertext}
    return to_base64url(to_json(fields))


def parse_message(text: str) -> Message:
    """Parse a message that `encrypt` or the original's CLI has written.

    Raises:
        EnvelopeError: not such a message; the text says what is wrong.
    """
    if len(text) > MAX_MESSAGE:
        raise MessageTooLongError(f"the message is too long for a request: {_LIMIT}")
    try:
        fields = Fields("", parse_json_object(_from_base64url(text)))
        message = Message(
            ephemeral_key=fields.data("e"),
            nonce=fields.data("n", length=GCM_NONCE_BYTES),
            ciphertext=fields.data("c"),
        )
    except MessageError as error:
        raise EnvelopeError(f"not a ciphertext message: {error}") from None
    if len(message.ciphertext) > MAX_CIPHERTEXT:
        raise MessageTooLongError(f"the message is too long for a request: {_LIMIT}")
    if len(message.ciphertext) < GCM_TAG_BYTES:
        raise EnvelopeError(f"not a ciphertext message: c has {len(message.ciphertext)} bytes")
    load_p256_public_key(message.ephemeral_key)
    return message


# One key for all lines of a command, and for all messages of a request.
@functools.lru_cache(maxsize=4)
def load_p256_public_key(der: bytes) -> ec.EllipticCurvePublicKey:
    """Return the P-256 public key whose canonical DER SubjectPublicKeyInfo (RFC 5480) is `der`.

    Raises:
        EnvelopeError: not such a key, on another curve, or not in this one encoding.
    """
    try:
        key = load_der_public_key(der)
    except Exception as error:  # the library does not bound what it raises
        raise EnvelopeError("not a DER public key") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise EnvelopeError("not a P-256 public key")
    if key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != der:
        raise EnvelopeError("not the canonical encoding of a P-256 public key")
    return key


def _content_encryption_key(shared_secret: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=CEK_BYTES, salt=_SALT, info=b"").derive(shared_secret)


def _from_base64url(text: str) -> bytes:
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise MessageError("not base64url without padding") from error
    if to_base64url(data) != text:
        raise MessageError("not canonical base64url")
    return data

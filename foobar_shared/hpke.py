"""Message format 2: HPKE (RFC 9180), opened with the shared secret that KMS returns.

Base mode, DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, no associated data. The sender is
the library's. The opener cannot be, because the private key never leaves KMS: `DeriveSharedSecret`
returns the Diffie-Hellman value, from which this module derives the key as the RFC says.

What is sealed is 32 zero bytes and then the plaintext. AES-GCM by itself lets an author craft a
ciphertext that opens under two keys. With the zeros, which the opener checks, that would take two
keys whose first 32 bytes of key stream are equal.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from foobar_shared import envelope
from foobar_shared.encoding import Fields, parse_json_object, to_base64url, to_json
from foobar_shared.envelope import GCM_TAG_BYTES, SHARED_SECRET_BYTES, load_p256_public_key
from foobar_shared.errors import EnvelopeError, MessageError, MessageTooLongError

ENC_BYTES: Final = 65  # Nenc of DHKEM(P-256): an uncompressed point
KEY_HINT_BYTES: Final = 8

MAX_CIPHERTEXT: Final = 760 * 1024
"""Longest ciphertext in bytes: one message fits a `compute` request, a line of 1 MiB.

In base64 it takes 1,037,656 characters, and the rest of the line up to 10,607.
"""

_PREFIX: Final = bytes(32)
MAX_PLAINTEXT: Final = MAX_CIPHERTEXT - GCM_TAG_BYTES - len(_PREFIX)
"""Longest plaintext in bytes whose message fits a `compute` request."""

# The longest ciphertext in base64, in JSON beside `v`, `k` and `e`, in base64url.
MAX_MESSAGE: Final = (MAX_CIPHERTEXT * 4 // 3 + 256) * 4 // 3

_VERSION: Final = 2
_INFO: Final = b"foobar/message/2\0"
_SUITE: Final = Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_KEM_ID: Final = b"KEM\x00\x10"
_HPKE_ID: Final = b"HPKE\x00\x10\x00\x01\x00\x02"  # the numbers of KEM, KDF and AEAD
_BASE_MODE: Final = b"\0"
_IGNORED: Final = str.maketrans("", "", "\r\n ")  # what mail programs and `fold` insert
_DOES_NOT_OPEN: Final = "the message does not decrypt"


@dataclass(frozen=True, slots=True)
class SealedMessage:
    """A parsed message of format 2.

    `hint` is the `key_hint` of the key that the message says it is for (8 bytes, trusted for
    nothing), `enc` the sender's ephemeral public key (65 bytes), `ciphertext` ends in the 16-byte
    tag.
    """

    hint: bytes
    enc: bytes
    ciphertext: bytes = field(repr=False)


def seal(plaintext: bytes, public_key_der: bytes, key_arn: str) -> str:
    """Return the message that only the holder of the private key can open.

    Raises:
        EnvelopeError: the plaintext is longer than `MAX_PLAINTEXT`, or the key is not a P-256
            public key in DER SubjectPublicKeyInfo.
    """
    if len(plaintext) > MAX_PLAINTEXT:
        raise EnvelopeError(
            f"the plaintext has {len(plaintext)} bytes; at most {MAX_PLAINTEXT} fit a request"
        )
    recipient = load_p256_public_key(public_key_der)
    sealed = _SUITE.encrypt(_PREFIX + plaintext, recipient, _info(key_arn))
    hint = key_hint(public_key_der)
    return encode(SealedMessage(hint, sealed[:ENC_BYTES], sealed[ENC_BYTES:]))


def open_message(
    enc: bytes, ciphertext: bytes, dh: bytes, public_key_der: bytes, key_arn: str
) -> bytes:
    """Return the plaintext of a message, given the 32 bytes `dh` that DeriveSharedSecret returns.

    `public_key_der` and `key_arn` are those that the message was sealed to. The work does not
    depend on `dh` up to the check of the tag, and so takes the same time for a random one.

    Raises:
        EnvelopeError: it does not open, or an argument is malformed; one text for every cause.
    """
    try:
        _check_point(enc)
        if len(dh) != SHARED_SECRET_BYTES:
            raise ValueError
        recipient = load_p256_public_key(public_key_der).public_bytes(
            Encoding.X962, PublicFormat.UncompressedPoint
        )
        key, nonce = key_schedule(extract_and_expand(dh, enc + recipient), _info(key_arn))
        opened = AESGCM(key).decrypt(nonce, ciphertext, None)
    except (EnvelopeError, InvalidTag, TypeError, ValueError):
        raise EnvelopeError(_DOES_NOT_OPEN) from None
    if not hmac.compare_digest(opened[: len(_PREFIX)], _PREFIX):
        raise EnvelopeError(_DOES_NOT_OPEN)
    return opened[len(_PREFIX) :]


def extract_and_expand(dh: bytes, kem_context: bytes) -> bytes:
    """Return the KEM's shared secret (RFC 9180 section 4.1), 32 bytes.

    `kem_context` is `enc` followed by the recipient's public key, both 65-byte points.
    """
    prk = _labeled_extract(b"", _KEM_ID, b"eae_prk", dh)
    return _labeled_expand(prk, _KEM_ID, b"shared_secret", kem_context, 32)


def key_schedule(shared_secret: bytes, info: bytes) -> tuple[bytes, bytes]:
    """Return the AEAD key (32 bytes) and nonce (12 bytes) of base mode's first message.

    RFC 9180 section 5.1 names the nonce `base_nonce`.
    """
    context = (
        _BASE_MODE
        + _labeled_extract(b"", _HPKE_ID, b"psk_id_hash", b"")
        + _labeled_extract(b"", _HPKE_ID, b"info_hash", info)
    )
    secret = _labeled_extract(shared_secret, _HPKE_ID, b"secret", b"")
    return (
        _labeled_expand(secret, _HPKE_ID, b"key", context, 32),
        _labeled_expand(secret, _HPKE_ID, b"base_nonce", context, 12),
    )


def key_hint(public_key_der: bytes) -> bytes:
    """Return the 8 bytes by which a message says which key it is for."""
    return hashlib.sha256(public_key_der).digest()[:KEY_HINT_BYTES]


def encode(message: SealedMessage) -> str:
    """Return the message's text: base64url without padding of its JSON."""
    fields = {"v": _VERSION, "k": message.hint, "e": message.enc, "c": message.ciphertext}
    return to_base64url(to_json(fields))


def parse_message(text: str) -> envelope.Message | SealedMessage:
    """Parse a message of either format. Spaces and line breaks in `text` are ignored.

    Raises:
        EnvelopeError: not a message; the text says what is wrong.
    """
    text = text.translate(_IGNORED)
    return parse(text) or envelope.parse_message(text)


def parse(text: str) -> SealedMessage | None:
    """Parse a message of format 2, or return None if it names no format, as format 1 does.

    Spaces, carriage returns and line feeds are ignored. A message has one spelling beside that:
    no further fields, no other order, no padding.

    Raises:
        EnvelopeError: not such a message; the text says what is wrong.
    """
    text = text.translate(_IGNORED)
    if len(text) > MAX_MESSAGE:
        raise MessageTooLongError(
            f"the message is too long for a request: its plaintext may have {MAX_PLAINTEXT} bytes"
        )
    try:
        fields = parse_json_object(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if "v" not in fields:
            return None
        message = _message(fields)
    except MessageError as error:
        raise EnvelopeError(f"not a ciphertext message: {error}") from None
    except ValueError:
        raise EnvelopeError("not a ciphertext message: not base64url") from None
    # The decoders above are lenient here and there. This one comparison is not.
    if encode(message) != text:
        raise EnvelopeError("not a ciphertext message: not its one spelling")
    return message


def _message(values: dict[str, object]) -> SealedMessage:
    if values["v"] != _VERSION:
        raise MessageError("of a format that this version does not know")
    fields = Fields("", values)
    message = SealedMessage(
        hint=fields.data("k", length=KEY_HINT_BYTES),
        enc=fields.data("e", length=ENC_BYTES),
        ciphertext=fields.data("c"),
    )
    if not len(_PREFIX) + GCM_TAG_BYTES <= len(message.ciphertext) <= MAX_CIPHERTEXT:
        raise MessageError(f"c has {len(message.ciphertext)} bytes")
    try:
        _check_point(message.enc)
    except ValueError:
        raise MessageError("e is not a point on P-256") from None
    return message


def _check_point(enc: bytes) -> None:
    """Raise ValueError or TypeError if `enc` is not an uncompressed point on P-256."""
    if len(enc) != ENC_BYTES:
        raise ValueError
    ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), enc)


def _info(key_arn: str) -> bytes:
    return _INFO + bytes(key_arn, "utf-8")


def _labeled_extract(salt: bytes, suite: bytes, label: bytes, data: bytes) -> bytes:
    return HKDF.extract(SHA256(), salt, b"HPKE-v1" + suite + label + data)


def _labeled_expand(prk: bytes, suite: bytes, label: bytes, context: bytes, length: int) -> bytes:
    info = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + context
    return HKDFExpand(SHA256(), length, info).derive(prk)

"""Opens the CMS EnvelopedData (RFC 5652 section 6) in which KMS answers an attested request.

KMS writes BER: containers of indefinite length, and the encrypted content in pieces. The shape is
otherwise always the same, and every other one is refused:

    ContentInfo { envelopedData, [0] EnvelopedData { version 2,
        one KeyTransRecipientInfo { version 2, [0] SHA-256 of the recipient's public key,
            RSAES-OAEP (SHA-256, MGF1 with SHA-256, no label), encrypted AES key },
        EncryptedContentInfo { data, AES-256-CBC with its IV, [0] encrypted content } } }

Nothing protects the message's integrity, so somebody who can tell one failure from another, even by
a microsecond, may learn the plaintext byte by byte (a padding oracle). A key that does not decrypt
is therefore replaced by a random one, with which decryption goes on and fails. A caller who knows
the content's size gives it: then only that size's padding is valid, and all of it is compared at
once, in constant time. Only a guess of the whole last block can tell anything.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from asn1crypto import parser
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from foobar_enclave.errors import DecryptionError
from foobar_shared.messages import MAX_ENVELOPED_DATA

__all__ = ["DecryptionError", "decrypt_enveloped_data"]

_ENVELOPED_DATA: Final = bytes.fromhex("06092a864886f70d010703")  # OID, RFC 5652 section 6.1
_DATA: Final = bytes.fromhex("06092a864886f70d010701")  # OID, RFC 5652 section 4
_VERSION_2: Final = bytes.fromhex("020102")  # INTEGER
_PADDING: Final = padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=None)
_BLOCK_BYTES: Final = 16
_CEK_BYTES: Final = 32
# PKCS #7 (RFC 5652 section 6.3) after content of whole blocks: a block more.
_WHOLE_PADDING: Final = bytes([_BLOCK_BYTES]) * _BLOCK_BYTES

# Identifier octets (X.690 section 8.1.2): class, constructed or not, and tag number.
_SEQUENCE: Final = 0x30
_SET: Final = 0x31
_OCTET_STRING: Final = 0x04
_CONSTRUCTED_0: Final = 0xA0
_CONSTRUCTED_1: Final = 0xA1
_PRIMITIVE_0: Final = 0x80
_INDEFINITE: Final = 0x80  # length octet (X.690 section 8.1.3.6), with two zeros at the end


def _der(kind: int, *contents: bytes) -> bytes:
    return bytes(parser.emit(kind >> 6, kind >> 5 & 1, kind & 0x1F, b"".join(contents)))


def _oaep(sha256: bytes, mgf1_sha256: bytes) -> bytes:
    """Return the AlgorithmIdentifier of RSAES-OAEP with two hashes, no label (RFC 8017 A.2.1)."""
    oid = bytes.fromhex("06092a864886f70d010107")  # id-RSAES-OAEP
    mgf1 = bytes.fromhex("06092a864886f70d010108")  # id-mgf1
    parameters = _der(
        _SEQUENCE,
        _der(_CONSTRUCTED_0, sha256),
        _der(_CONSTRUCTED_1, _der(_SEQUENCE, mgf1, mgf1_sha256)),
    )
    return _der(_SEQUENCE, oid, parameters)


_SHA256_OID: Final = bytes.fromhex("0609608648016503040201")  # id-sha256
# RFC 4055 section 2.1: parameters NULL or absent, and both are to be accepted.
_SHA256: Final = tuple(_der(_SEQUENCE, _SHA256_OID, null) for null in (b"\x05\x00", b""))
_OAEP: Final = frozenset(_oaep(one, other) for one in _SHA256 for other in _SHA256)
# RFC 3565 section 4.2: SEQUENCE of id-aes256-CBC and an OCTET STRING of 16 bytes, which follow.
_AES_256_CBC: Final = bytes.fromhex("301d060960864801650304012a0410")


def decrypt_enveloped_data(message: bytes, key: RSAPrivateKey, *, size: int | None = None) -> bytes:
    """Return the content of a `CiphertextForRecipient`.

    Args:
        message: ContentInfo in BER, 1 to 6144 bytes, with nothing after it.
        key: the private key that belongs to the `public_key` of the attestation document.
        size: of the content in bytes, a multiple of 16; no other size is then accepted. Without
            it, valid padding takes another time than invalid padding: do not use that for
            messages of somebody who can measure the time and ask again.

    Raises:
        DecryptionError: it does not decrypt; one text for every cause, and no cause attached.
        ValueError: `size` is not a multiple of 16, so its padding would be easy to guess.
    """
    if size is not None and size % _BLOCK_BYTES:
        raise ValueError("size is not a multiple of 16")
    envelope = _envelope(message)
    content = None if envelope is None else _open(envelope, key, size)
    # Outside of any handler, so that the exception has no context that names the cause.
    if content is None:
        raise DecryptionError
    return content


@dataclass(frozen=True, slots=True)
class _Envelope:
    """The parts of the message; all of them are public."""

    recipient: bytes
    encrypted_key: bytes
    iv: bytes
    encrypted_content: bytes


class _Element(NamedTuple):
    """One BER element: its content, and all of its bytes."""

    content: bytes
    encoded: bytes


def _open(envelope: _Envelope, key: RSAPrivateKey, size: int | None) -> bytes | None:
    if envelope.recipient != _identifier(key):
        return None
    if size is not None and len(envelope.encrypted_content) != size + _BLOCK_BYTES:
        return None
    substitute = os.urandom(_CEK_BYTES)
    cek = _unwrap(envelope.encrypted_key, key)
    valid = len(cek) == _CEK_BYTES
    decryptor = Cipher(AES256(cek if valid else substitute), CBC(envelope.iv)).decryptor()
    padded = decryptor.update(envelope.encrypted_content) + decryptor.finalize()
    content = _unpad(padded) if size is None else _cut(padded, size)
    return content if valid else None


@functools.lru_cache(maxsize=1)  # an enclave has one key
def _identifier(key: RSAPrivateKey) -> bytes:
    """Return SHA-256 of the DER SubjectPublicKeyInfo, by which KMS names the recipient."""
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(public).digest()


def _unwrap(encrypted_key: bytes, key: RSAPrivateKey) -> bytes:
    """Return the decrypted key, or no bytes."""
    try:
        return key.decrypt(encrypted_key, _PADDING)
    except ValueError:
        return b""


def _cut(padded: bytes, size: int) -> bytes | None:
    """Return the content of a known size if its padding follows; compare in constant time."""
    return padded[:size] if hmac.compare_digest(padded[size:], _WHOLE_PADDING) else None


def _unpad(padded: bytes) -> bytes | None:
    """Remove PKCS #7 padding of any length; the time that this takes tells whether it is valid."""
    unpadder = PKCS7(_BLOCK_BYTES * 8).unpadder()
    try:
        return unpadder.update(padded) + unpadder.finalize()
    except ValueError:
        return None


def _envelope(message: bytes) -> _Envelope | None:
    if not 0 < len(message) <= MAX_ENVELOPED_DATA:
        return None
    try:
        return _parse(message)
    except Exception:  # noqa: BLE001 - the parser does not bound what it raises
        return None


def _parse(message: bytes) -> _Envelope:
    """Parse the one known shape; raise ValueError, or what the parser raises, for any other."""
    content_type, wrapper = _first(_inside(message, _SEQUENCE))
    version, rest = _first(_inside(_inside(wrapper, _CONSTRUCTED_0), _SEQUENCE))
    recipients, encrypted = _first(rest)
    inner_type, rest = _first(_inside(encrypted, _SEQUENCE))
    algorithm, content = _first(rest)
    _demand(content_type.encoded == _ENVELOPED_DATA)
    _demand(version.encoded == _VERSION_2)
    _demand(inner_type.encoded == _DATA)
    identifier, encrypted_key = _recipient(_inside(recipients.encoded, _SET))
    return _Envelope(identifier, encrypted_key, _iv(algorithm.encoded), _content(content))


def _recipient(recipient: bytes) -> tuple[bytes, bytes]:
    """Return key identifier and encrypted key of a KeyTransRecipientInfo."""
    _, rest = _first(_inside(recipient, _SEQUENCE))
    identifier, rest = _first(rest)
    algorithm, rest = _first(rest)
    encrypted_key, _ = _first(rest)
    _demand(algorithm.encoded in _OAEP)
    # DER, as KMS writes it here; an identifier by issuer and serial number has another tag.
    der = _der(
        _SEQUENCE,
        _VERSION_2,
        _der(_PRIMITIVE_0, identifier.content),
        algorithm.encoded,
        _der(_OCTET_STRING, encrypted_key.content),
    )
    _demand(der == recipient)
    return identifier.content, encrypted_key.content


def _iv(algorithm: bytes) -> bytes:
    """Return the IV of an AES-256-CBC AlgorithmIdentifier, in DER as KMS writes it."""
    head, iv = algorithm[:-_BLOCK_BYTES], algorithm[-_BLOCK_BYTES:]
    _demand(head == _AES_256_CBC)
    return iv


def _content(encrypted: bytes) -> bytes:
    """Return the content of an implicitly tagged octet string, whole or in pieces."""
    if encrypted[0] == _PRIMITIVE_0:
        content = _inside(encrypted, _PRIMITIVE_0)
    else:
        content = b"".join(_octet_strings(_inside(encrypted, _CONSTRUCTED_0)))
    _demand(len(content) > 0 and len(content) % _BLOCK_BYTES == 0)
    return content


def _octet_strings(encoded: bytes) -> Iterator[bytes]:
    while encoded:
        piece, encoded = _first(encoded)
        _demand(piece.encoded[0] == _OCTET_STRING)
        yield piece.content


def _inside(encoded: bytes, kind: int) -> bytes:
    """Return the content of `encoded`, which must be exactly one element of a kind.

    An element of indefinite length takes up all bytes, so its end is not searched. A premature end
    inside is refused where it is read, because it is an element of no expected kind.
    """
    _demand(encoded[0] == kind)
    if encoded[1] == _INDEFINITE:
        _demand(kind != _PRIMITIVE_0 and encoded.endswith(b"\0\0"))
        return encoded[2:-2]
    element, rest = _first(encoded)
    _demand(not rest)
    return element.content


def _first(encoded: bytes) -> tuple[_Element, bytes]:
    """Return the first BER element, of definite or indefinite length, and the bytes after it."""
    _, _, _, header, content, trailer = parser.parse(encoded)
    size = len(header) + len(content) + len(trailer)
    return _Element(content, encoded[:size]), encoded[size:]


def _demand(condition: bool) -> None:
    if not condition:
        raise ValueError

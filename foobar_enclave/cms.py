"""Opens the CMS EnvelopedData (RFC 5652 section 6) in which KMS answers an attested request.

KMS writes BER: containers of indefinite length, and the encrypted content in pieces. The shape is
otherwise always the same, and every other one is refused:

    ContentInfo { envelopedData, [0] EnvelopedData { version 2,
        one KeyTransRecipientInfo { version 2, [0] SHA-256 of the recipient's public key,
            RSAES-OAEP (SHA-256, MGF1 with SHA-256, no label), encrypted AES key },
        EncryptedContentInfo { data, AES-256-CBC with its IV, [0] encrypted content } } }

Nothing protects the message's integrity, so whoever can tell one failure from another may learn
the plaintext byte by byte. What depends on the private key therefore takes one way to its end: a
key that does not decrypt is replaced by a random one, with which decryption goes on and fails.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Final

from asn1crypto import cms, parser
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
_BLOCK_BYTES: Final = 16
_CEK_BYTES: Final = 32

# Class, constructed or not, and tag number of X.690 section 8.1.2.
_SEQUENCE: Final = (0, 1, 16)
_SET: Final = (0, 1, 17)
_OCTET_STRING: Final = (0, 0, 4)
_CONSTRUCTED_0: Final = (2, 1, 0)
_PRIMITIVE_0: Final = (2, 0, 0)

_SHA256: Final = {"algorithm": "sha256", "parameters": None}
_OAEP: Final = {
    "algorithm": "rsaes_oaep",
    "parameters": {
        "hash_algorithm": _SHA256,
        "mask_gen_algorithm": {"algorithm": "mgf1", "parameters": _SHA256},
        "p_source_algorithm": {"algorithm": "p_specified", "parameters": b""},
    },
}


def decrypt_enveloped_data(message: bytes, key: RSAPrivateKey) -> bytes:
    """The content of a `CiphertextForRecipient`.

    Args:
        message: ContentInfo in BER, 1 to 6144 bytes, with nothing after it.
        key: the private key that belongs to the `public_key` of the attestation document.

    Raises:
        DecryptionError: it does not decrypt; one text for every cause, and no cause attached.
    """
    envelope = _envelope(message)
    content = None if envelope is None else _open(envelope, key)
    # Outside of any handler, so that the exception has no context that names the cause.
    if content is None:
        raise DecryptionError
    return content


@dataclass(frozen=True, slots=True)
class _Envelope:
    """What the message says; all of it is public."""

    recipient: bytes
    encrypted_key: bytes
    iv: bytes
    encrypted_content: bytes


@dataclass(frozen=True, slots=True)
class _Element:
    """One BER element: what kind it is, its content, and all of its bytes."""

    kind: tuple[int, int, int]
    content: bytes
    encoded: bytes


def _open(envelope: _Envelope, key: RSAPrivateKey) -> bytes | None:
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if envelope.recipient != hashlib.sha256(public).digest():
        return None
    substitute = os.urandom(_CEK_BYTES)
    cek = _unwrap(envelope.encrypted_key, key)
    valid = len(cek) == _CEK_BYTES
    decryptor = Cipher(AES256(cek if valid else substitute), CBC(envelope.iv)).decryptor()
    padded = decryptor.update(envelope.encrypted_content) + decryptor.finalize()
    content = _unpad(padded)
    return content if valid else None


def _unwrap(encrypted_key: bytes, key: RSAPrivateKey) -> bytes:
    """The decrypted key, or nothing."""
    oaep = padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=None)
    try:
        return key.decrypt(encrypted_key, oaep)
    except ValueError:
        return b""


def _unpad(padded: bytes) -> bytes | None:
    """The content without its PKCS #7 padding, which the library checks in constant time."""
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
    """Every departure from the one known shape is a ValueError, or what the parser raises."""
    (content_info,) = _elements(message)
    content_type, wrapper = _children(content_info, _SEQUENCE)
    (enveloped_data,) = _children(wrapper, _CONSTRUCTED_0)
    version, recipients, encrypted = _children(enveloped_data, _SEQUENCE)
    (recipient,) = _children(recipients, _SET)
    inner_type, algorithm, content = _children(encrypted, _SEQUENCE)
    _demand(content_type.encoded == _ENVELOPED_DATA)
    _demand(version.encoded == _VERSION_2)
    _demand(inner_type.encoded == _DATA)
    identifier, encrypted_key = _recipient(recipient.encoded)
    return _Envelope(identifier, encrypted_key, _iv(algorithm.encoded), _content(content))


def _recipient(encoded: bytes) -> tuple[bytes, bytes]:
    """The recipient's key identifier and the encrypted key of a KeyTransRecipientInfo."""
    recipient = cms.KeyTransRecipientInfo.load(encoded, strict=True)
    _demand(recipient["version"].native == "v2")
    _demand(recipient["key_encryption_algorithm"].native == _OAEP)
    # DER, as KMS writes it here: no byte is left over in any of the nested structures.
    _demand(recipient.dump(force=True) == encoded)
    # An identifier of the other kind, issuer and serial number, is no bytes.
    return bytes(recipient["rid"].native), bytes(recipient["encrypted_key"].native)


def _iv(encoded: bytes) -> bytes:
    """The initialisation vector of an AES-256-CBC AlgorithmIdentifier (RFC 3565 section 4.2)."""
    algorithm = cms.EncryptionAlgorithm.load(encoded, strict=True)
    _demand(algorithm["algorithm"].native == "aes256_cbc")
    _demand(algorithm.dump(force=True) == encoded)  # DER here too
    iv = bytes(algorithm["parameters"].native)
    _demand(len(iv) == _BLOCK_BYTES)
    return iv


def _content(element: _Element) -> bytes:
    """The encrypted content: an implicitly tagged octet string, whole or in pieces."""
    if element.kind == _PRIMITIVE_0:
        content = element.content
    else:
        pieces = _children(element, _CONSTRUCTED_0)
        _demand(all(piece.kind == _OCTET_STRING for piece in pieces))
        content = b"".join(piece.content for piece in pieces)
    _demand(len(content) > 0 and len(content) % _BLOCK_BYTES == 0)
    return content


def _children(element: _Element, kind: tuple[int, int, int]) -> list[_Element]:
    _demand(element.kind == kind)
    return _elements(element.content)


def _elements(content: bytes) -> list[_Element]:
    """The BER elements in `content`, of definite or indefinite length, one after the other."""
    elements = []
    while content:
        tag_class, constructed, tag, header, body, trailer = parser.parse(content)
        size = len(header) + len(body) + len(trailer)
        elements.append(_Element((tag_class, constructed, tag), body, content[:size]))
        content = content[size:]
    return elements


def _demand(condition: bool) -> None:
    if not condition:
        raise ValueError

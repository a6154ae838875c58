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

import hashlib
import hmac
import os
from typing import Final

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
_CONSTRUCTED: Final = 0x20  # the bit that tells such an element from a primitive one
_INDEFINITE: Final = 0x80  # length octet (X.690 section 8.1.3.6), with two zeros at the end

# Elements in DER; those that are not explained are object identifiers.
_ENVELOPED_DATA: Final = bytes.fromhex("06092a864886f70d010703")  # RFC 5652 section 6.1
_DATA: Final = bytes.fromhex("06092a864886f70d010701")  # RFC 5652 section 4
_RSAES_OAEP: Final = bytes.fromhex("06092a864886f70d010107")
_MGF1: Final = bytes.fromhex("06092a864886f70d010108")
_SHA256: Final = bytes.fromhex("0609608648016503040201")
_NULL: Final = b"\x05\x00"
_VERSION_2: Final = bytes.fromhex("020102")  # INTEGER
# RFC 3565 section 4.2: SEQUENCE of id-aes256-CBC and an OCTET STRING of 16 bytes, which follow.
_AES_256_CBC: Final = bytes.fromhex("301d060960864801650304012a0410")


def _der(kind: int, *contents: bytes) -> bytes:
    return bytes(parser.emit(kind >> 6, kind >> 5 & 1, kind & 0x1F, b"".join(contents)))


def _oaep(label_hash: bytes, mgf1_hash: bytes) -> bytes:
    """Return the AlgorithmIdentifier of RSAES-OAEP without a label (RFC 8017 appendix A.2.1)."""
    mgf1 = _der(_SEQUENCE, _MGF1, mgf1_hash)
    parameters = _der(_SEQUENCE, _der(_CONSTRUCTED_0, label_hash), _der(_CONSTRUCTED_1, mgf1))
    return _der(_SEQUENCE, _RSAES_OAEP, parameters)


# RFC 4055 section 2.1: a hash's parameters are NULL or absent, and both must be accepted.
_HASHES: Final = (_der(_SEQUENCE, _SHA256, _NULL), _der(_SEQUENCE, _SHA256))
_OAEP: Final = [_oaep(one, other) for one in _HASHES for other in _HASHES]


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
    try:
        parts = _parse(message, key)
    except Exception:  # noqa: BLE001 - the parser does not bound what it raises
        parts = None
    content = None if parts is None else _open(*parts, key, size)
    # Outside of any handler, so that the exception has no context that names the cause.
    if content is None:
        raise DecryptionError
    return content


def _open(
    encrypted_key: bytes, iv: bytes, encrypted: bytes, key: RSAPrivateKey, size: int | None
) -> bytes | None:
    substitute = os.urandom(_CEK_BYTES)
    try:
        cek = key.decrypt(encrypted_key, _PADDING)
    except ValueError:
        cek = b""
    valid = len(cek) == _CEK_BYTES
    decryptor = Cipher(AES256(cek if valid else substitute), CBC(iv)).decryptor()
    padded = decryptor.update(encrypted) + decryptor.finalize()
    if size is None:
        content = _unpad(padded)
    else:
        content = padded[:size] if hmac.compare_digest(padded[size:], _WHOLE_PADDING) else None
    return content if valid else None


def _unpad(padded: bytes) -> bytes | None:
    """Remove PKCS #7 padding of any length; the time that this takes tells whether it is valid."""
    unpadder = PKCS7(_BLOCK_BYTES * 8).unpadder()
    try:
        return unpadder.update(padded) + unpadder.finalize()
    except ValueError:
        return None


def _parse(message: bytes, key: RSAPrivateKey) -> tuple[bytes, bytes, bytes]:
    """Return encrypted key, IV and encrypted content of a message of the one known shape.

    All that is compared here is public. Any other shape raises ValueError, or what the parser
    raises.
    """
    _demand(0 < len(message) <= MAX_ENVELOPED_DATA)
    content_type, wrapper = _elements(_inside(message, _SEQUENCE))
    enveloped_data = _inside(_inside(wrapper, _CONSTRUCTED_0), _SEQUENCE)
    version, recipients, content_info = _elements(enveloped_data)
    inner_type, algorithm, content = _elements(_inside(content_info, _SEQUENCE))
    _demand((content_type, version, inner_type) == (_ENVELOPED_DATA, _VERSION_2, _DATA))
    # The recipient and the algorithm are DER, as KMS writes them, and end in what is not known.
    recipient = _inside(recipients, _SET)
    encrypted_key = recipient[-(key.key_size // 8) :]
    _demand(recipient in _recipients(encrypted_key, key))
    iv = algorithm[-_BLOCK_BYTES:]
    _demand(algorithm == _AES_256_CBC + iv)
    encrypted = _octets(content)
    _demand(len(encrypted) > 0 and len(encrypted) % _BLOCK_BYTES == 0)
    return encrypted_key, iv, encrypted


def _recipients(encrypted_key: bytes, key: RSAPrivateKey) -> list[bytes]:
    """Return every form of the KeyTransRecipientInfo that holds `encrypted_key` for `key`."""
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    identifier = _der(_PRIMITIVE_0, hashlib.sha256(public).digest())
    wrapped = _der(_OCTET_STRING, encrypted_key)
    return [_der(_SEQUENCE, _VERSION_2, identifier, oaep, wrapped) for oaep in _OAEP]


def _octets(encoded: bytes) -> bytes:
    """Return the content of an octet string under the tag [0], whole or in pieces."""
    if encoded[0] == _PRIMITIVE_0:
        return _inside(encoded, _PRIMITIVE_0)
    pieces = _elements(_inside(encoded, _CONSTRUCTED_0))
    return b"".join(_inside(piece, _OCTET_STRING) for piece in pieces)


def _inside(encoded: bytes, kind: int) -> bytes:
    """Return the content of `encoded`, which must be exactly one element of a kind.

    An element of indefinite length takes up all bytes, so its end is not searched. A premature end
    inside is refused where it is read, because it is an element of no expected kind.
    """
    _demand(encoded[0] == kind)
    if encoded[1] == _INDEFINITE:
        _demand(kind & _CONSTRUCTED != 0 and encoded.endswith(b"\0\0"))
        return encoded[2:-2]
    *_, content, _ = parser.parse(encoded, strict=True)  # strict: nothing may follow
    return bytes(content)


def _elements(encoded: bytes) -> list[bytes]:
    """Return the BER elements, of definite or indefinite length, that follow one another."""
    elements = []
    while encoded:
        *_, header, content, trailer = parser.parse(encoded)
        size = len(header) + len(content) + len(trailer)
        elements.append(encoded[:size])
        encoded = encoded[size:]
    return elements


def _demand(condition: bool) -> None:
    if not condition:
        raise ValueError

"""`CiphertextForRecipient`: CMS EnvelopedData (RFC 5652) in the byte form that AWS KMS writes.

ContentInfo SEQUENCE, indefinite
  envelopedData, [0] indefinite
    EnvelopedData SEQUENCE, indefinite
      version 2
      SET of one KeyTransRecipientInfo (all definite): version 2, [0] subjectKeyIdentifier,
        RSAES-OAEP with SHA-256 and MGF1-SHA-256, encryptedKey
      EncryptedContentInfo SEQUENCE, indefinite
        data, AES-256-CBC with IV, [0] indefinite, one OCTET STRING
"""

from __future__ import annotations

import hashlib
import os
from typing import Final

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_CEK_BYTES: Final = 32
_IV_BYTES: Final = 16
_AES_BLOCK_BITS: Final = 128

# Tags (X.690 section 8.1.2).
_INTEGER: Final = 0x02
_OCTET_STRING: Final = 0x04
_NULL: Final = b"\x05\x00"
_OID: Final = 0x06
_SEQUENCE: Final = 0x30
_SET: Final = 0x31
_CONTEXT_0: Final = 0x80
_CONSTRUCTED_0: Final = 0xA0
_CONSTRUCTED_1: Final = 0xA1
_END_OF_CONTENTS: Final = b"\x00\x00"

# Object identifiers, content octets.
_ENVELOPED_DATA: Final = bytes.fromhex("2a864886f70d010703")  # 1.2.840.113549.1.7.3
_DATA: Final = bytes.fromhex("2a864886f70d010701")  # 1.2.840.113549.1.7.1
_RSAES_OAEP: Final = bytes.fromhex("2a864886f70d010107")  # 1.2.840.113549.1.1.7
_MGF1: Final = bytes.fromhex("2a864886f70d010108")  # 1.2.840.113549.1.1.8
_SHA256: Final = bytes.fromhex("608648016503040201")  # 2.16.840.1.101.3.4.2.1
_AES_256_CBC: Final = bytes.fromhex("60864801650304012a")  # 2.16.840.1.101.3.4.1.42


def encrypt_for_recipient(plaintext: bytes, key: rsa.RSAPublicKey) -> bytes:
    """`plaintext` as EnvelopedData (BER) that only the holder of the private key can open.

    Args:
        plaintext: any bytes.
        key: the RSA key of the recipient; named by the SHA-256 of its SubjectPublicKeyInfo.
    """
    cek, iv = os.urandom(_CEK_BYTES), os.urandom(_IV_BYTES)
    oaep = padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=None)
    encrypted_content_info = _indefinite(
        _SEQUENCE,
        _definite(_OID, _DATA),
        _definite(_SEQUENCE, _definite(_OID, _AES_256_CBC), _definite(_OCTET_STRING, iv)),
        _indefinite(_CONSTRUCTED_0, _definite(_OCTET_STRING, _aes_cbc(plaintext, cek, iv))),
    )
    enveloped_data = _indefinite(
        _SEQUENCE,
        _definite(_INTEGER, b"\x02"),
        _definite(_SET, _recipient_info(key, key.encrypt(cek, oaep))),
        encrypted_content_info,
    )
    return _indefinite(
        _SEQUENCE, _definite(_OID, _ENVELOPED_DATA), _indefinite(_CONSTRUCTED_0, enveloped_data)
    )


def _recipient_info(key: rsa.RSAPublicKey, encrypted_key: bytes) -> bytes:
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    sha256 = _definite(_SEQUENCE, _definite(_OID, _SHA256), _NULL)
    mgf1 = _definite(_SEQUENCE, _definite(_OID, _MGF1), sha256)
    oaep = _definite(_SEQUENCE, _definite(_CONSTRUCTED_0, sha256), _definite(_CONSTRUCTED_1, mgf1))
    return _definite(
        _SEQUENCE,
        _definite(_INTEGER, b"\x02"),
        _definite(_CONTEXT_0, hashlib.sha256(spki).digest()),
        _definite(_SEQUENCE, _definite(_OID, _RSAES_OAEP), oaep),
        _definite(_OCTET_STRING, encrypted_key),
    )


def _aes_cbc(plaintext: bytes, key: bytes, iv: bytes) -> bytes:
    padder = PKCS7(_AES_BLOCK_BITS).padder()
    encryptor = Cipher(algorithms.AES256(key), modes.CBC(iv)).encryptor()
    return encryptor.update(padder.update(plaintext) + padder.finalize()) + encryptor.finalize()


def _definite(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return bytes([tag]) + _length(len(content)) + content


def _indefinite(tag: int, *contents: bytes) -> bytes:
    return bytes([tag, 0x80]) + b"".join(contents) + _END_OF_CONTENTS


def _length(length: int) -> bytes:
    """Definite form, as short as it goes (X.690 sections 8.1.3.3 to 8.1.3.5)."""
    if length < 0x80:
        return bytes([length])
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(octets)]) + octets

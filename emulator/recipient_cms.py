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

from asn1crypto import cms, core
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

# Tags (X.690 section 8.1.2).
_SEQUENCE: Final = 0x30
_CONTEXT_0: Final = 0xA0

_SHA256: Final = {"algorithm": "sha256"}
_OAEP: Final = {
    "algorithm": "rsaes_oaep",
    "parameters": {
        "hash_algorithm": _SHA256,
        "mask_gen_algorithm": {"algorithm": "mgf1", "parameters": _SHA256},
    },
}


def encrypt_for_recipient(plaintext: bytes, key: rsa.RSAPublicKey) -> bytes:
    """Return EnvelopedData (BER) that only the holder of `key`'s private key can open."""
    content_key, iv = os.urandom(32), os.urandom(16)
    padder = PKCS7(algorithms.AES256.block_size).padder()
    encryptor = Cipher(algorithms.AES256(content_key), modes.CBC(iv)).encryptor()
    ciphertext = encryptor.update(padder.update(plaintext) + padder.finalize())
    enveloped_data = _indefinite(
        _SEQUENCE,
        core.Integer(2).dump(),
        cms.RecipientInfos([_recipient_info(content_key, key)]).dump(),
        _indefinite(
            _SEQUENCE,
            cms.ContentType("data").dump(),
            cms.EncryptionAlgorithm({"algorithm": "aes256_cbc", "parameters": iv}).dump(),
            _indefinite(_CONTEXT_0, core.OctetString(ciphertext + encryptor.finalize()).dump()),
        ),
    )
    return _indefinite(
        _SEQUENCE,
        cms.ContentType("enveloped_data").dump(),
        _indefinite(_CONTEXT_0, enveloped_data),
    )


def _recipient_info(content_key: bytes, key: rsa.RSAPublicKey) -> cms.RecipientInfo:
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    oaep = padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=None)
    info = {
        "version": "v2",
        "rid": cms.RecipientIdentifier("subject_key_identifier", hashlib.sha256(spki).digest()),
        "key_encryption_algorithm": _OAEP,
        "encrypted_key": key.encrypt(content_key, oaep),
    }
    return cms.RecipientInfo("ktri", cms.KeyTransRecipientInfo(info))


def _indefinite(tag: int, *contents: bytes) -> bytes:
    """Return an element of indefinite length (X.690 section 8.1.3.6)."""
    return bytes([tag, 0x80]) + b"".join(contents) + b"\0\0"

"""Builds CMS EnvelopedData as KMS writes it, and every departure from that."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.padding import PKCS7

from tests.foobar_enclave.fakes import spki

ENVELOPED_DATA = bytes.fromhex("06092a864886f70d010703")
DATA = bytes.fromhex("06092a864886f70d010701")
RSAES_OAEP = bytes.fromhex("06092a864886f70d010107")
MGF1 = bytes.fromhex("06092a864886f70d010108")
P_SPECIFIED = bytes.fromhex("06092a864886f70d010109")
SHA256_OID = bytes.fromhex("0609608648016503040201")
SHA1_OID = bytes.fromhex("06052b0e03021a")
AES_256_CBC = bytes.fromhex("060960864801650304012a")
AES_128_CBC = bytes.fromhex("0609608648016503040102")
NULL = b"\x05\x00"


def definite(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    if len(content) < 128:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes(2, "big")
    return bytes([tag, 0x82]) + length + content


def indefinite(tag: int, *parts: bytes) -> bytes:
    return bytes([tag, 0x80]) + b"".join(parts) + b"\0\0"


def octets(data: bytes) -> bytes:
    return definite(0x04, data)


def sequence(*parts: bytes) -> bytes:
    return definite(0x30, *parts)


HASH = sequence(SHA256_OID, NULL)
OAEP = sequence(RSAES_OAEP, sequence(definite(0xA0, HASH), definite(0xA1, sequence(MGF1, HASH))))


def aes_cbc(key: bytes, iv: bytes, padded: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return encryptor.update(padded) + encryptor.finalize()


def pad(content: bytes) -> bytes:
    padder = PKCS7(128).padder()
    return padder.update(content) + padder.finalize()


def oaep_encrypt(key: rsa.RSAPrivateKey, cek: bytes, label: bytes | None = None) -> bytes:
    oaep = padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=label)
    return key.public_key().encrypt(cek, oaep)


@dataclass
class Parts:
    """The pieces of a message, each to be replaced by a test."""

    encrypted_key: bytes
    identifier: bytes
    iv: bytes
    content: bytes
    content_type: bytes = ENVELOPED_DATA
    version: bytes = b"\x02\x01\x02"
    recipient_version: bytes = b"\x02\x01\x02"
    key_algorithm: bytes = OAEP
    inner_type: bytes = DATA
    algorithm: bytes = b""
    encrypted_content: bytes = b""
    further_recipients: bytes = b""
    after_encrypted: bytes = b""
    after_enveloped: bytes = b""
    after_wrapper: bytes = b""

    def recipient(self) -> bytes:
        return sequence(
            self.recipient_version, self.identifier, self.key_algorithm, octets(self.encrypted_key)
        )

    def message(self) -> bytes:
        algorithm = self.algorithm or sequence(AES_256_CBC, octets(self.iv))
        content = self.encrypted_content or indefinite(0xA0, octets(self.content))
        encrypted = indefinite(0x30, self.inner_type, algorithm, content)
        recipients = definite(0x31, self.recipient(), self.further_recipients)
        enveloped = indefinite(0x30, self.version, recipients, encrypted, self.after_encrypted)
        wrapper = indefinite(0xA0, enveloped, self.after_enveloped)
        return indefinite(0x30, self.content_type, wrapper, self.after_wrapper)


def parts(
    plaintext: bytes, key: rsa.RSAPrivateKey, *, cek: bytes | None = None, **changes: bytes
) -> Parts:
    """The pieces of a message with `plaintext` for the holder of `key`, less what is changed."""
    cek = os.urandom(32) if cek is None else cek
    iv = os.urandom(16)
    members = {
        "encrypted_key": oaep_encrypt(key, cek),
        "identifier": definite(0x80, hashlib.sha256(spki(key)).digest()),
        "iv": iv,
        "content": aes_cbc(cek, iv, pad(plaintext)),
    }
    return Parts(**(members | changes))


def enveloped(plaintext: bytes, key: rsa.RSAPrivateKey, **changes: bytes) -> bytes:
    return parts(plaintext, key, **changes).message()

from __future__ import annotations

import hashlib
import re

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.recipient_cms import encrypt_for_recipient
from foobar_enclave.cms import decrypt_enveloped_data
from tests.support.vectors import vector_path

KEY = rsa.generate_private_key(65537, 2048)


# Tag, length and content of the key identifier, encrypted key, IV, and contents of 16 or 48 bytes.
RANDOM = re.compile(
    rb"(\x80\x20).{32}|(\x04\x82\x01\x00).{256}|(\x04\x10).{16}|(\x04\x30).{48}", re.DOTALL
)


def fixed(message: bytes) -> bytes:
    """Return the message without what differs from one to the next."""
    return RANDOM.sub(rb"\1\2\3\4", message)


@pytest.mark.parametrize("name", ["kms_datakey32_edgebit", "kms_decrypt_hello_world_enclaver"])
def test_has_the_very_structure_of_a_genuine_kms_answer(name: str) -> None:
    genuine = vector_path(f"kms_cms/{name}.ber").read_bytes()
    plaintext = vector_path(f"kms_cms/{name}.plaintext.bin").read_bytes()
    ours = encrypt_for_recipient(plaintext, KEY.public_key())
    assert fixed(ours) == fixed(genuine)
    assert len(ours) == len(genuine)


def test_names_the_recipient_by_the_hash_of_its_public_key() -> None:
    spki = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    message = encrypt_for_recipient(b"secret", KEY.public_key())
    assert b"\x80\x20" + hashlib.sha256(spki).digest() in message


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200))
def test_the_enclave_decrypts_it(plaintext: bytes) -> None:
    message = encrypt_for_recipient(plaintext, KEY.public_key())
    assert decrypt_enveloped_data(message, KEY) == plaintext

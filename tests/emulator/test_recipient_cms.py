from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.recipient_cms import encrypt_for_recipient
from foobar_enclave.cms import decrypt_enveloped_data
from tests.support.vectors import vector_path

KEY = rsa.generate_private_key(65537, 2048)


def structure(message: bytes) -> list[tuple[int, str, int, bytes]]:
    """Depth, form, tag octet and fixed content of every element, in the order of the bytes."""
    elements: list[tuple[int, str, int, bytes]] = []
    assert _walk(message, 0, 0, elements) == len(message)
    return elements


def _walk(
    data: bytes, position: int, depth: int, elements: list[tuple[int, str, int, bytes]]
) -> int:
    tag, first = data[position], data[position + 1]
    position += 2
    if first == 0x80:
        elements.append((depth, "indefinite", tag, b""))
        while data[position : position + 2] != b"\0\0":
            position = _walk(data, position, depth + 1, elements)
        return position + 2
    length = first
    if first & 0x80:
        octets = first & 0x7F
        length = int.from_bytes(data[position : position + octets], "big")
        position += octets
    end = position + length
    if tag & 0x20:
        elements.append((depth, f"definite {first & 0x80}", tag, b""))
        while position < end:
            position = _walk(data, position, depth + 1, elements)
        assert position == end
    else:
        variable = tag in (0x04, 0x80)  # key identifier, encrypted key, IV, content
        content = length.to_bytes(2, "big") if variable else data[position:end]
        elements.append((depth, "primitive", tag, content))
    return end


@pytest.mark.parametrize("name", ["kms_datakey32_edgebit", "kms_decrypt_hello_world_enclaver"])
def test_has_the_very_structure_of_a_genuine_kms_answer(name: str) -> None:
    genuine = vector_path(f"kms_cms/{name}.ber").read_bytes()
    plaintext = vector_path(f"kms_cms/{name}.plaintext.bin").read_bytes()
    ours = encrypt_for_recipient(plaintext, KEY.public_key())
    assert structure(ours) == structure(genuine)
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

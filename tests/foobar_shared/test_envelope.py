"""The ciphertext message: compatible with the original's, strict in form."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from foobar_shared.envelope import (
    MAX_CIPHERTEXT,
    MAX_PLAINTEXT,
    Message,
    decrypt,
    encode_message,
    encrypt,
    load_p256_public_key,
    parse_message,
)
from foobar_shared.errors import EnvelopeError

KEY = ec.generate_private_key(ec.SECP256R1())


def der(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


PUBLIC = der(KEY.public_key())


def shared_secret(message: Message) -> bytes:
    return KEY.exchange(ec.ECDH(), load_p256_public_key(message.ephemeral_key))


def as_text(fields: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=").decode()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


FIELDS = {"e": b64(PUBLIC), "n": b64(bytes(12)), "c": b64(bytes(16))}


@given(st.binary())
def test_round_trip(plaintext: bytes) -> None:
    message = parse_message(encrypt(plaintext, PUBLIC))
    assert decrypt(message.nonce, message.ciphertext, shared_secret(message)) == plaintext
    assert parse_message(encode_message(message)) == message


def test_known_answer() -> None:
    # The key is HKDF by RFC 5869's two HMACs, with salt "foobar-service-salt" and empty info; the
    # ciphertext is AES-256-GCM without associated data, as the original writes it.
    secret = bytes(range(32))
    ciphertext = bytes.fromhex("ce3944cbafb373a72de6c8b6e4b66248442978955732a8ec9fea92b3e118")
    assert decrypt(bytes(12), ciphertext, secret) == b"attack at dawn"


def test_each_message_has_a_fresh_key_and_nonce() -> None:
    one, other = (parse_message(encrypt(b"x", PUBLIC)) for _ in range(2))
    assert one.ephemeral_key != other.ephemeral_key
    assert one.nonce != other.nonce


def test_longest_plaintext() -> None:
    message = parse_message(encrypt(bytes(MAX_PLAINTEXT), PUBLIC))
    assert len(message.ciphertext) == MAX_PLAINTEXT + 16
    with pytest.raises(EnvelopeError, match=str(MAX_PLAINTEXT)):
        encrypt(bytes(MAX_PLAINTEXT + 1), PUBLIC)


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.sampled_from(["nonce", "ciphertext", "secret"]))
def test_any_flipped_bit_is_noticed(position: int, part: str) -> None:
    message = parse_message(encrypt(b"attack at dawn", PUBLIC))
    parts = {
        "nonce": message.nonce,
        "ciphertext": message.ciphertext,
        "secret": shared_secret(message),
    }
    data = bytearray(parts[part])
    data[position // 8 % len(data)] ^= 1 << position % 8
    parts[part] = bytes(data)
    with pytest.raises(EnvelopeError, match="does not decrypt"):
        decrypt(parts["nonce"], parts["ciphertext"], parts["secret"])


@pytest.mark.parametrize(
    ("nonce", "ciphertext", "secret"),
    [(11, 16, 32), (13, 16, 32), (0, 16, 32), (12, 15, 32), (12, 0, 32), (12, 16, 31), (12, 16, 0)],
)
def test_wrong_lengths_have_the_one_error(nonce: int, ciphertext: int, secret: int) -> None:
    with pytest.raises(EnvelopeError) as refused:
        decrypt(bytes(nonce), bytes(ciphertext), bytes(secret))
    assert str(refused.value) == "the message does not decrypt"


@given(st.text())
def test_parsing_raises_nothing_else(text: str) -> None:
    with pytest.raises(EnvelopeError):
        parse_message(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "JSON"),
        ("e30=", "base64url"),
        ("e30\n", "base64url"),
        ("+/", "base64url"),
        ("e31", "canonical"),
        ("e30", "e: missing"),
        (as_text([]), "not a JSON object"),
        (as_text(FIELDS | {"e": "AA"}), "e: not valid base64"),
        (as_text(FIELDS | {"n": 1}), "n: not base64 text"),
        (as_text(FIELDS | {"n": b64(bytes(11))}), "n: not 12 bytes"),
        (as_text(FIELDS | {"c": b64(bytes(15))}), "c has 15 bytes"),
        (
            as_text(FIELDS | {"c": b64(bytes(MAX_CIPHERTEXT + 1))}),
            "too long for a request",
        ),
        (as_text(FIELDS | {"e": b64(b"0")}), "not a DER public key"),
        ("A" * 200_000, "too long for a request"),
    ],
)
def test_malformed_messages(text: str, reason: str) -> None:
    with pytest.raises(EnvelopeError, match=reason):
        parse_message(text)


@pytest.mark.threat("14")
def test_only_canonical_p256_keys() -> None:
    point = KEY.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    compressed = b"\x30\x39" + PUBLIC[2:23] + b"\x03\x22\x00" + point
    hybrid = PUBLIC[:-65] + bytes([6 + (PUBLIC[-1] & 1)]) + PUBLIC[-64:]
    for spelling in (compressed, hybrid):  # of the same key
        assert load_der_public_key(spelling) == KEY.public_key()
    other_curve = der(ec.generate_private_key(ec.SECP384R1()).public_key())
    for bad in (compressed, hybrid, other_curve, PUBLIC + b"\0", b"", PUBLIC[:-64] + bytes(64)):
        with pytest.raises(EnvelopeError):
            encrypt(b"x", bad)

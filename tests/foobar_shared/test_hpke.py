"""Message format 2: RFC 9180 to the letter, committing, strict in form, and one error."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from foobar_shared import envelope
from foobar_shared.errors import EnvelopeError
from foobar_shared.hpke import (
    MAX_CIPHERTEXT,
    MAX_MESSAGE,
    MAX_PLAINTEXT,
    SealedMessage,
    encode,
    extract_and_expand,
    key_hint,
    key_schedule,
    open_message,
    parse,
    parse_message,
    seal,
)
from tests.support.two_keys import two_key_ciphertext

SUITE = Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
ARN = "arn:aws:kms:us-east-1:123456789012:key/fc1fca6d-bc81-4e85-8a77-b49e87fe463f"
INFO = b"foobar/message/2\0" + ARN.encode()
KEY = ec.generate_private_key(ec.SECP256R1())


def der(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


PUBLIC = der(KEY.public_key())
POINT = point(KEY.public_key())
OTHER = ec.generate_private_key(ec.SECP256R1()).public_key()
OTHER_CURVE = ec.generate_private_key(ec.SECP384R1()).public_key()


def derive(enc: bytes) -> bytes:
    """What KMS's DeriveSharedSecret returns."""
    return KEY.exchange(
        ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), enc)
    )


def sealed(plaintext: bytes) -> SealedMessage:
    message = parse(seal(plaintext, PUBLIC, ARN))
    assert message is not None
    return message


def opened(message: SealedMessage) -> bytes:
    return open_message(message.enc, message.ciphertext, derive(message.enc), PUBLIC, ARN)


def sealed_without_rules(data: bytes, info: bytes = INFO) -> SealedMessage:
    """Whatever bytes, as a sender who does not keep to format 2 seals them."""
    text = SUITE.encrypt(data, KEY.public_key(), info)
    return SealedMessage(key_hint(PUBLIC), text[:65], text[65:])


def test_published_vector() -> None:
    # RFC 9180 appendix A.3 has AES-128-GCM; this is the same file's case with AES-256-GCM:
    # cryptography_vectors 50.0.2, HPKE/test-vectors.json, mode 0, kem_id 16, kdf_id 1, aead_id 2.
    sender = ec.derive_private_key(
        0x90345E3A1D116C1DD39AE76D95AB858C142223A63E44F8F85318CFA91A84858E, ec.SECP256R1()
    )
    recipient = ec.derive_private_key(
        0x317F915DB7BC629C48FE765587897E01E282D3E8445F79F27F65D031A88082B2, ec.SECP256R1()
    ).public_key()
    enc = bytes.fromhex(
        "04c06b4f6bebc7bb495cb797ab753f911aff80aefb86fd8b6fcc35525f3ab5f03e"
        "0b21bd31a86c6048af3cb2d98e0d3bf01da5cc4c39ff5370d331a4f1f7d5a4e0"
    )
    assert point(sender.public_key()) == enc
    secret = extract_and_expand(sender.exchange(ec.ECDH(), recipient), enc + point(recipient))
    assert secret == bytes.fromhex(
        "48893fecd82f7c3456af6a42d8f56325d21e08c10fa81299986aaff54cde7b49"
    )
    key, nonce = key_schedule(secret, b"Ode on a Grecian Urn")
    assert key == bytes.fromhex("ee16802a936d5f544771131900ee6973d0551de9e852ece2ef34bf0d5f9e1d1d")
    assert nonce == bytes.fromhex("9bc50980832a7b4b58c40161")
    assert AESGCM(key).encrypt(
        nonce, b"Beauty is truth, truth beauty", b"Count-0"
    ) == bytes.fromhex(
        "58c61a45059d0c5704560e9d88b564a8b63f1364b8d1fcb3c4c6ddc1d291742465e902cd216f8908da49f8f96f"
    )


@given(st.binary())
def test_opens_what_the_library_seals(plaintext: bytes) -> None:
    assert opened(sealed_without_rules(bytes(32) + plaintext)) == plaintext


@given(st.binary())
def test_the_library_opens_what_is_sealed(plaintext: bytes) -> None:
    message = sealed(plaintext)
    assert SUITE.decrypt(message.enc + message.ciphertext, KEY, INFO) == bytes(32) + plaintext
    assert opened(message) == plaintext
    assert message.hint == key_hint(PUBLIC)


def test_longest_plaintext_fits_a_request() -> None:
    text = seal(bytes(MAX_PLAINTEXT), PUBLIC, ARN)
    message = parse(text)
    assert message is not None
    assert len(text) <= MAX_MESSAGE
    assert opened(message) == bytes(MAX_PLAINTEXT)
    request = {
        "keyArn": "x" * 2048,
        "publicKey": base64.b64encode(PUBLIC).decode(),
        "messages": [
            {
                "sharedSecret": base64.b64encode(bytes(6144)).decode(),
                "e": base64.b64encode(message.enc).decode(),
                "c": base64.b64encode(message.ciphertext).decode(),
            }
        ],
        "challenge": base64.b64encode(bytes(32)).decode(),
    }
    assert len(json.dumps({"compute": request}, separators=(",", ":"))) < 2**20
    with pytest.raises(EnvelopeError, match=str(MAX_PLAINTEXT)):
        seal(bytes(MAX_PLAINTEXT + 1), PUBLIC, ARN)
    assert MAX_PLAINTEXT >= envelope.MAX_PLAINTEXT


GOOD = sealed(b"attack at dawn")
ARGUMENTS: dict[str, object] = {
    "enc": GOOD.enc,
    "ciphertext": GOOD.ciphertext,
    "dh": derive(GOOD.enc),
    "public_key_der": PUBLIC,
    "key_arn": ARN,
}
NEGATED = GOOD.enc[:33] + (
    2**256 - 2**224 + 2**192 + 2**96 - 1 - int.from_bytes(GOOD.enc[33:], "big")
).to_bytes(32, "big")  # the point with the same x coordinate, and so with the same dh


def test_the_arguments_of_the_table_below_open() -> None:
    assert open_message(**ARGUMENTS) == b"attack at dawn"  # type: ignore[arg-type]
    assert derive(NEGATED) == derive(GOOD.enc)


def unopenable(data: bytes, info: bytes = INFO) -> dict[str, object]:
    message = sealed_without_rules(data, info)
    return {"enc": message.enc, "ciphertext": message.ciphertext, "dh": derive(message.enc)}


@pytest.mark.parametrize(
    "changes",
    [
        {"key_arn": ARN[:-1] + "0"},
        {"key_arn": "\ud800"},
        {"public_key_der": der(OTHER)},
        {"public_key_der": der(OTHER_CURVE)},
        {"public_key_der": PUBLIC + b"\0"},
        {"enc": point(OTHER)},
        {"enc": NEGATED},
        {"enc": GOOD.enc[:-1]},
        {"enc": b""},
        {"dh": bytes(32)},
        {"dh": b""},
        {"ciphertext": GOOD.ciphertext + b"\0"},
        unopenable(bytes(31)),
        unopenable(bytes(31) + b"\1" + b"attack at dawn"),
        unopenable(b"\x80" + bytes(31) + b"attack at dawn"),
        unopenable(bytes(32) + b"attack at dawn", ARN.encode()),
        unopenable(bytes(32) + b"attack at dawn", b"foobar/message/3\0" + ARN.encode()),
    ],
)
def test_one_error_for_every_cause(changes: dict[str, object]) -> None:
    with pytest.raises(EnvelopeError) as refused:
        open_message(**(ARGUMENTS | changes))  # type: ignore[arg-type]
    assert str(refused.value) == "the message does not decrypt"


@pytest.mark.parametrize(
    ("enc", "dh", "opens"),
    [
        (GOOD.enc, bytes(32), True),
        (b"\x04" + bytes(64), bytes(32), False),  # not on the curve
        (GOOD.enc, bytes(31), False),
        (GOOD.enc, bytes(33), False),
    ],
)
def test_malformed_arguments_never_open(enc: bytes, dh: bytes, opens: bool) -> None:
    # A parent who makes up the Diffie-Hellman value can make a ciphertext that fits it.
    key, nonce = key_schedule(extract_and_expand(dh, enc + POINT), INFO)
    ciphertext = AESGCM(key).encrypt(nonce, bytes(32) + b"x", None)
    if opens:
        assert open_message(enc, ciphertext, dh, PUBLIC, ARN) == b"x"
    else:
        with pytest.raises(EnvelopeError):
            open_message(enc, ciphertext, dh, PUBLIC, ARN)


def test_a_truncated_ciphertext_is_refused() -> None:
    for length in (0, 15, 16, 47, 48, len(GOOD.ciphertext) - 1):
        with pytest.raises(EnvelopeError, match="does not decrypt"):
            open_message(GOOD.enc, GOOD.ciphertext[:length], derive(GOOD.enc), PUBLIC, ARN)


@given(st.integers(min_value=0), st.sampled_from(["enc", "ciphertext", "dh", "public_key_der"]))
def test_any_flipped_bit_is_noticed(position: int, name: str) -> None:
    value = ARGUMENTS[name]
    assert isinstance(value, bytes)
    data = bytearray(value)
    data[position // 8 % len(data)] ^= 1 << position % 8
    with pytest.raises(EnvelopeError, match="does not decrypt"):
        open_message(**(ARGUMENTS | {name: bytes(data)}))  # type: ignore[arg-type]


# An author and a parent who conspire: the author crafts one ciphertext for two secrets, and the
# parent, who says what the secret is, shows whichever plaintext suits them.
SECRETS = (b"1" * 32, b"2" * 32)


def test_two_secrets_open_one_message_of_format_1() -> None:
    nonce = bytes(12)
    keys = [
        HKDF(SHA256(), length=32, salt=b"foobar-service-salt", info=b"").derive(secret)
        for secret in SECRETS
    ]
    ciphertext = two_key_ciphertext((keys[0], nonce), (keys[1], nonce), bytes(64))
    plaintexts = {envelope.decrypt(nonce, ciphertext, secret) for secret in SECRETS}
    assert len(plaintexts) == 2


def test_no_second_secret_opens_a_message_of_format_2() -> None:
    pairs = [key_schedule(extract_and_expand(dh, GOOD.enc + POINT), INFO) for dh in SECRETS]
    # The key stream of the first key, so that this one sees the 32 zeros.
    key, nonce = pairs[0]
    counter = modes.CTR(nonce + b"\0\0\0\2")
    stream = Cipher(algorithms.AES(key), counter).encryptor().update(bytes(64))
    ciphertext = two_key_ciphertext(pairs[0], pairs[1], stream)
    for key, nonce in pairs:
        AESGCM(key).decrypt(nonce, ciphertext, None)  # the tag alone refuses neither
    plaintext = open_message(GOOD.enc, ciphertext, SECRETS[0], PUBLIC, ARN)
    assert plaintext.startswith(bytes(32))
    with pytest.raises(EnvelopeError):
        open_message(GOOD.enc, ciphertext, SECRETS[1], PUBLIC, ARN)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def as_text(fields: object) -> str:
    text = json.dumps(fields, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


FIELDS = {"v": 2, "k": b64(bytes(8)), "e": b64(POINT), "c": b64(bytes(48))}


def test_text_form() -> None:
    assert encode(SealedMessage(bytes(8), POINT, bytes(48))) == as_text(FIELDS)
    assert parse(as_text(FIELDS)) == SealedMessage(bytes(8), POINT, bytes(48))
    assert key_hint(PUBLIC) != key_hint(der(OTHER))


OF_FORMAT_1 = envelope.Message(PUBLIC, bytes(12), bytes(16))


@given(
    st.sampled_from([GOOD, OF_FORMAT_1]),
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from(["\n", "\r\n", " "]))),
)
def test_spaces_and_line_breaks_are_ignored(
    message: SealedMessage | envelope.Message, breaks: list[tuple[int, str]]
) -> None:
    if isinstance(message, SealedMessage):
        text = encode(message)
    else:
        text = envelope.encode_message(message)
    for position, space in breaks:
        text = text[:position] + space + text[position:]
    assert parse_message(text) == message


def test_formats_are_told_apart() -> None:
    assert parse(envelope.encode_message(OF_FORMAT_1)) is None
    assert parse_message(envelope.encode_message(OF_FORMAT_1)) == OF_FORMAT_1
    assert parse_message(encode(GOOD)) == GOOD


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "JSON"),
        ("é", "base64url"),
        ("e30", "e: missing"),  # by the rules of format 1
        (as_text([]), "not a JSON object"),
        (as_text(FIELDS)[:-4], "not valid JSON"),
        (as_text(FIELDS) + "=", "one spelling"),
        (as_text(FIELDS)[:-1] + "\t" + as_text(FIELDS)[-1], "one spelling"),
        (as_text(FIELDS) + ".", "one spelling"),
        (as_text(dict(reversed(FIELDS.items()))), "one spelling"),
        (as_text(FIELDS | {"x": 1}), "one spelling"),
        (as_text(FIELDS | {"v": 2.0}), "one spelling"),
        (as_text(FIELDS | {"v": 3}), "format"),
        (as_text(FIELDS | {"v": None}), "format"),
        (as_text(FIELDS | {"k": b64(bytes(7))}), "k: not 8 bytes"),
        (as_text(FIELDS | {"e": b64(b"\x04" + bytes(64))}), "not a point on P-256"),
        (as_text(FIELDS | {"e": b64(b"\x02" + POINT[1:33])}), "e: not 65 bytes"),
        (as_text(FIELDS | {"c": b64(bytes(47))}), "c has 47 bytes"),
        (as_text(FIELDS | {"c": b64(bytes(MAX_CIPHERTEXT + 1))}), "c has"),
        ("A" * (MAX_MESSAGE + 1), "too long for a request"),
    ],
)
def test_malformed_messages(text: str, reason: str) -> None:
    with pytest.raises(EnvelopeError, match=reason):
        parse_message(text)


@given(
    st.text()
    | st.text("eyJ2IjoyLCJrIQ", max_size=40)
    | st.integers(0, len(encode(GOOD)) - 1).map(lambda length: encode(GOOD)[:length])
)
def test_parsing_raises_nothing_else(text: str) -> None:
    with pytest.raises(EnvelopeError):
        parse_message(text)


def test_seals_to_canonical_p256_keys_only() -> None:
    with pytest.raises(EnvelopeError, match="not a P-256 public key"):
        seal(b"x", der(OTHER_CURVE), ARN)

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import load_der_private_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foobar_enclave import cms
from foobar_enclave.cms import DecryptionError, decrypt_enveloped_data
from tests.foobar_enclave import ber
from tests.foobar_enclave.ber import definite, enveloped, indefinite, octets, parts, sequence
from tests.foobar_enclave.fakes import spki
from tests.support.vectors import vector_path

SECRET = bytes(range(32))
TEXT = "the message does not decrypt"


def load_key(path: Path) -> rsa.RSAPrivateKey:
    key = load_der_private_key(path.read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def refuse(message: bytes, key: rsa.RSAPrivateKey, *, size: int | None = None) -> None:
    """The one exception, with one text and nothing attached that tells why."""
    with pytest.raises(DecryptionError) as raised:
        decrypt_enveloped_data(message, key, size=size)
    assert str(raised.value) == TEXT
    assert raised.value.args == (TEXT,)
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


@pytest.mark.parametrize("name", ["kms_datakey32_edgebit", "kms_decrypt_hello_world_enclaver"])
def test_genuine_answers_of_kms_open(name: str) -> None:
    key = load_key(vector_path(f"kms_cms/{name}.key.der"))
    message = vector_path(f"kms_cms/{name}.ber").read_bytes()
    plaintext = vector_path(f"kms_cms/{name}.plaintext.bin").read_bytes()
    assert decrypt_enveloped_data(message, key) == plaintext
    if len(plaintext) == 32:
        assert decrypt_enveloped_data(message, key, size=32) == plaintext
    else:
        refuse(message, key, size=32)


@pytest.mark.parametrize("name", ["sdkc_indef_octets_nokey", "sdkc_primitive_ctx0_nokey"])
def test_genuine_answers_without_a_published_key_open_once_they_are_for_ours(
    name: str, rsa_key: rsa.RSAPrivateKey
) -> None:
    manifest = json.loads(vector_path("kms_cms/manifest.json").read_text())
    (entry,) = (entry for entry in manifest if name in entry["file"])
    message = vector_path(f"kms_cms/{name}.ber").read_bytes()
    encrypted = bytes.fromhex(entry["encrypted_content"])
    plaintext = bytes(len(encrypted) - 16)
    for theirs, ours in (
        (entry["recipient_ski"], hashlib.sha256(spki(rsa_key)).digest()),
        (entry["encrypted_key"], ber.oaep_encrypt(rsa_key, CEK)),
        (encrypted.hex(), ber.aes_cbc(CEK, bytes.fromhex(entry["iv"]), ber.pad(plaintext))),
    ):
        assert bytes.fromhex(theirs) in message
        message = message.replace(bytes.fromhex(theirs), ours)
    assert decrypt_enveloped_data(message, rsa_key) == plaintext


def test_variants_of_genuine_answers_are_taken_or_refused_as_they_should() -> None:
    manifest = json.loads(vector_path("derived/manifest.json").read_text())
    entries = [entry for entry in manifest if "/cms_" in entry["file"] and "key" in entry]
    assert len(entries) >= 6
    for entry in entries:
        folder = vector_path("derived/manifest.json").parent
        message = (folder / Path(entry["file"]).name).read_bytes()
        key = load_key(folder / entry["key"])
        if entry["expected"] == "ACCEPT":
            assert decrypt_enveloped_data(message, key).hex() == entry["plaintext_hex"]
        else:
            refuse(message, key)


def test_wycheproof_oaep_vectors_as_content_keys() -> None:
    """Each vector's ciphertext is the encrypted key; only 32 bytes without a label are one."""
    path = "cose/wycheproof__rsa_oaep_2048_sha256_mgf1sha256_test.json"
    (group,) = json.loads(vector_path(path).read_text())["testGroups"]
    key = load_der_private_key(bytes.fromhex(group["privateKeyPkcs8"]), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    opened = 0
    for test in group["tests"]:
        cek = bytes.fromhex(test["msg"]).ljust(32, b"\0")[:32]
        message = enveloped(SECRET, key, cek=cek, encrypted_key=bytes.fromhex(test["ct"]))
        if test["result"] == "valid" and len(test["msg"]) == 64 and not test["label"]:
            assert decrypt_enveloped_data(message, key) == SECRET
            opened += 1
        else:
            refuse(message, key)
    assert opened == 1


CONTENT_FORMS: dict[str, Callable[[bytes], bytes]] = {
    "indefinite": lambda c: indefinite(0xA0, octets(c)),
    "pieces": lambda c: indefinite(0xA0, octets(c[:7]), octets(b""), octets(c[7:])),
    "primitive": lambda c: definite(0x80, c),
    "definite": lambda c: definite(0xA0, octets(c)),
    "definite-pieces": lambda c: definite(0xA0, octets(c[:16]), octets(c[16:])),
    "long-form-length": lambda c: b"\xa0\x80\x04\x82\x00" + bytes([len(c)]) + c + b"\0\0",
}


@pytest.mark.parametrize("form", CONTENT_FORMS.values(), ids=CONTENT_FORMS)
def test_content_may_be_whole_or_in_pieces_in_every_form_of_ber(
    form: Callable[[bytes], bytes], rsa_key: rsa.RSAPrivateKey
) -> None:
    made = parts(SECRET, rsa_key)
    made.encrypted_content = form(made.content)
    assert decrypt_enveloped_data(made.message(), rsa_key) == SECRET


def test_all_lengths_may_be_definite(
    rsa_key: rsa.RSAPrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ber, "indefinite", definite)
    message = enveloped(SECRET, rsa_key)
    assert b"\x30\x80" not in message[:4]
    assert decrypt_enveloped_data(message, rsa_key) == SECRET
    refuse(message + b"\0", rsa_key)


CEK = bytes(range(32, 64))
CONTENT = ber.aes_cbc(CEK, bytes(16), ber.pad(SECRET))
OTHER_RECIPIENT = definite(0x80, bytes(32))
HASH = ber.HASH
SHA1 = sequence(ber.SHA1_OID, ber.NULL)
LABEL = definite(0xA2, sequence(ber.P_SPECIFIED, octets(b"label")))


def oaep(digest: bytes = HASH, mask: bytes = HASH, *more: bytes) -> dict[str, bytes]:
    mask_generation = definite(0xA1, sequence(ber.MGF1, mask))
    parameters = sequence(definite(0xA0, digest), mask_generation, *more)
    return {"key_algorithm": sequence(ber.RSAES_OAEP, parameters)}


STRUCTURES: dict[str, dict[str, bytes]] = {
    "another content type": {"content_type": ber.DATA},
    "version 0": {"version": b"\x02\x01\x00"},
    "recipient version 0": {"recipient_version": b"\x02\x01\x00"},
    "another recipient": {"identifier": OTHER_RECIPIENT},
    "two recipients": {"further_recipients": sequence(b"\x02\x01\x02")},
    "OAEP with SHA-1 defaults": {"key_algorithm": sequence(ber.RSAES_OAEP, sequence())},
    "OAEP without parameters": {"key_algorithm": sequence(ber.RSAES_OAEP)},
    "OAEP with MGF1 of SHA-1": oaep(mask=SHA1),
    "OAEP of SHA-1": oaep(SHA1),
    "OAEP with a label": oaep(HASH, HASH, LABEL),
    "PKCS #1 v1.5": {"key_algorithm": sequence(bytes.fromhex("06092a864886f70d010101"), ber.NULL)},
    "junk in the OAEP parameters": oaep(HASH + ber.NULL),
    "another inner type": {"inner_type": ber.ENVELOPED_DATA},
    "AES-128": {"algorithm": sequence(ber.AES_128_CBC, octets(bytes(16)))},
    "no IV": {"algorithm": sequence(ber.AES_256_CBC)},
    "a short IV": {"algorithm": sequence(ber.AES_256_CBC, octets(bytes(15)))},
    "a long IV": {"algorithm": sequence(ber.AES_256_CBC, octets(bytes(17)))},
    "unprotected attributes": {"after_encrypted": definite(0xA1)},
    "bytes after EnvelopedData": {"after_enveloped": ber.NULL},
    "bytes after the wrapper": {"after_wrapper": ber.NULL},
    "no content": {"encrypted_content": indefinite(0xA0)},
    "empty content": {"encrypted_content": definite(0x80)},
    "content of no whole blocks": {"encrypted_content": definite(0x80, bytes(47))},
    "content that is text": {"encrypted_content": indefinite(0xA0, definite(0x0C, CONTENT))},
    "content tagged twice": {"encrypted_content": indefinite(0xA0, definite(0x80, CONTENT))},
    "nested content": {
        "encrypted_content": indefinite(0xA0, definite(0x24, octets(CONTENT))),
    },
    "nested content of indefinite length": {
        "encrypted_content": indefinite(0xA0, indefinite(0x24, octets(CONTENT))),
    },
    "content without a tag": {"encrypted_content": octets(CONTENT)},
    "content under another tag": {"encrypted_content": definite(0x81, CONTENT)},
    "an IV that is not DER": {"algorithm": sequence(ber.AES_256_CBC, b"\x04\x81\x10" + bytes(16))},
    "a recipient by issuer and serial number": {
        "identifier": sequence(sequence(definite(0x31)), b"\x02\x01\x01")
    },
    "no encrypted key": {"encrypted_key": b""},
    "a short encrypted key": {"encrypted_key": bytes(255)},
    "a long encrypted key": {"encrypted_key": bytes(257)},
    "an encrypted key that is no ciphertext": {"encrypted_key": b"\xff" * 256},
}


@pytest.mark.parametrize("changes", STRUCTURES.values(), ids=STRUCTURES)
def test_what_kms_never_sends_is_refused(
    changes: dict[str, bytes], rsa_key: rsa.RSAPrivateKey
) -> None:
    made = parts(SECRET, rsa_key, cek=CEK, iv=bytes(16), content=CONTENT)
    assert decrypt_enveloped_data(made.message(), rsa_key) == SECRET
    refuse(dataclasses.replace(made, **changes).message(), rsa_key)


WRONG_TAGS: dict[str, tuple[bytes, bytes]] = {
    "ContentInfo": (b"\x30\x80\x06", b"\x31\x80\x06"),
    "the wrapper": (b"\xa0\x80\x30", b"\xa1\x80\x30"),
    "EnvelopedData": (b"\x30\x80\x02", b"\x31\x80\x02"),
    "the recipients": (b"\x31\x82", b"\x30\x82"),
    "EncryptedContentInfo": (b"\x30\x80" + ber.DATA, b"\x31\x80" + ber.DATA),
    "the content": (b"\xa0\x80\x04", b"\xa1\x80\x04"),
}  # fmt: skip


@pytest.mark.parametrize(("right", "wrong"), WRONG_TAGS.values(), ids=WRONG_TAGS)
def test_each_element_has_its_tag(right: bytes, wrong: bytes, rsa_key: rsa.RSAPrivateKey) -> None:
    message = enveloped(SECRET, rsa_key)
    assert right in message
    refuse(message.replace(right, wrong, 1), rsa_key)


def test_another_key_is_refused(rsa_key: rsa.RSAPrivateKey) -> None:
    other = rsa.generate_private_key(65537, 2048)
    message = enveloped(SECRET, other)
    assert decrypt_enveloped_data(message, other) == SECRET
    refuse(message, rsa_key)


@pytest.mark.parametrize("length", [0, 16, 24, 31, 33, 64])
def test_a_content_key_has_32_bytes(length: int, rsa_key: rsa.RSAPrivateKey) -> None:
    made = parts(SECRET, rsa_key, cek=bytes(32))
    made.encrypted_key = ber.oaep_encrypt(rsa_key, bytes(length))
    refuse(made.message(), rsa_key)


@pytest.mark.parametrize("end", [b"\0", b"\x11", b"\x02\x03\x03", b"\1\2", b"\xff"])
def test_bad_padding_is_refused(end: bytes, rsa_key: rsa.RSAPrivateKey) -> None:
    cek, iv = bytes(32), bytes(16)
    content = ber.aes_cbc(cek, iv, end.rjust(16, b"\0"))
    refuse(enveloped(SECRET, rsa_key, cek=cek, iv=iv, content=content), rsa_key)


@pytest.mark.parametrize("size", [1, 31])
def test_a_size_whose_padding_could_be_guessed_is_a_defect(
    size: int, rsa_key: rsa.RSAPrivateKey
) -> None:
    with pytest.raises(ValueError, match="size is not a multiple of 16"):
        decrypt_enveloped_data(enveloped(bytes(size), rsa_key), rsa_key, size=size)


@pytest.mark.parametrize("length", [0, 16, 31, 33, 47, 48])
def test_content_of_another_size_is_refused(length: int, rsa_key: rsa.RSAPrivateKey) -> None:
    refuse(enveloped(bytes(length), rsa_key), rsa_key, size=32)


def test_each_byte_of_a_known_sizes_padding_is_compared(rsa_key: rsa.RSAPrivateKey) -> None:
    made = parts(SECRET, rsa_key, cek=CEK, iv=bytes(16))
    for position in range(16):
        padding = bytearray(b"\x10" * 16)
        padding[position] ^= 1
        made.content = ber.aes_cbc(CEK, bytes(16), SECRET + bytes(padding))
        refuse(made.message(), rsa_key, size=32)


@pytest.mark.threat("8")
def test_weakness_8_how_far_a_padding_is_valid_makes_no_way_of_its_own(
    rsa_key: rsa.RSAPrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What tells valid from invalid padding, and so can be timed, is never asked."""
    monkeypatch.setattr(cms, "PKCS7", lambda _: pytest.fail("unpadded"))
    iv = bytes(16)
    for count in range(17):
        padded = SECRET + (bytes([count]) * count).rjust(16, b"x")
        content = ber.aes_cbc(CEK, iv, padded)
        message = enveloped(SECRET, rsa_key, cek=CEK, iv=iv, content=content)
        if count == 16:
            assert decrypt_enveloped_data(message, rsa_key, size=32) == SECRET
        else:
            refuse(message, rsa_key, size=32)


@pytest.mark.parametrize("extra", [b"\0", b"\0\0", b"\x05\x00", b"x" * 100])
def test_nothing_may_follow(extra: bytes, rsa_key: rsa.RSAPrivateKey) -> None:
    refuse(enveloped(SECRET, rsa_key) + extra, rsa_key)


def test_the_size_is_bounded(rsa_key: rsa.RSAPrivateKey) -> None:
    overhead = len(enveloped(bytes(5000), rsa_key)) - 5008
    largest = (6144 - overhead) // 16 * 16 - 1
    made = parts(bytes(largest), rsa_key)
    assert decrypt_enveloped_data(made.message(), rsa_key) == bytes(largest)

    pieces = [octets(b"")] * ((6146 - len(made.message())) // 2)
    made.encrypted_content = indefinite(0xA0, octets(made.content), *pieces)
    assert 6144 < len(made.message()) < 6150
    refuse(made.message(), rsa_key)
    refuse(b"", rsa_key)


@pytest.mark.parametrize("filler", [b"\x30\x80", b"\xa0\x80", b"\x24\x80", b"\x30\x82\x17\xf0"])
def test_deep_nesting_is_refused_soon(filler: bytes, rsa_key: rsa.RSAPrivateKey) -> None:
    refuse((filler * 3072)[:6144], rsa_key)


@pytest.mark.threat("8")
def test_weakness_8_key_and_padding_failures_take_the_same_way(
    rsa_key: rsa.RSAPrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the private key says, AES decryption and the padding check are done."""
    checked: list[int] = []

    def observed(bits: int) -> PKCS7:
        checked.append(bits)
        return PKCS7(bits)

    monkeypatch.setattr(cms, "PKCS7", observed)
    made = parts(SECRET, rsa_key, cek=bytes(32))
    bad_key = enveloped(SECRET, rsa_key, encrypted_key=b"\x01" * 256)
    made.encrypted_key = ber.oaep_encrypt(rsa_key, bytes(16))
    content = ber.aes_cbc(CEK, bytes(16), bytes(48))
    bad_padding = enveloped(SECRET, rsa_key, cek=CEK, iv=bytes(16), content=content)
    for message in (bad_key, made.message(), bad_padding):
        refuse(message, rsa_key)
    assert checked == [128, 128, 128]


def test_a_failed_key_is_refused_even_where_the_substitute_gives_valid_padding(
    rsa_key: rsa.RSAPrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    substitute = b"s" * 32
    monkeypatch.setattr("foobar_enclave.cms.os.urandom", lambda count: substitute[:count])
    made = parts(SECRET, rsa_key, cek=substitute)
    assert decrypt_enveloped_data(made.message(), rsa_key) == SECRET
    made.encrypted_key = b"\x01" * 256
    refuse(made.message(), rsa_key)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(data=st.data())
def test_a_mutated_message_opens_or_is_refused(data: st.DataObject) -> None:
    """Without integrity protection a changed ciphertext may open; nothing else may happen."""
    message = bytearray(MESSAGE)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(message) - 1))
        how = data.draw(st.sampled_from(["flip", "cut", "insert", "double"]))
        if how == "flip":
            message[position] ^= data.draw(st.integers(1, 255))
        elif how == "cut":
            del message[position : position + data.draw(st.integers(1, 40))]
        elif how == "insert":
            message[position:position] = data.draw(st.binary(min_size=1, max_size=8))
        else:
            message[position:position] = message[position : position + 40]
        if not message:
            break
    if bytes(message) == MESSAGE:
        return
    with contextlib.suppress(DecryptionError):
        assert len(decrypt_enveloped_data(bytes(message), KEY)) < len(message)


def test_a_premature_end_is_refused_wherever_it_is() -> None:
    for position in range(len(MESSAGE) + 1):
        refuse(MESSAGE[:position] + b"\0\0" + MESSAGE[position:], KEY)


def test_every_end_is_demanded() -> None:
    for ends in range(1, 6):
        refuse(MESSAGE[: -2 * ends], KEY)
    for position in range(1, 11):
        refuse(MESSAGE[:-position] + b"\1" + MESSAGE[len(MESSAGE) - position + 1 :], KEY)


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused(message: bytes) -> None:
    refuse(message, KEY)


@settings(max_examples=30)
@given(content=st.binary(max_size=2000), cuts=st.lists(st.integers(0, 2016), max_size=5))
def test_any_content_in_any_pieces_opens(content: bytes, cuts: list[int]) -> None:
    made = parts(content, KEY)
    bounds = [0, *sorted(min(cut, len(made.content)) for cut in cuts), len(made.content)]
    pieces = [octets(made.content[start:end]) for start, end in itertools.pairwise(bounds)]
    made.encrypted_content = indefinite(0xA0, *pieces)
    assert decrypt_enveloped_data(made.message(), KEY) == content


KEY = rsa.generate_private_key(65537, 2048)
MESSAGE = enveloped(SECRET, KEY)


@pytest.mark.parametrize("outer", [ber.NULL, b""], ids=["null", "absent"])
@pytest.mark.parametrize("inner", [ber.NULL, b""], ids=["null", "absent"])
def test_hash_parameters_may_be_null_or_absent(
    outer: bytes, inner: bytes, rsa_key: rsa.RSAPrivateKey
) -> None:
    """RFC 4055 section 2.1: both forms must be accepted."""
    made = parts(SECRET, rsa_key)
    sha256 = HASH[2:].removesuffix(ber.NULL)
    parameters = oaep(sequence(sha256, outer), sequence(sha256, inner))
    made.key_algorithm = parameters["key_algorithm"]
    assert decrypt_enveloped_data(made.message(), rsa_key) == SECRET


def test_the_recipient_is_der(rsa_key: rsa.RSAPrivateKey) -> None:
    made = parts(SECRET, rsa_key)
    long_form = b"\x80\x81\x20" + made.identifier[2:]
    refuse(dataclasses.replace(made, identifier=long_form).message(), rsa_key)

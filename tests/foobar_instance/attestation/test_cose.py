"""The COSE layer, beside the standard's bytes, the working groups' examples, and pycose."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from io import BytesIO

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from pycose.algorithms import Es384
from pycose.headers import Algorithm
from pycose.keys.curves import P384
from pycose.keys.ec2 import EC2Key
from pycose.messages.sign1message import Sign1Message

from emulator.documents import ES384_PROTECTED, sign_document
from foobar_instance.attestation import MalformedAttestation
from foobar_instance.attestation import _cose as cose
from foobar_instance.attestation._cose import decode_cbor, decode_message
from foobar_instance.attestation._rules import CBOR, MAX_PAYLOAD
from foobar_instance.attestation.es384 import CryptographyKey
from tests.foobar_instance.attestation.forge import document
from tests.vectors import Vector, vectors


def coordinate(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=="), "big")


def load(entry: Vector) -> dict[str, dict[str, dict[str, dict[str, str]]]]:
    value = json.loads(entry.read())
    assert isinstance(value, dict)
    return value


def examples(prefix: str) -> list[Vector]:
    found = [entry for entry in vectors("cose") if entry.path.name.startswith(prefix)]
    assert found
    return found


def example(entry: Vector) -> bytes:
    return bytes.fromhex(str(load(entry)["output"]["cbor"]))


def without_key_id(raw: bytes) -> bytes:
    """The message with an empty unprotected header, which the signature does not cover."""
    protected, _, payload, signature = cbor2.loads(raw).value
    return cbor2.dumps([protected, {}, payload, signature])


def p384_key(entry: Vector) -> ec.EllipticCurvePublicKey:
    key = load(entry)["input"]["sign0"]["key"]
    x, y = coordinate(key["x"]), coordinate(key["y"])
    return ec.EllipticCurvePublicNumbers(x, y, ec.SECP384R1()).public_key()


def test_the_es384_example_of_the_cose_working_group_verifies() -> None:
    (entry,) = examples("Examples__ecdsa-examples__ecdsa-sig-02")
    message = decode_message(without_key_id(example(entry)))
    expected = bytes.fromhex(str(load(entry)["intermediates"]["ToBeSign_hex"]))
    assert message.to_be_signed() == expected
    assert message.payload == b"This is the content."
    key = CryptographyKey(p384_key(entry))
    assert key.verify(expected, message.signature)
    assert not key.verify(expected + b"\0", message.signature)
    assert not key.verify(expected, message.signature[::-1])


def test_an_unprotected_header_is_refused_whatever_is_in_it() -> None:
    (entry,) = examples("Examples__ecdsa-examples__ecdsa-sig-02")
    with pytest.raises(MalformedAttestation) as caught:
        decode_message(example(entry))
    assert caught.value.rule == "cose-unprotected"


def test_no_example_with_another_algorithm_is_taken() -> None:
    entries = [*examples("Examples__sign1"), *examples("Examples__ecdsa-examples__ecdsa-sig-01")]
    assert len(entries) == 10
    for entry in entries:
        with pytest.raises(MalformedAttestation) as caught:
            decode_message(example(entry))
        wrong_tag = entry.path.stem.endswith("sign-fail-01")
        assert caught.value.rule == ("cose-tag" if wrong_tag else "cose-algorithm"), entry.path


def test_the_malformed_headers_of_go_cose_are_refused() -> None:
    entries = examples("go-cose")
    assert len(entries) == 2
    for entry in entries:
        shown = load(entry)["sign1::verify"]["taggedCOSESign1"]["cborHex"]
        with pytest.raises(MalformedAttestation) as caught:
            decode_message(bytes.fromhex(str(shown)))
        assert caught.value.rule == "cose-algorithm", entry.path


@given(payload=st.binary(min_size=1, max_size=300) | st.just(b"p" * MAX_PAYLOAD))
def test_what_is_signed_is_rfc_9052_s_structure(payload: bytes) -> None:
    message = decode_message(cbor2.dumps([ES384_PROTECTED, {}, payload, bytes(96)]))
    size = len(payload)
    head = (
        bytes([0x40 | size])
        if size < 24
        else b"\x58" + bytes([size])
        if size < 256
        else b"\x59" + size.to_bytes(2, "big")
    )
    # array of 4, "Signature1", the protected header, no external data, the payload as received
    structure = b"\x84\x6aSignature1\x44\xa1\x01\x38\x22\x40" + head + payload
    assert message.to_be_signed() == structure


def test_a_tagged_message_is_the_same_as_an_untagged_one() -> None:
    given = document()
    assert decode_message(b"\xd2" + given) == decode_message(given)
    long_form = b"\xd8\x12" + given  # the same tag, not in its shortest encoding
    assert decode_message(long_form) == decode_message(given)


# Another implementation of COSE, which nothing but these tests uses.


def pycose_message(raw: bytes) -> Sign1Message:
    """The message as pycose holds it: its decoder takes neither cbor2 6's tuples nor no tag."""
    return Sign1Message.from_cose_obj(list(cbor2.loads(raw)), True)


def pycose_key(numbers: ec.EllipticCurvePublicNumbers, d: bytes = b"") -> EC2Key:
    x, y = numbers.x.to_bytes(48, "big"), numbers.y.to_bytes(48, "big")
    return EC2Key(crv=P384, x=x, y=y, d=d)


def test_pycose_signs_what_verifies_here() -> None:
    private = ec.generate_private_key(ec.SECP384R1())
    numbers = private.private_numbers()
    theirs = Sign1Message(phdr={Algorithm: Es384}, payload=b"content")
    theirs.key = pycose_key(numbers.public_numbers, numbers.private_value.to_bytes(48, "big"))
    message = decode_message(theirs.encode(tag=False))
    assert message.payload == b"content"
    key = CryptographyKey(private.public_key())
    assert key.verify(message.to_be_signed(), message.signature)


def test_pycose_verifies_what_the_stand_in_signs() -> None:
    private = ec.generate_private_key(ec.SECP384R1())
    raw = sign_document(b"content", private)
    theirs = pycose_message(raw)
    theirs.key = pycose_key(private.public_key().public_numbers())
    assert theirs.verify_signature()
    altered = pycose_message(raw[:-1] + bytes([raw[-1] ^ 1]))
    altered.key = theirs.key
    assert not altered.verify_signature()


@given(payload=st.binary(min_size=1, max_size=300))
def test_pycose_signs_the_same_bytes(payload: bytes) -> None:
    raw = cbor2.dumps([ES384_PROTECTED, {}, payload, bytes(96)])
    assert pycose_message(raw)._create_sig_structure() == decode_message(raw).to_be_signed()


TAGS = [0, 1, 2, 3, 4, 5, 24, 25, 28, 29, 30, 35, 36, 37, 256, 258, 260, 261, 1004, 43000, 55799]


@pytest.mark.parametrize("tag", TAGS)
def test_no_tag_is_interpreted(tag: int) -> None:
    item = cbor2.CBORTag(tag, [1, 2])
    assert decode_cbor(cbor2.dumps(item), CBOR) == item


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"\x9b" + b"\xff" * 8,  # an array of 2**64 - 1
        b"\xbb" + b"\xff" * 8,
        b"\x5b" + b"\xff" * 8,
        b"\x7b" + b"\xff" * 8,
        b"\x9b\x00\x00\x00\x00\xff\xff\xff\xff",
        b"\x81" * 16_000,
        b"\x9f" * 16_000,
        b"\xd2" * 16_000,
        b"\xa1\x00" * 8_000,
        b"\xbf" * 16_000,
        b"\xff",
        b"\x1c",
        b"\x61\xff",
        b"\xa2\x00\x00\x00\x00",
        b"\xf8\x00",
    ],
    ids=lambda raw: raw[:4].hex(),
)
def test_hostile_cbor_is_refused_at_once(hostile: bytes) -> None:
    with pytest.raises(MalformedAttestation):
        decode_cbor(hostile, CBOR)
    with pytest.raises(MalformedAttestation):
        decode_message(hostile)


def test_too_long_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Callable[[], object]:
        raise AssertionError("decoded")

    monkeypatch.setattr(cose, "decode_cbor", refuse)
    with pytest.raises(MalformedAttestation) as caught:
        decode_message(b"\x84" + bytes(20_000))
    assert caught.value.rule == "size"


@given(st.recursive(st.integers() | st.text() | st.binary(), st.lists, max_leaves=20))
def test_what_follows_an_item_is_refused(item: object) -> None:
    raw = cbor2.dumps(item)
    with pytest.raises(MalformedAttestation):
        decode_cbor(raw + b"\0", CBOR)


def test_cbor2_reads_no_further_than_the_item() -> None:
    """Else bytes that follow could not be seen."""
    stream = BytesIO(b"\x01\x02")
    assert cbor2.CBORDecoder(stream).decode() == 1
    assert stream.read() == b"\x02"

"""The COSE layer, beside the standard's bytes and the working groups' examples."""

from __future__ import annotations

import base64
import json
import subprocess
import sys

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from emulator.documents import ES384_PROTECTED, sign_document
from foobar_instance.attestation import MalformedAttestation
from foobar_instance.attestation._cose import Es384Message, decode_cbor, decode_message
from foobar_instance.attestation._rules import CBOR
from tests.support.vectors import Vector, vectors

PRIVATE = ec.derive_private_key(7, ec.SECP384R1())
PUBLIC = PRIVATE.public_key()


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


def refusal(raw: bytes) -> str:
    with pytest.raises(MalformedAttestation) as caught:
        decode_message(raw)
    return caught.value.rule


def with_signature(signature: bytes, payload: bytes = b"payload") -> Es384Message:
    return decode_message(cbor2.dumps([ES384_PROTECTED, {}, payload, signature]))


def test_the_es384_example_of_the_cose_working_group_verifies() -> None:
    (entry,) = examples("Examples__ecdsa-examples__ecdsa-sig-02")
    protected, _, payload, signature = cbor2.loads(example(entry)).value
    # The unprotected header is emptied: the signature does not cover it.
    message = decode_message(cbor2.dumps([protected, {}, payload, signature]))
    assert message.payload == b"This is the content."
    numbers = load(entry)["input"]["sign0"]["key"]
    x, y = coordinate(numbers["x"]), coordinate(numbers["y"])
    key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP384R1()).public_key()
    assert message.verify_signature(key)
    assert not message.verify_signature(PUBLIC)
    assert not with_signature(signature, payload + b"\0").verify_signature(key)
    assert not with_signature(signature[::-1], payload).verify_signature(key)


def test_no_example_with_another_algorithm_is_taken() -> None:
    entries = [*examples("Examples__sign1"), *examples("Examples__ecdsa-examples__ecdsa-sig-01")]
    assert len(entries) == 10
    for entry in entries:
        wrong_tag = entry.path.stem.endswith("sign-fail-01")
        expected = "cose-tag" if wrong_tag else "cose-algorithm"
        assert refusal(example(entry)) == expected, entry.path


def test_the_malformed_headers_of_go_cose_are_refused() -> None:
    entries = examples("go-cose")
    assert len(entries) == 2
    for entry in entries:
        shown = load(entry)["sign1::verify"]["taggedCOSESign1"]["cborHex"]
        assert refusal(bytes.fromhex(str(shown))) == "cose-algorithm", entry.path


@given(payload=st.binary(min_size=1, max_size=300) | st.just(b"p" * 16384))
def test_what_is_signed_is_rfc_9052_s_structure(payload: bytes) -> None:
    """Signatures over these bytes, written as they are in section 4.4, verify."""
    assert decode_message(sign_document(payload, PRIVATE)).verify_signature(PUBLIC)
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
    assert cbor2.dumps(["Signature1", ES384_PROTECTED, b"", payload]) == structure


TAGS = [0, 1, 2, 3, 4, 5, 24, 25, 28, 29, 30, 35, 36, 37, 256, 258, 260, 261, 1004, 43000, 55799]


@pytest.mark.parametrize("tag", TAGS)
def test_no_tag_is_interpreted(tag: int) -> None:
    item = cbor2.CBORTag(tag, [1, 2])
    assert decode_cbor(cbor2.dumps(item), CBOR) == item


def test_too_long_is_refused_whatever_it_is() -> None:
    assert refusal(b"\xff" * 16641) == "size"


@given(st.recursive(st.integers() | st.text() | st.binary(), st.lists, max_leaves=20))
def test_what_follows_an_item_is_refused(item: object) -> None:
    raw = cbor2.dumps(item)
    with pytest.raises(MalformedAttestation):
        decode_cbor(raw + b"\0", CBOR)


def test_pycose_brings_no_second_x509_library() -> None:
    program = "import sys, foobar_instance.attestation; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    loaded = set(done.stdout.decode().split())
    assert "pycose" in loaded
    assert not loaded & {"certvalidator", "oscrypto", "asn1crypto"}

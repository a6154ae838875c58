"""Whatever a document is made into, the library answers with `AttestationError`, or nothing ill."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.documents import encode_payload, sign_document
from foobar_instance.attestation import Attestation, AttestationError, Verifier, parse_attestation
from tests.support.forge import RULES, chain, document, fields, root
from tests.support.vectors import vectors


@cache
def good() -> bytes:
    return document(user_data=b"user data", nonce=b"nonce", public_key=b"key")


@cache
def verifier() -> Verifier:
    return Verifier(root())


def outcome(raw: bytes, by: Verifier | None = None) -> Attestation | None:
    """What a document verifies as; None where it is refused as it should be."""
    try:
        return (by or verifier()).verify(raw, allow_debug=True)
    except AttestationError as error:
        refusal = error
    assert refusal.rule in RULES
    assert str(refusal).isprintable()
    assert len(str(refusal)) < 1000
    return None


def flipped(raw: bytes, position: int, mask: int) -> bytes:
    return raw[:position] + bytes([raw[position] ^ mask]) + raw[position + 1 :]


def test_no_other_byte_in_the_cose_frame_verifies() -> None:
    raw = good()
    payload = cbor2.loads(raw)[2]
    begin = raw.index(payload)
    frame = [*range(begin + 1), *range(begin + len(payload), begin + len(payload) + 6)]
    for position in frame:
        for mask in range(1, 256):
            assert outcome(flipped(raw, position, mask)) is None, (position, mask)


@given(st.data())
def test_no_other_byte_anywhere_verifies(data: st.DataObject) -> None:
    raw = good()
    position = data.draw(st.integers(0, len(raw) - 1))
    assert outcome(flipped(raw, position, data.draw(st.integers(1, 255)))) is None


def says(raw: bytes) -> list[object]:
    """What a message holds: its tag, and the form of its lengths, no signature covers."""
    item = cbor2.loads(raw)
    parts: list[object] = item.value if isinstance(item, cbor2.CBORTag) else item
    return parts


@given(st.data())
def test_nothing_cut_out_put_in_or_moved_verifies(data: st.DataObject) -> None:
    raw = good()
    begin = data.draw(st.integers(0, len(raw)))
    end = data.draw(st.integers(begin, len(raw)))
    other = data.draw(st.binary(max_size=64) | st.just(raw[: end - begin][::-1]))
    changed = raw[:begin] + other + raw[end:]
    if changed != raw and outcome(changed) is not None:
        assert says(changed) == says(raw)


@pytest.mark.parametrize(
    ("form", "other"),
    [(b"\x84", b"\xd2\x84"), (b"\x84", b"\x98\x04"), (b"\xa0", b"\xb8\x00")],
    ids=["tagged", "a longer array head", "a longer map head"],
)
def test_another_form_of_the_frame_is_the_same_document(form: bytes, other: bytes) -> None:
    raw = good()
    changed = raw.replace(form, other, 1)
    assert changed != raw
    assert outcome(changed) == outcome(raw)


@given(st.binary(max_size=400))
def test_any_bytes(raw: bytes) -> None:
    assert outcome(raw) is None


ITEMS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=60)
    | st.just(cbor2.undefined),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.integers(-1, 40) | st.text(max_size=4), inner, max_size=5)
        | st.builds(cbor2.CBORTag, st.sampled_from([0, 1, 2, 4, 18, 28, 30, 55799]), inner)
    ),
    max_leaves=12,
)


@given(ITEMS)
def test_any_cbor(item: object) -> None:
    assert outcome(cbor2.dumps(item)) is None
    assert outcome(cbor2.dumps([bytes.fromhex("a1013822"), {}, item, bytes(96)])) is None
    payload = cbor2.dumps(item)
    assert outcome(sign_document(payload, chain().key)) is None


@given(
    st.sampled_from(
        ["module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle", "nonce"]
    ),
    ITEMS,
)
def test_any_value_in_a_field_of_a_signed_document(name: str, value: object) -> None:
    attestation = outcome(sign_document(encode_payload(fields(**{name: value})), chain().key))
    if attestation is not None:
        assert name in {"pcrs", "nonce"}
        assert getattr(attestation, name) == value


@settings(max_examples=300)
@given(st.data())
def test_no_altered_certificate_in_a_signed_document_verifies(data: st.DataObject) -> None:
    """The signer of the document may be the attacker; the certificates are parsed before it."""
    good_chain = chain()
    which = data.draw(st.integers(1, len(good_chain.cabundle)))
    ders = [*good_chain.cabundle, good_chain.certificate]
    der = ders[which]
    position = data.draw(st.integers(0, len(der) - 1))
    ders[which] = flipped(der, position, data.draw(st.integers(1, 255)))
    altered = replace(good_chain, certificate=ders[-1], cabundle=tuple(ders[:-1]))
    assert outcome(document(altered)) is None


@given(st.data())
def test_an_altered_payload_that_is_signed_means_what_it_says(data: st.DataObject) -> None:
    payload = encode_payload(fields(nonce=b"nonce"))
    position = data.draw(st.integers(0, len(payload) - 1))
    altered = flipped(payload, position, data.draw(st.integers(1, 255)))
    raw = sign_document(altered, chain().key)
    attestation = outcome(raw)
    if attestation is not None:
        assert attestation == parse_attestation(raw)


@pytest.mark.parametrize("depth", [5, 100, 5_000])
@pytest.mark.parametrize("head", [b"\x81", b"\x9f", b"\xa1\x00", b"\xd2"])
def test_deep_cbor(depth: int, head: bytes) -> None:
    assert outcome(head * depth + b"\x00") is None
    assert outcome(sign_document(head * depth + b"\x00", chain().key)) is None


@settings(max_examples=300)
@given(st.data())
def test_no_altered_genuine_document_verifies(data: st.DataObject) -> None:
    raws = genuine()
    raw = data.draw(st.sampled_from(raws))
    position = data.draw(st.integers(0, len(raw) - 1))
    assert outcome(flipped(raw, position, data.draw(st.integers(1, 255))), aws()) is None
    assert outcome(raw[:position], aws()) is None


@cache
def genuine() -> list[bytes]:
    entries = [entry for entry in vectors("attestation") if entry.text("kind") == "enclave"]
    return [entry.read() for entry in entries]


@cache
def aws() -> Verifier:
    return Verifier()

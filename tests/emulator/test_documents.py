"""Emulated documents have the bytes that genuine ones of today have."""

from __future__ import annotations

from datetime import UTC, datetime

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from emulator.documents import (
    ES384_PROTECTED,
    attestation_document,
    cose_signature,
    document_fields,
    encode_payload,
    sign_document,
)
from emulator.pki import NitroChain, NitroPki
from foobar_instance.attestation import parse_attestation
from tests.support.vectors import vectors

NOW = datetime(2026, 3, 1, 12, 0, 0, 123_999, tzinfo=UTC)
MODULE_ID = "i-0123456789abcdef0-enc0123456789abcdef"
PCRS = {index: bytes([index + 1]) * 48 for index in reversed(range(16))}
PKI = NitroPki.create(now=NOW)
CHAIN = PKI.issue(MODULE_ID, now=NOW)


def test_the_frame_is_that_of_genuine_documents() -> None:
    raw = attestation_document(CHAIN, module_id=MODULE_ID, pcrs=PCRS, timestamp=NOW)
    assert raw.startswith(bytes.fromhex("8444a1013822a059"))
    assert raw[-98:-96] == b"\x58\x60"
    payload = cbor2.loads(raw)[2]
    assert payload[:1] == b"\xbf"
    assert payload[-1:] == b"\xff"
    assert payload.endswith(b"\x65nonce\xf6\xff")


def test_genuine_payloads_are_encoded_to_their_own_bytes() -> None:
    """Parsed, and written again from what was parsed, each payload is what AWS signed."""
    entries = [entry for entry in vectors("attestation") if entry.text("kind") == "enclave"]
    for entry in entries:
        raw = entry.read()
        payload = cbor2.loads(raw)[2]
        said = parse_attestation(raw)
        # The key is not needed for the fields.
        chain = NitroChain(CHAIN.key, said.certificate, said.cabundle)
        fields = document_fields(
            chain,
            module_id=said.module_id,
            pcrs=said.pcrs,
            timestamp=said.timestamp,
            user_data=said.user_data,
            nonce=said.nonce,
            public_key=said.public_key,
        )
        indefinite = entry.facts["payload_map_indefinite"] is True
        assert encode_payload(fields, indefinite=indefinite) == payload, entry.path.name


@pytest.mark.parametrize("tag", [None, 18, 98])
def test_the_shape_is_as_asked(tag: int | None) -> None:
    raw = sign_document(b"payload", CHAIN.key, protected=b"p", unprotected={4: b"k"}, tag=tag)
    value = cbor2.loads(raw)
    assert (value.tag if isinstance(value, cbor2.CBORTag) else None) == tag
    message = value.value if isinstance(value, cbor2.CBORTag) else value
    assert list(message[:3]) == [b"p", {4: b"k"}, b"payload"]


def test_signatures_are_96_bytes_whatever_the_values() -> None:
    key = ec.derive_private_key(1, ec.SECP384R1())
    sizes = {len(cose_signature(key, ES384_PROTECTED, bytes([n]))) for n in range(200)}
    assert sizes == {96}

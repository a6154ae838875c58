"""What a document says is what `parse_attestation` returns, and it stays so."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from emulator.documents import encode_payload, sign_document
from foobar_instance.attestation import Attestation, parse_attestation
from tests.support.forge import PCRS, chain, document, fields
from tests.support.issued import MODULE_ID, NOW

BYTES = st.none() | st.binary(max_size=4050)
KEY = ec.derive_private_key(3, ec.SECP384R1())


def test_a_whole_document() -> None:
    raw = document(user_data=b"data", nonce=b"", public_key=None)
    assert parse_attestation(raw) == Attestation(
        module_id=MODULE_ID,
        timestamp=NOW,
        digest="SHA384",
        pcrs=PCRS,
        certificate=chain().certificate,
        cabundle=chain().cabundle,
        public_key=None,
        user_data=b"data",
        nonce=b"",
    )


@given(
    pcrs=st.dictionaries(st.integers(0, 31), st.binary(min_size=48, max_size=48), min_size=1),
    milliseconds=st.integers(1, 253_402_300_799_999),
    module_id=st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1),
    optional=st.fixed_dictionaries(
        {}, optional={"public_key": BYTES, "user_data": BYTES, "nonce": BYTES}
    ),
    indefinite=st.booleans(),
    tag=st.sampled_from([None, 18]),
)
def test_what_is_written_is_read(
    pcrs: dict[int, bytes],
    milliseconds: int,
    module_id: str,
    optional: dict[str, bytes | None],
    indefinite: bool,
    tag: int | None,
) -> None:
    content = fields(pcrs=pcrs, timestamp=milliseconds, module_id=module_id) | {
        name: optional.get(name) for name in ("public_key", "user_data", "nonce")
    }
    payload = encode_payload(content, indefinite=indefinite)
    attestation = parse_attestation(sign_document(payload, KEY, tag=tag))
    assert attestation.pcrs == pcrs
    assert list(attestation.pcrs) == sorted(pcrs)
    assert attestation.module_id == module_id
    since = attestation.timestamp - datetime(1970, 1, 1, tzinfo=UTC)
    assert since == timedelta(milliseconds=milliseconds)
    assert attestation.timestamp.tzinfo is UTC
    for name in ("public_key", "user_data", "nonce"):
        assert getattr(attestation, name) == optional.get(name)
    assert attestation.is_debug == (pcrs.get(0, bytes(48)) == bytes(48))


def test_an_attestation_cannot_be_changed() -> None:
    attestation = parse_attestation(document())
    with pytest.raises(FrozenInstanceError):
        attestation.module_id = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        attestation.pcrs[0] = bytes(48)  # type: ignore[index]
    assert isinstance(attestation.cabundle, tuple)


def test_parsing_alone_trusts_nothing() -> None:
    """Certificates are not read, nor signatures checked: that is for `verify`."""
    raw = document(certificate=b"no certificate", cabundle=[b"none"])
    assert parse_attestation(raw[:-96] + bytes(96)).certificate == b"no certificate"

"""Proofs: what verifies, and that nothing in the file can change unnoticed."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.documents import attestation_document
from emulator.pki import NitroPki
from foobar_instance.attestation import Measurements, Verifier
from foobar_instance.errors import NotVerifiedError
from foobar_instance.proof import MAX_PROOF, PROOF_TYPE, Proof, parse_proof, verify_proof
from foobar_instance.trust import Trust
from foobar_shared import envelope
from foobar_shared.claims import KeyClaims, ResultClaims
from foobar_shared.envelope import Message, parse_message
from foobar_shared.messages import DecryptRequest, GetAttestationRequest, Request, encode_request
from tests.conftest import stride

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MODULE_ID = "i-0123456789abcdef0-enc0123456789abcdef"
PCR0 = bytes(range(48))
KEY_ARN = "arn:aws:kms:us-east-1:123456789012:key/1234"
CHALLENGE = bytes(range(32))
PKI = NitroPki.create(now=NOW)
CHAIN = PKI.issue(MODULE_ID, now=NOW)
PUBLIC_KEY = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
)
MESSAGE: Message = parse_message(envelope.encrypt(b"attack at dawn", PUBLIC_KEY))
REQUEST = DecryptRequest(b"enveloped", MESSAGE.nonce, MESSAGE.ciphertext, CHALLENGE)
TRUST = Trust(Verifier(PKI.root), Measurements({0: PCR0}))


def document(user_data: bytes, **changes: object) -> bytes:
    fields = {
        "pcrs": {index: PCR0 if index == 0 else bytes(48) for index in range(16)},
        "timestamp": NOW,
        "user_data": user_data,
        "nonce": CHALLENGE,
    } | changes
    return attestation_document(CHAIN, module_id=MODULE_ID, **fields)  # type: ignore[arg-type]


def key_document(**changes: object) -> bytes:
    claims = KeyClaims("1234", KEY_ARN, PUBLIC_KEY, "us-east-1", bytes(32))
    return document(claims.encode(), **changes)


def result_document(request: bytes, **changes: object) -> bytes:
    claims = ResultClaims(hashlib.sha256(request).digest(), 4)
    return document(claims.encode(), **changes)


def proof_with(request: Request = REQUEST, **changes: object) -> Proof:
    """A proof whose result's document differs from the good one in `changes`."""
    line = encode_request(request)
    return Proof(key_document(), line, result_document(line, **changes))


GOOD = proof_with()


def test_a_good_proof() -> None:
    result = verify_proof(parse_proof(GOOD.encode()), MESSAGE, TRUST)
    assert result.count == 4
    assert result.key.key_arn == KEY_ARN
    assert result.attestation.timestamp == NOW


def test_every_flipped_byte_is_noticed() -> None:
    data = GOOD.encode()
    for position in stride(range(len(data)), 11):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        with pytest.raises(NotVerifiedError):
            verify_proof(parse_proof(bytes(changed)), MESSAGE, TRUST)


@settings(max_examples=300)
@given(st.data())
def test_any_other_byte_anywhere_is_noticed(data: st.DataObject) -> None:
    good = GOOD.encode()
    position = data.draw(st.integers(0, len(good) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != good[position]))
    with pytest.raises(NotVerifiedError):
        verify_proof(
            parse_proof(good[:position] + bytes([value]) + good[position + 1 :]), MESSAGE, TRUST
        )


@given(st.binary())
def test_parsing_raises_nothing_else(data: bytes) -> None:
    with pytest.raises(NotVerifiedError):
        parse_proof(data)


@given(st.binary(), st.binary(), st.binary())
def test_round_trip(key: bytes, request: bytes, result: bytes) -> None:
    proof = Proof(key, request, result)
    assert parse_proof(proof.encode()) == proof


FIELDS = json.loads(GOOD.encode())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "JSON"),
        (b"x" * (MAX_PROOF + 1), "longer than"),
        (json.dumps(FIELDS | {"type": "foobar/proof/2"}).encode(), PROOF_TYPE),
        (json.dumps(FIELDS | {"key": None}).encode(), "key is missing"),
        (json.dumps(FIELDS | {"request": "%"}).encode(), "request is not valid base64"),
        (json.dumps(FIELDS).encode(), "changed since"),
        (GOOD.encode().rstrip(), "changed since"),
        (GOOD.encode() + b"\n", "changed since"),
        (json.dumps(FIELDS | {"note": "trust me"}, separators=(",", ":")).encode(), "changed"),
    ],
)
def test_malformed_files(data: bytes, reason: str) -> None:
    with pytest.raises(NotVerifiedError, match=reason):
        parse_proof(data)


LINE = encode_request(REQUEST)
OTHER = encode_request(replace(REQUEST, shared_secret=b"other"))
EARLIER = NOW - timedelta(seconds=1)
OTHER_PCRS = {index: bytes([index + 1]) * 48 for index in range(16)}


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: replace(GOOD, request=OTHER), "another request"),
        (lambda: replace(GOOD, key=GOOD.result), "does not attest a key"),
        (lambda: replace(GOOD, result=GOOD.key), "holds no result"),
        (lambda: proof_with(pcrs=OTHER_PCRS), "PCR0 is 0101"),
        (lambda: proof_with(timestamp=EARLIER), "older than the key"),
        (lambda: proof_with(nonce=None), "challenge"),
        (lambda: proof_with(nonce=bytes(32)), "challenge"),
        (lambda: proof_with(replace(REQUEST, challenge=None), nonce=None), "challenge"),
        (lambda: proof_with(GetAttestationRequest(CHALLENGE)), "not one to decrypt"),
        (lambda: proof_with(replace(REQUEST, nonce=bytes(12))), "another ciphertext"),
        (lambda: proof_with(replace(REQUEST, ciphertext=bytes(30))), "another ciphertext"),
        (lambda: Proof(GOOD.key, b"{}", result_document(b"{}")), "malformed"),
        (lambda: replace(GOOD, key=b""), "the key's attestation does not verify"),
        (lambda: replace(GOOD, result=b""), "the result's attestation does not verify"),
    ],
)
def test_what_does_not_belong_together(make: Callable[[], Proof], reason: str) -> None:
    with pytest.raises(NotVerifiedError, match=reason):
        verify_proof(make(), MESSAGE, TRUST)


def test_two_enclaves_are_refused_even_where_any_is_trusted() -> None:
    trust = Trust(Verifier(PKI.root), None)
    with pytest.raises(NotVerifiedError, match="another PCR0 than the key's"):
        verify_proof(proof_with(pcrs=OTHER_PCRS), MESSAGE, trust)


def test_debug_mode_proves_nothing() -> None:
    pcrs = {index: bytes(48) for index in range(16)}
    proof = Proof(key_document(pcrs=pcrs), LINE, result_document(LINE, pcrs=pcrs))
    with pytest.raises(NotVerifiedError, match="debug mode"):
        verify_proof(proof, MESSAGE, Trust(Verifier(PKI.root), None))

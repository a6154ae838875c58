"""Proofs: what verifies, and that nothing in the file can change unnoticed."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foobar_instance.errors import NotVerifiedError
from foobar_instance.proof import (
    MAX_PROOF,
    PROOF_TYPE,
    Proof,
    as_json_text,
    as_line,
    as_text,
    parse_proof,
    verify_proof,
)
from foobar_shared import envelope
from foobar_shared.claims import ResultClaims
from foobar_shared.computation import Result
from foobar_shared.envelope import parse_message
from foobar_shared.messages import DecryptRequest, GetAttestationRequest, Request, encode_request
from tests.conftest import stride
from tests.support.documents import (
    CLAIMS,
    DEBUG_PCR0,
    KEY_ARN,
    MODULE_ID,
    NOW,
    OTHER_PCR0,
    PCR0,
    PUBLIC_KEY,
    Signer,
)

CHALLENGE = bytes(range(32))
SIGN = Signer.create()
MESSAGE = parse_message(envelope.encrypt(b"attack at dawn", PUBLIC_KEY))
REQUEST = DecryptRequest(b"enveloped", MESSAGE.nonce, MESSAGE.ciphertext, CHALLENGE)
TRUST = replace(SIGN.trust(), root="a root", pinned_by=("--pcr0",))
ANY = SIGN.trust(None)


def result_document(request: bytes, **changes: object) -> bytes:
    claims = ResultClaims(hashlib.sha256(request).digest(), Result(4))
    fields: dict[str, object] = {"nonce": CHALLENGE} | changes
    return SIGN(claims.encode(), **fields)  # type: ignore[arg-type]


def proof_with(request: Request = REQUEST, **changes: object) -> Proof:
    """A proof whose result's document differs from the good one in `changes`."""
    line = encode_request(request)
    return Proof(SIGN.key(), line, result_document(line, **changes))


GOOD = proof_with()


def test_a_good_proof() -> None:
    result = verify_proof(parse_proof(GOOD.encode()), MESSAGE, TRUST)
    assert result.count == 4
    assert (result.key, result.attestation.timestamp) == (CLAIMS, NOW)
    assert result.proof == GOOD
    assert as_line(result) == "Count 'a': 4"


def test_the_text_says_what_the_result_rests_on() -> None:
    lines = [
        "Count 'a': 4",
        "computed:  2026-03-01 12:00:00 UTC",
        f"by PCR0:   {PCR0.hex()}",
        f"key:       {KEY_ARN}",
        "root:      a root",
        "pinned by: --pcr0",
        "mode:      production",
    ]
    assert as_text(verify_proof(GOOD, MESSAGE, TRUST), TRUST).splitlines() == lines
    text = as_text(verify_proof(GOOD, MESSAGE, ANY), ANY)
    assert "pinned by: nothing: any enclave is trusted" in text.splitlines()


def test_so_does_the_json() -> None:
    text = as_json_text(verify_proof(GOOD, MESSAGE, TRUST), TRUST)
    assert text.startswith('{\n  "count": 4,\n')
    facts = json.loads(text)
    assert facts == {
        "count": 4,
        "keyArn": KEY_ARN,
        "pcr0": PCR0.hex(),
        "moduleId": MODULE_ID,
        "timestamp": "2026-03-01T12:00:00.000+00:00",
        "requestSha256": hashlib.sha256(GOOD.request).hexdigest(),
        "root": "a root",
        "pinned": {"PCR0": PCR0.hex()},
        "pinnedBy": ["--pcr0"],
        "debug": False,
    }
    unpinned = json.loads(as_json_text(verify_proof(GOOD, MESSAGE, ANY), ANY))
    assert facts | {"root": "", "pinned": {}, "pinnedBy": []} == unpinned


def test_every_flipped_byte_is_noticed() -> None:
    data = GOOD.encode()
    for position in stride(range(len(data)), 11):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        with pytest.raises(NotVerifiedError):
            verify_proof(parse_proof(bytes(changed)), MESSAGE, TRUST)


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
        (json.dumps(FIELDS | {"key": None}).encode(), "key: missing"),
        (json.dumps(FIELDS | {"request": "%"}).encode(), "request: not valid base64"),
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


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: replace(GOOD, request=OTHER), "another request"),
        (lambda: replace(GOOD, key=GOOD.result), "does not attest a key"),
        (lambda: replace(GOOD, result=GOOD.key), "holds no result"),
        (lambda: proof_with(pcr0=OTHER_PCR0), "PCR0 is 0102"),
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
    with pytest.raises(NotVerifiedError, match="another PCR0 than the key's"):
        verify_proof(proof_with(pcr0=OTHER_PCR0), MESSAGE, ANY)


def test_debug_mode_proves_nothing() -> None:
    key = SIGN(CLAIMS.encode(), pcr0=DEBUG_PCR0)
    proof = Proof(key, LINE, result_document(LINE, pcr0=DEBUG_PCR0))
    with pytest.raises(NotVerifiedError, match="debug mode"):
        verify_proof(proof, MESSAGE, ANY)
    allowing = SIGN.trust(None, allow_debug=True)
    result = verify_proof(proof, MESSAGE, allowing)
    assert as_text(result, allowing).endswith("\nmode:      DEBUG: it proves nothing")
    assert json.loads(as_json_text(result, allowing))["debug"] is True

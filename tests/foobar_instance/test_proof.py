"""Proofs: what verifies, and that nothing in the file can change unnoticed."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foobar_instance.errors import NotVerifiedError
from foobar_instance.proof import (
    MAX_PROOF,
    MessagesProof,
    RequestProof,
    as_json_text,
    as_text,
    hashes_of,
    parse_proof,
    verify_proof,
)
from foobar_shared import envelope
from foobar_shared.claims import ComputeClaims, ResultClaims, hash_of_messages
from foobar_shared.computation import NAME
from foobar_shared.envelope import parse_message
from foobar_shared.hpke import SealedMessage
from foobar_shared.messages import DecryptRequest, GetAttestationRequest, Request, encode_request
from tests.conftest import stride
from tests.foobar_instance.fakes import sealed
from tests.support.documents import (
    CLAIMS,
    DEBUG_PCR0,
    KEY_ARN,
    KEY_ID,
    MODULE_ID,
    NOW,
    OTHER_PCR0,
    PCR0,
    PUBLIC_KEY,
    RESULT,
    Signer,
)

CHALLENGE = bytes(range(32))
SIGN = Signer.create()
MESSAGE = parse_message(envelope.encrypt(b"attack at dawn", PUBLIC_KEY))
REQUEST = DecryptRequest(b"enveloped", MESSAGE.nonce, MESSAGE.ciphertext, CHALLENGE)
TRUST = replace(SIGN.trust(), root="a root", pinned_by=("--pcr0",))
ANY = SIGN.trust(None)


def result_document(request: bytes, **changes: object) -> bytes:
    claims = ResultClaims(hashlib.sha256(request).digest(), RESULT)
    fields: dict[str, object] = {"nonce": CHALLENGE} | changes
    return SIGN(claims.encode(), **fields)  # type: ignore[arg-type]


def proof_with(request: Request = REQUEST, **changes: object) -> RequestProof:
    """A proof whose result's document differs from the good one in `changes`."""
    line = encode_request(request)
    return RequestProof(SIGN.key(), line, result_document(line, **changes))


GOOD = proof_with()
SEALED = [sealed(b"attack at dawn"), sealed(b"")]
HASHES = hashes_of(SEALED)


def proof_2(
    messages: Sequence[SealedMessage] = SEALED, number: int = 2, **changes: object
) -> MessagesProof:
    """A proof whose claims and document differ from the good one in `changes`."""
    hashes = hashes_of(messages)
    good = ComputeClaims(NAME, KEY_ARN, hash_of_messages(hashes), number, RESULT)
    document = {name: changes.pop(name) for name in ("pcr0", "timestamp") if name in changes}
    claims = replace(good, **changes)  # type: ignore[arg-type]
    result = SIGN(claims.encode(), nonce=CHALLENGE, **document)  # type: ignore[arg-type]
    return MessagesProof(SIGN.key(), result, hashes)


GOOD_2 = proof_2()


def test_a_good_proof() -> None:
    result = verify_proof(parse_proof(GOOD.encode()), [MESSAGE], TRUST)
    assert (result.result, result.key) == (RESULT, CLAIMS)
    assert result.attestation.timestamp == NOW
    assert result.proof == GOOD


def test_the_text_says_what_the_result_rests_on() -> None:
    lines = [
        str(RESULT),
        "computed:  2026-03-01 12:00:00 UTC",
        f"by PCR0:   {PCR0.hex()}",
        f"key:       {KEY_ARN} (key in the file, not bound to this result)",
        "root:      a root",
        "pinned by: --pcr0",
        "mode:      production",
    ]
    assert as_text(verify_proof(GOOD, [MESSAGE], TRUST), TRUST).splitlines() == lines
    text = as_text(verify_proof(GOOD, [MESSAGE], ANY), ANY)
    assert "pinned by: nothing: any enclave is trusted" in text.splitlines()


@pytest.mark.threat("F")
def test_a_hostile_file_name_forges_no_line() -> None:
    trust = replace(TRUST, pinned_by=("--measurements m\x1b[31m\nmode:      production",))
    text = as_text(verify_proof(GOOD, [MESSAGE], trust), trust)
    assert "pinned by: --measurements m\\x1b[31m\\nmode:      production" in text.splitlines()


def test_so_does_the_json() -> None:
    facts = {
        **RESULT.fields(),
        "keyArn": KEY_ARN,
        "keyBound": False,
        "pcr0": PCR0.hex(),
        "moduleId": MODULE_ID,
        "timestamp": "2026-03-01T12:00:00.000+00:00",
        "requestSha256": hashlib.sha256(GOOD.request).hexdigest(),
        "root": "a root",
        "pinned": {"PCR0": PCR0.hex()},
        "pinnedBy": ["--pcr0"],
        "debug": False,
    }
    unpinned = facts | {"root": "", "pinned": {}, "pinnedBy": []}
    for trust, shown in ((TRUST, facts), (ANY, unpinned)):
        text = as_json_text(verify_proof(GOOD, [MESSAGE], trust), trust)
        assert text == json.dumps(shown, indent=2)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.threat("6")
def test_every_flipped_byte_is_noticed(version: int) -> None:
    data = (GOOD if version == 1 else GOOD_2).encode()
    messages = [MESSAGE] if version == 1 else SEALED
    for position in stride(range(len(data)), 11):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        with pytest.raises(NotVerifiedError):
            verify_proof(parse_proof(bytes(changed)), messages, TRUST)


@given(st.binary())
def test_parsing_raises_nothing_else(data: bytes) -> None:
    with pytest.raises(NotVerifiedError):
        parse_proof(data)


@given(st.binary(), st.binary(), st.binary())
def test_round_trip(key: bytes, request: bytes, result: bytes) -> None:
    proof = RequestProof(key, request, result)
    assert parse_proof(proof.encode()) == proof


FIELDS = json.loads(GOOD.encode())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "JSON"),
        (b"x" * (MAX_PROOF + 1), "longer than"),
        (json.dumps(FIELDS | {"type": "foobar/proof/3"}).encode(), "type is neither"),
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
        (lambda: RequestProof(GOOD.key, b"{}", result_document(b"{}")), "malformed"),
        (lambda: replace(GOOD, key=b""), "the key's attestation does not verify"),
        (lambda: replace(GOOD, result=b""), "the result's attestation does not verify"),
    ],
)
def test_what_does_not_belong_together(make: Callable[[], RequestProof], reason: str) -> None:
    with pytest.raises(NotVerifiedError, match=reason):
        verify_proof(make(), [MESSAGE], TRUST)


def test_two_enclaves_are_refused_even_where_any_is_trusted() -> None:
    with pytest.raises(NotVerifiedError, match="another PCR0 than the key's"):
        verify_proof(proof_with(pcr0=OTHER_PCR0), [MESSAGE], ANY)


def test_debug_mode_proves_nothing() -> None:
    key = SIGN(CLAIMS.encode(), pcr0=DEBUG_PCR0)
    proof = RequestProof(key, LINE, result_document(LINE, pcr0=DEBUG_PCR0))
    with pytest.raises(NotVerifiedError, match="debug mode"):
        verify_proof(proof, [MESSAGE], ANY)
    allowing = SIGN.trust(None, allow_debug=True)
    result = verify_proof(proof, [MESSAGE], allowing)
    assert as_text(result, allowing).endswith("\nmode:      DEBUG: it proves nothing")
    assert json.loads(as_json_text(result, allowing))["debug"] is True


def test_a_proof_for_several_messages() -> None:
    verified = verify_proof(parse_proof(GOOD_2.encode()), SEALED, TRUST)
    assert (verified.result, verified.proof) == (RESULT, GOOD_2)
    assert f"key:       {KEY_ARN}" in as_text(verified, TRUST).splitlines()
    facts = json.loads(as_json_text(verified, TRUST))
    assert facts == facts | RESULT.fields()
    assert (facts["messages"], facts["keyBound"]) == (2, True)
    assert facts["messagesSha256"] == hash_of_messages(HASHES).hex()
    assert json.loads(GOOD_2.encode())["type"] == "foobar/proof/2"


OTHER_KEY = SIGN.key(key_arn=KEY_ARN[:-1] + "f", key_id=KEY_ID[:-1] + "f")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: replace(GOOD_2, key=OTHER_KEY), "is for messages to another key"),
        (lambda: replace(GOOD_2, messages=HASHES[::-1]), "other messages than those"),
        (lambda: replace(GOOD_2, messages=HASHES[:1]), "other messages than those"),
        (lambda: replace(GOOD_2, result=GOOD.result), "holds no result"),
        (lambda: proof_2(messages_sha256=bytes(32)), "is for other messages"),
        (lambda: proof_2(number=3), "is for other messages"),
        (lambda: proof_2(computation="foobar/other/1"), "of the computation foobar/other/1"),
        (lambda: proof_2(timestamp=EARLIER), "older than the key"),
        (lambda: proof_2(pcr0=OTHER_PCR0), "PCR0 is 0102"),
    ],
)
def test_what_does_not_belong_to_these_messages(
    make: Callable[[], MessagesProof], reason: str
) -> None:
    with pytest.raises(NotVerifiedError, match=reason):
        verify_proof(make(), SEALED, TRUST)


def test_a_proof_is_for_its_own_messages_and_format() -> None:
    for messages in (SEALED[::-1], SEALED[:1], [*SEALED, sealed()]):
        with pytest.raises(NotVerifiedError, match="other messages"):
            verify_proof(GOOD_2, messages, TRUST)
    with pytest.raises(NotVerifiedError, match="format 1"):
        verify_proof(GOOD_2, [MESSAGE], TRUST)
    for messages_1 in ([MESSAGE, MESSAGE], SEALED[:1]):
        with pytest.raises(NotVerifiedError, match="another ciphertext"):
            verify_proof(GOOD, messages_1, TRUST)


@pytest.mark.parametrize(
    "messages",
    [None, [], "text", [1], ["%"], ["AAAA"], [json.loads(GOOD_2.encode())["messages"][0]] * 513],
)
def test_malformed_hashes(messages: object) -> None:
    fields = json.loads(GOOD_2.encode()) | {"messages": messages}
    with pytest.raises(NotVerifiedError, match="not a proof"):
        parse_proof(json.dumps(fields, separators=(",", ":")).encode() + b"\n")


def respelled(document: bytes) -> list[bytes]:
    """The same document in other frames, all of which verify."""
    protected, _, payload, signature = cbor2.loads(document)
    chunks = b"\x5f" + cbor2.dumps(payload[:9]) + cbor2.dumps(payload[9:]) + b"\xff"
    rest = cbor2.dumps(signature)
    head = b"\x84" + cbor2.dumps(protected) + b"\xa0"
    long_head = b"\x5a" + len(payload).to_bytes(4, "big") + payload
    return [
        b"\xd2" + document,
        b"\x9f" + document[1:] + b"\xff",
        head + chunks + rest,
        head + long_head + rest,
    ]


@pytest.mark.parametrize("spelling", range(4))
@pytest.mark.threat("6")
def test_a_document_has_one_spelling_in_a_proof(spelling: int) -> None:
    for good, messages in ((GOOD, [MESSAGE]), (GOOD_2, SEALED)):
        key, result = respelled(good.key)[spelling], respelled(good.result)[spelling]
        assert TRUST.verify_saved(key, "it") == TRUST.verify_saved(good.key, "it")
        for proof in (replace(good, key=key), replace(good, result=result)):
            with pytest.raises(NotVerifiedError, match="not spelled as Nitro writes it"):
                verify_proof(proof, messages, TRUST)

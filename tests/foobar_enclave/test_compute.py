"""The compute request: many messages of format 2, one attested result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from foobar_enclave.service import EnclaveService
from foobar_shared import computation, hpke
from foobar_shared.claims import (
    MAX_MESSAGES,
    hash_of_messages,
    message_hash,
    parse_compute_claims,
)
from foobar_shared.errors import ComputationError
from foobar_shared.framing import MAX_COMPUTE_LINE, MAX_LINE
from foobar_shared.messages import (
    AttestationResponse,
    ComputeMessage,
    ComputeRequest,
    ErrorResponse,
    encode_request,
    parse_response,
)
from tests.foobar_enclave.ber import enveloped
from tests.foobar_enclave.fakes import (
    KEY_ARN,
    NONCE,
    P256,
    P256_KEY,
    FakeConnector,
    FakeNsm,
    FakeSession,
    spki,
)

RSA_KEY = rsa.generate_private_key(65537, 2048)
SERVICE = EnclaveService(nsm=FakeNsm().device, kms=FakeConnector(FakeSession()), key=RSA_KEY)
UNIFORM = "the message does not decrypt"


def sealed(plaintext: bytes, key_arn: str = KEY_ARN) -> ComputeMessage:
    """Return a message as the command line hands it over, with what KMS answers for it."""
    message = hpke.parse(hpke.seal(plaintext, P256, key_arn))
    assert message is not None
    peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), message.enc)
    secret = enveloped(P256_KEY.exchange(ec.ECDH(), peer), RSA_KEY)
    return ComputeMessage(secret, message.enc, message.ciphertext)


@cache
def dawn() -> ComputeMessage:
    return sealed(b"attack at dawn")


def request(*messages: ComputeMessage) -> ComputeRequest:
    return ComputeRequest(KEY_ARN, P256, messages, NONCE)


def ask(asked: ComputeRequest, service: EnclaveService = SERVICE) -> dict[str, bytes]:
    response = parse_response(service.handle(encode_request(asked)).removesuffix(b"\n"))
    assert isinstance(response, AttestationResponse), response
    assert response.name == "compute"
    fields = cbor2.loads(response.attestation)
    assert isinstance(fields, dict)
    return fields


def refusal(line: bytes) -> str:
    response = parse_response(SERVICE.handle(line).removesuffix(b"\n"))
    assert isinstance(response, ErrorResponse), response
    return response.text


def test_one_result_over_all_messages_with_their_hashes_in_order() -> None:
    messages = (dawn(), sealed(b""), sealed(b"banana"))
    fields = ask(request(*messages))
    claims = parse_compute_claims(fields["user_data"])
    assert claims.result == computation.compute([b"attack at dawn", b"", b"banana"])
    assert claims.computation == computation.NAME
    assert claims.key_arn == KEY_ARN
    assert claims.messages == 3
    hashes = [message_hash(message.enc, message.ciphertext) for message in messages]
    assert claims.messages_sha256 == hash_of_messages(hashes) != hash_of_messages(hashes[::-1])
    assert fields["nonce"] == NONCE
    assert fields["public_key"] is None
    assert json.loads(fields["user_data"])["result"] == claims.result.fields()


@pytest.mark.parametrize(
    "altered",
    [
        lambda good: replace(good, ciphertext=good.ciphertext[:-1] + b"\0"),
        lambda good: replace(good, ciphertext=b""),
        lambda good: replace(good, enc=sealed(b"other").enc),
        lambda good: replace(good, enc=bytes(65)),
        lambda good: replace(good, shared_secret=b"no CMS"),
        lambda good: replace(good, shared_secret=sealed(b"other").shared_secret),
        lambda good: replace(good, shared_secret=enveloped(bytes(48), RSA_KEY)),
        lambda _: sealed(b"attack at dawn", KEY_ARN[:-1] + "f"),
    ],
)
def test_one_bad_message_refuses_all_with_one_text(altered: object) -> None:
    assert callable(altered)
    assert refusal(encode_request(request(dawn(), altered(dawn()), dawn()))) == UNIFORM


@pytest.mark.parametrize(
    "changes",
    [
        {"key_arn": KEY_ARN[:-1] + "f"},
        {"public_key": spki(ec.generate_private_key(ec.SECP256R1()))},
        {"public_key": b"no key"},
    ],
)
@pytest.mark.threat("7")
def test_another_key_than_the_messages_were_sealed_to(changes: dict[str, object]) -> None:
    asked = replace(request(dawn()), **changes)  # type: ignore[arg-type]
    assert refusal(encode_request(asked)) == UNIFORM


def test_the_largest_request() -> None:
    line = encode_request(request(*[dawn()] * MAX_MESSAGES))
    assert MAX_LINE < len(line) < MAX_COMPUTE_LINE
    assert b'"attestation"' in SERVICE.handle(line)
    over = encode_request(request(*[dawn()] * (MAX_MESSAGES + 1)))
    assert refusal(over) == f"compute.messages: not an array of 1 to {MAX_MESSAGES} objects"


SHORT = {"sharedSecret": "AAAA", "e": "AAAA", "c": "AAAA"}


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("keyArn", "k" * 257, "compute.keyArn: not 1 to 256 printable characters"),
        ("publicKey", None, "compute.publicKey: missing"),
        ("messages", [], "compute.messages: not an array of 1 to 512 objects"),
        ("messages", [{}], "compute.messages[0].sharedSecret: missing"),
        ("messages", ["text"], "compute.messages[0]: not a JSON object"),
        ("messages", [SHORT], "compute.messages[0].e: not 65 bytes"),
        ("challenge", "AAAA", "compute.challenge: not 32 bytes"),
        ("challenge", None, "compute.challenge: missing"),
    ],
)
@pytest.mark.threat("14")
def test_malformed_requests(field: str, value: object, text: str) -> None:
    line = json.loads(encode_request(request(dawn())))
    line["compute"][field] = value
    assert refusal(json.dumps(line).encode()) == text


class _Outcome:
    """A computation that ends as the test says."""

    def __init__(self, outcome: BaseException | dict[str, object]) -> None:
        self._outcome = outcome

    def compute(self, _: Sequence[bytes]) -> _Outcome:
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self

    def fields(self) -> dict[str, object]:
        assert isinstance(self._outcome, dict)
        return self._outcome


DEFECT = "the enclave failed at this request; its console has the kind"


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (ComputationError("too few bids"), "too few bids"),
        (RuntimeError("the plaintext is attack at dawn"), DEFECT),
        ({"x": "y" * 512}, DEFECT),
        ({"type": "foobar/create-key/1"}, DEFECT),
        ({"request": "AAAA"}, DEFECT),
    ],
)
def test_what_a_computation_may_do(
    outcome: BaseException | dict[str, object],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Whoever replaces the module replaces this function: the one seam that is meant for it.
    monkeypatch.setattr(computation, "compute", _Outcome(outcome).compute)
    assert refusal(encode_request(request(dawn()))) == text
    assert "dawn" not in caplog.text

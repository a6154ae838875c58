from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from foobar_enclave.errors import KmsError
from foobar_enclave.kms import KmsConnector, KmsSession
from foobar_enclave.service import MAX_KEYS, EnclaveService
from foobar_shared import envelope
from foobar_shared.claims import parse_result_claims
from foobar_shared.computation import compute
from foobar_shared.framing import MAX_LINE
from foobar_shared.messages import (
    AttestationResponse,
    Credentials,
    DecryptRequest,
    ErrorResponse,
    GetAttestationRequest,
    encode_request,
    parse_response,
)
from tests.foobar_enclave.ber import enveloped
from tests.foobar_enclave.fakes import (
    NONCE,
    P256,
    P256_KEY,
    REQUEST,
    FakeConnector,
    FakeNsm,
    FakeSession,
    spki,
)

UNIFORM = b'{"error":"the message does not decrypt"}\n'
KEY = rsa.generate_private_key(65537, 2048)


def make(nsm: FakeNsm | None = None, kms: KmsConnector | None = None) -> EnclaveService:
    return EnclaveService(
        nsm=(nsm or FakeNsm()).device, kms=kms or FakeConnector(FakeSession()), key=KEY
    )


def attested(answer: bytes, name: str) -> dict[str, bytes | None]:
    """The fields of the document in an answer."""
    response = parse_response(answer.removesuffix(b"\n"))
    assert isinstance(response, AttestationResponse), response
    assert response.name == name
    fields = cbor2.loads(response.attestation)
    assert isinstance(fields, dict)
    return fields


def error(answer: bytes) -> str:
    response = parse_response(answer.removesuffix(b"\n"))
    assert isinstance(response, ErrorResponse), response
    return response.text


def decrypt_request(plaintext: bytes, challenge: bytes | None = NONCE) -> DecryptRequest:
    """What the CLI sends after KMS has derived the shared secret."""
    message = envelope.parse_message(envelope.encrypt(plaintext, P256))
    peer = envelope.load_p256_public_key(message.ephemeral_key)
    secret = P256_KEY.exchange(ec.ECDH(), peer)
    return DecryptRequest(
        shared_secret=enveloped(secret, KEY),
        nonce=message.nonce,
        ciphertext=message.ciphertext,
        challenge=challenge,
    )


def test_get_attestation_carries_nonce_and_public_key_and_nothing_else() -> None:
    answer = make().handle(encode_request(GetAttestationRequest(NONCE)) + b"\n")
    assert attested(answer, "getAttestation") == {
        "public_key": spki(KEY),
        "nonce": NONCE,
        "user_data": None,
    }


@pytest.mark.threat("9")
def test_weakness_9_only_get_attestation_carries_a_public_key_and_each_has_its_type() -> None:
    decrypted = attested(make().handle(encode_request(decrypt_request(b"a"))), "decrypt")
    created = attested(make().handle(encode_request(REQUEST)), "createKey")
    fresh = attested(make().handle(encode_request(GetAttestationRequest(NONCE))), "getAttestation")
    assert decrypted["public_key"] is None
    assert created["public_key"] is None
    assert fresh["user_data"] is None
    for data, kind in ((decrypted, "foobar/decrypt/1"), (created, "foobar/create-key/1")):
        assert data["user_data"] is not None
        assert json.loads(data["user_data"])["type"] == kind
        assert data["nonce"] == NONCE


def test_the_hash_is_over_the_line_exactly_as_it_came() -> None:
    request = encode_request(decrypt_request(b"aa"))
    line = b" " + request.replace(b'":"', b'" : "', 1) + b"\r"
    for given_line in (line, line + b"\n"):
        fields = attested(make().handle(given_line), "decrypt")
        claims = parse_result_claims(fields["user_data"])
        assert claims.request_sha256 == hashlib.sha256(line).digest()
        assert claims.request_sha256 != hashlib.sha256(request).digest()


def test_a_debug_enclave_refuses_create_key_and_answers_the_others() -> None:
    service = make(FakeNsm(pcr0=bytes(48)))
    assert "debug mode" in error(service.handle(encode_request(REQUEST)))
    attested(service.handle(encode_request(GetAttestationRequest())), "getAttestation")


@pytest.mark.threat("13")
def test_weakness_13_only_so_many_keys_are_asked_for_at_the_same_time() -> None:
    """Each takes memory; one more is told so, and all other requests go on."""
    asked, go_on = threading.Semaphore(0), threading.Event()

    class Slow(FakeConnector):
        def open(self, region: str, credentials: Credentials) -> KmsSession:
            asked.release()
            assert go_on.wait(5)
            return super().open(region, credentials)

    service = make(kms=Slow(FakeSession()))
    line = encode_request(REQUEST)
    with ThreadPoolExecutor() as threads:
        first = [threads.submit(service.handle, line) for _ in range(MAX_KEYS)]
        assert all(asked.acquire(timeout=5) for _ in first)
        assert error(service.handle(line)) == "the enclave is busy: try again later"
        originals = b'{"createKey":null,"getAttestation":{},"decrypt":null}'
        attested(service.handle(originals), "getAttestation")
        go_on.set()
        for answer in first:
            attested(answer.result(), "createKey")
    for _ in range(MAX_KEYS + 1):
        attested(service.handle(line), "createKey")


def test_a_key_that_fails_makes_room_for_the_next() -> None:
    refusal = KmsError("not authorized")
    service = make(kms=FakeConnector(FakeSession(metadata=refusal)))
    for _ in range(MAX_KEYS + 1):
        assert "not authorized" in error(service.handle(encode_request(REQUEST)))


def changed(**changes: bytes) -> bytes:
    fields = {
        name: getattr(VALID, name) for name in ("shared_secret", "nonce", "ciphertext", "challenge")
    }
    return encode_request(DecryptRequest(**(fields | changes)))


VALID = decrypt_request(b"attack at dawn")
OTHER_KEY = rsa.generate_private_key(65537, 2048)
FAILURES = {
    "no CMS": changed(shared_secret=b""),
    "junk for CMS": changed(shared_secret=b"junk"),
    "another recipient": changed(shared_secret=enveloped(bytes(32), OTHER_KEY)),
    "bad RSA": changed(shared_secret=enveloped(bytes(32), KEY, encrypted_key=bytes(256))),
    "bad padding": changed(shared_secret=enveloped(bytes(32), KEY, content=bytes(48))),
    "another secret": changed(shared_secret=enveloped(bytes(32), KEY)),
    "a short secret": changed(shared_secret=enveloped(bytes(31), KEY)),
    "a long secret": changed(shared_secret=enveloped(bytes(33), KEY)),
    "no secret": changed(shared_secret=enveloped(b"", KEY)),
    "too long for CMS": changed(shared_secret=bytes(6145)),
    "a flipped tag": changed(ciphertext=VALID.ciphertext[:-1] + bytes([VALID.ciphertext[-1] ^ 1])),
    "a cut ciphertext": changed(ciphertext=VALID.ciphertext[:15]),
    "no ciphertext": changed(ciphertext=b""),
    "another nonce": changed(nonce=bytes(12)),
    "no nonce": changed(nonce=b""),
    "a short nonce": changed(nonce=bytes(11)),
    "a long nonce": changed(nonce=bytes(13)),
}


@pytest.mark.parametrize("line", FAILURES.values(), ids=FAILURES)
@pytest.mark.threat("8", "14")
def test_weakness_8_every_decryption_failure_has_the_same_answer(line: bytes) -> None:
    assert make().handle(line) == UNIFORM


def test_weakness_8_both_layers_are_worked_through_whichever_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """AES-GCM is tried after CMS has failed too, with a secret of the right length."""
    secrets: list[bytes] = []
    real = envelope.decrypt

    def observed(nonce: bytes, ciphertext: bytes, secret: bytes) -> bytes:
        secrets.append(secret)
        return real(nonce, ciphertext, secret)

    monkeypatch.setattr("foobar_shared.envelope.decrypt", observed)
    for line in FAILURES.values():
        assert make().handle(line) == UNIFORM
    assert len(secrets) == len(FAILURES)
    assert {len(secret) for secret in secrets} == {32}
    assert len(set(secrets[:10])) == 10, "the substitutes are random"


def test_a_substitute_secret_never_counts_as_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foobar_shared.envelope.decrypt", lambda *_: b"aaa")
    assert make().handle(FAILURES["bad RSA"]) == UNIFORM
    attested(make().handle(encode_request(VALID)), "decrypt")


def test_a_line_over_64_kib_is_refused_before_it_is_parsed() -> None:
    padding = b" " * MAX_LINE
    assert (
        error(make().handle(b'{"getAttestation":{}}' + padding)) == "line longer than 65536 bytes"
    )
    longest = (b'{"getAttestation":{}}' + padding)[: MAX_LINE - 1]
    attested(make().handle(longest + b"\n"), "getAttestation")


def test_errors_are_told() -> None:
    nsm = FakeNsm()
    nsm.answers["Attestation"] = {"Error": "InputTooLarge"}
    answer = error(make(nsm).handle(encode_request(GetAttestationRequest())))
    assert answer == "the Nitro Secure Module failed at Attestation: InputTooLarge"
    request = dataclasses.replace(REQUEST, region="x.attacker.example/")
    answer = error(make().handle(encode_request(request)))
    assert answer == "not a valid AWS region (expected one like us-east-1)"


def test_a_defect_is_one_generic_line_and_logged_by_its_type(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(FakeNsm):
        def exchange(self, _: bytes) -> bytes:
            raise ZeroDivisionError("canary")

    caplog.set_level(logging.DEBUG)
    answer = error(make(Broken()).handle(encode_request(GetAttestationRequest())))
    assert answer == "the enclave failed at this request; its console has the kind"
    assert "defect:ZeroDivisionError" in caplog.text
    assert "canary" not in caplog.text


def test_each_request_is_one_line_of_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ticks = iter([10.0, 10.25])
    service = EnclaveService(
        nsm=FakeNsm().device,
        kms=FakeConnector(FakeSession()),
        key=KEY,
        clock=lambda: next(ticks),
    )
    line = encode_request(VALID)
    answer = service.handle(line)
    (message,) = caplog.messages
    assert message == (
        f"event=request type=decrypt outcome=ok bytes_in={len(line)} bytes_out={len(answer)} "
        "seconds=0.250"
    )


REQUESTS = [encode_request(VALID), encode_request(REQUEST), encode_request(GetAttestationRequest())]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["createKey", "getAttestation", "decrypt", "nonce", "sharedSecret", "ciphertext",
                 "challenge", "region", "accountId", "awsIamRole", "credentials"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)  # fmt: skip
SERVICE = make()


def check_one_line(answer: bytes) -> None:
    assert answer.endswith(b"\n")
    assert answer.count(b"\n") == 1
    assert len(answer) <= MAX_LINE
    parse_response(answer[:-1])


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_and_any_json_get_exactly_one_line(line: bytes) -> None:
    check_one_line(SERVICE.handle(line))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_change_of_a_request_gets_exactly_one_line(data: st.DataObject) -> None:
    line = bytearray(data.draw(st.sampled_from(REQUESTS)))
    start = data.draw(st.integers(0, len(line)))
    line[start : start + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=20))
    check_one_line(SERVICE.handle(bytes(line)))


@settings(max_examples=30, deadline=None)
@given(plaintext=st.binary(max_size=2000))
def test_any_plaintext_has_its_result(plaintext: bytes) -> None:
    fields = attested(SERVICE.handle(encode_request(decrypt_request(plaintext))), "decrypt")
    assert parse_result_claims(fields["user_data"]).result == compute([plaintext])
    assert fields["nonce"] == NONCE

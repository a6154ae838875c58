"""The question to the enclave and to KMS, and the answers that are not to this question."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from foobar_instance import decrypt as module
from foobar_instance.decrypt import decrypt
from foobar_instance.errors import (
    EnclaveRefusedError,
    EnclaveUnavailableError,
    InstanceError,
    KmsError,
    KmsStaleAttestationError,
    NotVerifiedError,
)
from foobar_instance.result import Result
from foobar_instance.trust import Trust
from foobar_shared.addresses import UnixAddress
from foobar_shared.claims import ResultClaims
from foobar_shared.messages import (
    DecryptRequest,
    ErrorResponse,
    encode_response,
    parse_request,
)
from tests.foobar_instance.conftest import Told
from tests.foobar_instance.fakes import MESSAGE, FakeEnclave, FakeKms
from tests.foobar_instance.peers import answering
from tests.support.documents import (
    CLAIMS,
    DEBUG_PCR0,
    KEY_ARN,
    NOW,
    OTHER_PCR0,
    REGION,
    Signer,
)


@pytest.fixture
def kms(monkeypatch: pytest.MonkeyPatch) -> FakeKms:
    fake = FakeKms()
    monkeypatch.setattr(module, "KmsService", fake)
    return fake


@pytest.fixture
def enclave(sign: Signer) -> FakeEnclave:
    return FakeEnclave(sign)


def run(
    enclave: Callable[[bytes], bytes],
    sign: Signer,
    told: Told,
    *,
    trust: Trust | None = None,
    key_document: bytes | None = None,
) -> Result:
    with answering(enclave) as address:
        return decrypt(
            MESSAGE, key_document or sign.key(), address, trust or sign.trust(), told,
            now=lambda: NOW,
        )  # fmt: skip


@contextmanager
def refused(words: str, kind: type[InstanceError] = NotVerifiedError) -> Iterator[None]:
    with pytest.raises(kind, match=words) as caught:
        yield
    assert caught.value.exit_code == (3 if kind is NotVerifiedError else 1)
    assert str(caught.value).isprintable()


def test_the_whole_conversation(
    enclave: FakeEnclave, kms: FakeKms, sign: Signer, told: Told
) -> None:
    result = run(enclave, sign, told)
    assert (result.count, result.key) == (3, CLAIMS)
    assert result.request_line == enclave.lines[1]
    request = parse_request(result.request_line)
    assert isinstance(request, DecryptRequest)
    assert (request.shared_secret, request.nonce, request.ciphertext) == (
        b"enveloped",
        MESSAGE.nonce,
        MESSAGE.ciphertext,
    )
    assert result.attestation.nonce == request.challenge
    assert enclave.requests() == ["GetAttestationRequest", "DecryptRequest"]
    assert kms.region == REGION
    (question,) = kms.asked
    assert question["key_arn"] == KEY_ARN
    assert question["ephemeral_key"] == MESSAGE.ephemeral_key
    assert told.warnings == []
    assert told.steps == [
        f"key attestation verified: {KEY_ARN}",
        "enclave attestation verified",
        "KMS answered: shared secret, encrypted to the enclave",
        "result verified: its attestation is for this very request",
    ]


def test_no_two_nonces_are_alike(
    enclave: FakeEnclave, kms: FakeKms, sign: Signer, told: Told
) -> None:
    run(enclave, sign, told)
    run(enclave, sign, told)
    nonces = set()
    for line in enclave.lines:
        request = parse_request(line)
        nonces.add(request.challenge if isinstance(request, DecryptRequest) else request.nonce)
    assert len(nonces) == len(enclave.lines) == 4
    assert len(kms.asked) == 2


def test_a_key_that_does_not_verify_is_asked_nothing(
    enclave: FakeEnclave, kms: FakeKms, sign: Signer, told: Told
) -> None:
    with refused("the key's attestation does not verify: .*PCR0"):
        run(enclave, sign, told, trust=sign.trust(OTHER_PCR0))
    with refused("the key's attestation does not attest a key"):
        run(enclave, sign, told, key_document=sign())
    assert (enclave.lines, kms.asked) == ([], [])


def test_no_enclave(kms: FakeKms, sign: Signer, told: Told) -> None:
    with refused("no enclave answers", EnclaveUnavailableError):
        decrypt(
            MESSAGE, sign.key(), UnixAddress("/nonexistent"), sign.trust(), told, now=lambda: NOW
        )
    assert kms.asked == []


@pytest.mark.parametrize("nonce", [None, b"", bytes(32)])
def test_an_enclave_attestation_with_another_nonce(
    enclave: FakeEnclave, kms: FakeKms, sign: Signer, told: Told, nonce: bytes | None
) -> None:
    enclave.key_nonce = lambda _: nonce
    with refused("the enclave's attestation does not verify: .*nonce"):
        run(enclave, sign, told)
    assert kms.asked == []


@pytest.mark.parametrize("minutes", [-6, 6])
def test_an_enclave_attestation_of_another_time(
    enclave: FakeEnclave, kms: FakeKms, sign: Signer, told: Told, minutes: int
) -> None:
    enclave.timestamp = NOW + timedelta(minutes=minutes)
    with refused("the enclave's attestation does not verify: .*clock"):
        run(enclave, sign, told)
    assert kms.asked == []


def test_an_enclave_in_debug_mode(
    enclave: FakeEnclave, kms: FakeKms, sign: Signer, told: Told
) -> None:
    enclave.pcr0 = DEBUG_PCR0
    with refused("the enclave's attestation does not verify: .*--allow-debug"):
        run(enclave, sign, told)
    assert kms.asked == []


def test_another_enclave(enclave: FakeEnclave, kms: FakeKms, sign: Signer, told: Told) -> None:
    enclave.pcr0 = OTHER_PCR0
    with refused("the enclave's attestation does not verify: .*PCR0"):
        run(enclave, sign, told)
    assert kms.asked == []


def test_an_enclave_that_is_trusted_but_is_not_the_keys(
    enclave: FakeEnclave, kms: FakeKms, sign: Signer, told: Told
) -> None:
    enclave.pcr0 = OTHER_PCR0
    with refused("the enclave's attestation has another PCR0 than the key's"):
        run(enclave, sign, told, trust=sign.trust(None))
    assert kms.asked == []


def test_a_result_of_another_enclave(
    enclave: FakeEnclave, kms: FakeKms, sign: Signer, told: Told
) -> None:
    enclave.result_pcr0 = OTHER_PCR0
    with refused("the result's attestation does not verify: .*PCR0"):
        run(enclave, sign, told)
    with refused("the result's attestation has another PCR0 than the key's"):
        run(enclave, sign, told, trust=sign.trust(None))
    assert len(kms.asked) == 2


@pytest.mark.parametrize("nonce", [None, b"", bytes(32)])
@pytest.mark.usefixtures("kms")
def test_a_result_with_another_challenge(
    enclave: FakeEnclave, sign: Signer, told: Told, nonce: bytes | None
) -> None:
    enclave.result_nonce = lambda _: nonce
    with refused("the result's attestation does not verify: .*nonce"):
        run(enclave, sign, told)


@pytest.mark.usefixtures("kms")
def test_a_stale_result(enclave: FakeEnclave, sign: Signer, told: Told) -> None:
    enclave.result_timestamp = NOW - timedelta(minutes=6)
    with refused("the result's attestation does not verify: .*clock"):
        run(enclave, sign, told)


@pytest.mark.usefixtures("kms")
def test_a_result_in_debug_mode(enclave: FakeEnclave, sign: Signer, told: Told) -> None:
    enclave.result_pcr0 = DEBUG_PCR0
    with refused("the result's attestation does not verify: .*debug"):
        run(enclave, sign, told, trust=sign.trust(None))


@pytest.mark.usefixtures("kms")
def test_a_result_of_another_request(enclave: FakeEnclave, sign: Signer, told: Told) -> None:
    enclave.result = lambda line: ResultClaims(hashlib.sha256(line + b" ").digest(), 3).encode()
    with refused("the result's attestation is for another request than the one that was sent"):
        run(enclave, sign, told)


@pytest.mark.parametrize(
    "user_data", [None, b"{}", b'{"type":"foobar/decrypt/1"}', CLAIMS.encode()]
)
@pytest.mark.usefixtures("kms")
def test_a_result_that_is_none(
    enclave: FakeEnclave, sign: Signer, told: Told, user_data: bytes | None
) -> None:
    enclave.result = lambda _: user_data
    with refused("the result's attestation holds no result"):
        run(enclave, sign, told)


def test_a_document_too_old_for_kms_is_asked_for_once_more(
    enclave: FakeEnclave, kms: FakeKms, sign: Signer, told: Told
) -> None:
    kms.errors = [KmsStaleAttestationError("too old")]
    assert run(enclave, sign, told).count == 3
    first, second = kms.asked
    assert first["attestation"] != second["attestation"]
    assert enclave.requests() == ["GetAttestationRequest"] * 2 + ["DecryptRequest"]
    assert told.warnings == ["KMS says that the attestation is too old: asking for a new one"]


def test_but_only_once(enclave: FakeEnclave, kms: FakeKms, sign: Signer, told: Told) -> None:
    kms.errors = [KmsStaleAttestationError(f"too old {count}") for count in (1, 2, 3)]
    with refused("too old 2", KmsStaleAttestationError):
        run(enclave, sign, told)
    assert len(kms.asked) == 2
    assert enclave.requests() == ["GetAttestationRequest"] * 2


def test_the_second_document_is_verified_too(
    enclave: FakeEnclave, kms: FakeKms, sign: Signer, told: Told
) -> None:
    kms.errors = [KmsStaleAttestationError("too old")]
    nonces = iter([None])
    enclave.key_nonce = lambda nonce: nonce if len(enclave.lines) == 1 else next(nonces)
    with refused("the enclave's attestation does not verify: .*nonce"):
        run(enclave, sign, told)
    assert len(kms.asked) == 1


def test_another_refusal_of_kms_is_not_asked_again(
    enclave: FakeEnclave, kms: FakeKms, sign: Signer, told: Told
) -> None:
    kms.errors = [KmsError("refused")]
    with refused("refused", KmsError):
        run(enclave, sign, told)
    assert len(kms.asked) == 1
    assert told.warnings == []


@pytest.mark.usefixtures("kms")
def test_the_enclaves_refusal(enclave: FakeEnclave, sign: Signer, told: Told) -> None:
    def refuse(line: bytes) -> bytes:
        if b'"decrypt"' in line:
            return encode_response(ErrorResponse("the message does not decrypt"))
        return enclave(line)

    with refused("refused decrypt: the message does not decrypt", EnclaveRefusedError):
        run(refuse, sign, told)


def test_the_key_of_another_region_is_asked_for_there(
    enclave: FakeEnclave, kms: FakeKms, sign: Signer, told: Told
) -> None:
    claims = replace(CLAIMS, region="eu-west-1", key_arn=KEY_ARN.replace(REGION, "eu-west-1"))
    run(enclave, sign, told, key_document=sign(claims.encode()))
    assert kms.region == "eu-west-1"

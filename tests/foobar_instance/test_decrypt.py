"""The question to the enclave and to KMS, and the answers that are not to this question."""

import hashlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from foobar_instance.decrypt import Decryptor
from foobar_instance.enclaves import Enclaves
from foobar_instance.errors import (
    InstanceError,
    KmsRequestError,
    KmsStaleAttestationError,
    NotVerifiedError,
)
from foobar_instance.proof import AnyMessage, MessagesProof, RequestProof, VerifiedResult
from foobar_instance.trust import Trust
from foobar_shared.addresses import Address
from foobar_shared.claims import ResultClaims, message_hash
from foobar_shared.messages import (
    ComputeMessage,
    ComputeRequest,
    DecryptRequest,
    ErrorResponse,
    GetAttestationRequest,
    encode_response,
    parse_request,
)
from tests.foobar_instance.conftest import Told
from tests.foobar_instance.fakes import MESSAGE, FakeEnclave, FakeKms, compute_claims, sealed
from tests.foobar_instance.peers import answering
from tests.support.documents import (
    CLAIMS,
    DEBUG_PCR0,
    KEY_ARN,
    NOW,
    OTHER_PCR0,
    REGION,
    RESULT,
    Signer,
)


@dataclass
class Job:
    """A decryption whose parts a test may change."""

    sign: Signer
    enclave: FakeEnclave
    kms: FakeKms = field(default_factory=FakeKms)
    told: Told = field(default_factory=Told)
    trust: Trust | None = None
    key_document: bytes | None = None
    message: AnyMessage = MESSAGE

    def run(
        self,
        answer: Callable[[bytes], bytes] | None = None,
        instead_of: Address | None = None,
    ) -> VerifiedResult:
        with (
            answering(answer or self.enclave) as address,
            closing(Enclaves([instead_of or address], self.told)) as enclaves,
        ):
            decryptor = Decryptor(
                self.key_document or self.sign.key(),
                enclaves,
                self.trust or self.sign.trust(),
                self.told,
                now=lambda: NOW,
                kms=self.kms,  # type: ignore[arg-type]
            )
            return decryptor.decrypt(self.message)

    def refused(
        self,
        words: str,
        kind: type[InstanceError] = NotVerifiedError,
        *,
        asked: int = 0,
        answer: Callable[[bytes], bytes] | None = None,
        instead_of: Address | None = None,
    ) -> None:
        """Fails, with KMS asked so many times."""
        with pytest.raises(kind, match=words) as caught:
            self.run(answer, instead_of)
        assert caught.value.exit_code == (3 if kind is NotVerifiedError else 1)
        assert str(caught.value).isprintable()
        assert len(self.kms.asked) == asked


@pytest.fixture
def job(sign: Signer) -> Job:
    return Job(sign, FakeEnclave(sign))


def kinds(enclave: FakeEnclave) -> list[str]:
    return [type(request).__name__ for request in enclave.requests]


def test_the_whole_conversation(job: Job) -> None:
    result = job.run()
    assert (result.result, result.key) == (RESULT, CLAIMS)
    assert isinstance(result.proof, RequestProof)
    assert result.proof.request == job.enclave.lines[1]
    request = parse_request(result.proof.request)
    assert isinstance(request, DecryptRequest)
    assert request == DecryptRequest(
        b"enveloped", MESSAGE.nonce, MESSAGE.ciphertext, result.attestation.nonce
    )
    assert kinds(job.enclave) == ["GetAttestationRequest", "DecryptRequest"]
    assert job.kms.region == REGION
    (question,) = job.kms.asked
    assert question["key_arn"] == KEY_ARN
    assert question["ephemeral_key"] == MESSAGE.ephemeral_key
    assert job.told.warnings == []
    assert job.told.steps == [
        f"key attestation verified: {KEY_ARN}",
        "enclave attestation verified",
        "KMS answered: shared secret, encrypted to the enclave",
        "result verified: its attestation is for this very request",
    ]


def test_no_two_nonces_are_alike(job: Job) -> None:
    job.run()
    job.run()
    nonces = set()
    for request in job.enclave.requests:
        assert isinstance(request, GetAttestationRequest | DecryptRequest)
        nonces.add(request.challenge if isinstance(request, DecryptRequest) else request.nonce)
    assert len(nonces) == len(job.enclave.lines) == 4


def test_the_key_of_another_region_is_asked_for_there(job: Job) -> None:
    claims = replace(CLAIMS, region="eu-west-1", key_arn=KEY_ARN.replace(REGION, "eu-west-1"))
    job.key_document = job.sign(claims.encode())
    job.run()
    assert job.kms.region == "eu-west-1"


def test_a_key_that_does_not_verify_is_asked_nothing(job: Job) -> None:
    job.trust = job.sign.trust(OTHER_PCR0)
    job.refused("the key's attestation does not verify: .*PCR0")
    job.trust, job.key_document = None, job.sign()
    job.refused("the key's attestation does not attest a key")
    assert job.enclave.lines == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key_nonce": lambda _: None}, "nonce"),
        ({"key_nonce": lambda _: bytes(32)}, "nonce"),
        ({"timestamp": NOW - timedelta(minutes=6)}, "clock"),
        ({"timestamp": NOW + timedelta(minutes=6)}, "clock"),
        ({"pcr0": DEBUG_PCR0}, "--allow-debug"),
        ({"pcr0": OTHER_PCR0}, "PCR0"),
    ],
)
def test_an_enclave_attestation_that_does_not_verify(
    job: Job, changes: dict[str, object], words: str
) -> None:
    job.enclave = replace(job.enclave, **changes)  # type: ignore[arg-type]
    job.refused(f"the enclave's attestation does not verify: .*{words}")


def test_an_enclave_that_is_trusted_but_is_not_the_keys(job: Job) -> None:
    job.trust = job.sign.trust(None)
    job.enclave.pcr0 = OTHER_PCR0
    job.refused("the enclave's attestation has another PCR0 than the key's")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"result_nonce": lambda _: None}, "does not verify: .*nonce"),
        ({"result_nonce": lambda _: bytes(32)}, "does not verify: .*nonce"),
        ({"result_timestamp": NOW - timedelta(minutes=6)}, "does not verify: .*clock"),
        ({"result_pcr0": DEBUG_PCR0}, "does not verify: .*debug"),
        ({"result_pcr0": OTHER_PCR0}, "has another PCR0 than the key's"),
        (
            {
                "result": lambda line: ResultClaims(
                    hashlib.sha256(line + b" ").digest(), RESULT
                ).encode()
            },
            "is for another request than the one that was sent",
        ),
        ({"result": lambda _: None}, "holds no result"),
        ({"result": lambda _: b'{"type":"foobar/decrypt/1"}'}, "holds no result"),
        ({"result": lambda _: CLAIMS.encode()}, "holds no result"),
    ],
)
def test_a_result_that_does_not_verify(job: Job, changes: dict[str, object], words: str) -> None:
    job.trust = job.sign.trust(None)
    job.enclave = replace(job.enclave, **changes)  # type: ignore[arg-type]
    job.refused(f"the result's attestation {words}", asked=1)


def test_a_document_too_old_for_kms_is_asked_for_once_more(job: Job) -> None:
    job.kms.errors = [KmsStaleAttestationError("too old")]
    assert job.run().result == RESULT
    first, second = job.kms.asked
    assert first["attestation"] != second["attestation"]
    assert kinds(job.enclave) == ["GetAttestationRequest"] * 2 + ["DecryptRequest"]
    assert "KMS says that the attestation is too old: asking for a new one" in job.told.steps


def test_but_only_once(job: Job) -> None:
    job.kms.errors = [KmsStaleAttestationError(f"too old {count}") for count in (1, 2, 3)]
    job.refused("too old 2", KmsStaleAttestationError, asked=2)
    assert kinds(job.enclave) == ["GetAttestationRequest"] * 2


def test_the_second_document_is_verified_too(job: Job) -> None:
    job.kms.errors = [KmsStaleAttestationError("too old")]
    job.enclave.key_nonce = lambda nonce: nonce if len(job.enclave.lines) == 1 else None
    job.refused("the enclave's attestation does not verify: .*nonce", asked=1)


def test_another_refusal_of_kms_is_not_asked_again(job: Job) -> None:
    job.kms.errors = [KmsRequestError("refused")]
    job.refused("refused", KmsRequestError, asked=1)
    assert job.told.warnings == []


def test_the_enclaves_refusal(job: Job) -> None:
    def refuse(line: bytes) -> bytes:
        if b'"decrypt"' in line:
            return encode_response(ErrorResponse("the message does not decrypt"))
        return job.enclave(line)

    words = "refused decrypt: the message does not decrypt"
    job.refused(words, NotVerifiedError, asked=1, answer=refuse)


def test_the_conversation_about_a_message_of_format_2(job: Job) -> None:
    message = sealed()
    job.message = message
    verified = job.run()
    assert verified.result == RESULT
    assert kinds(job.enclave) == ["GetAttestationRequest", "ComputeRequest"]
    request = job.enclave.requests[1]
    assert request == ComputeRequest(
        KEY_ARN,
        CLAIMS.public_key,
        (ComputeMessage(b"enveloped", message.enc, message.ciphertext),),
        verified.attestation.nonce or b"",
    )
    hashes = (message_hash(message.enc, message.ciphertext),)
    assert isinstance(verified.proof, MessagesProof)
    assert verified.proof.messages == hashes
    (question,) = job.kms.asked
    assert isinstance(question["ephemeral_key"], bytes)
    ephemeral = load_der_public_key(question["ephemeral_key"])
    point = ephemeral.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    assert point == message.enc


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"computation": "foobar/other/1"}, "is of the computation foobar/other/1"),
        ({"key_arn": KEY_ARN[:-1] + "f"}, "is for messages to another key"),
        ({"messages_sha256": bytes(32)}, "is for other messages"),
        ({"messages": 2}, "is for other messages"),
    ],
)
def test_a_result_for_something_else(job: Job, changes: dict[str, object], words: str) -> None:
    job.message = sealed()
    job.enclave.computed = lambda request: replace(
        compute_claims(request),
        **changes,  # type: ignore[arg-type]
    ).encode()
    job.refused(f"the result's attestation {words}", asked=1)


def test_a_computed_result_of_another_type_or_challenge(job: Job) -> None:
    job.message = sealed()
    job.enclave.computed = lambda _: ResultClaims(bytes(32), RESULT).encode()
    job.refused("holds no result", asked=1)
    job.enclave.result_nonce = lambda _: bytes(32)
    job.refused("does not verify: .*nonce", asked=2)

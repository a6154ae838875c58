"""The parent's use of KMS: what is asked, and which answers are refused."""

import io
import socket
from collections.abc import Callable, Iterator
from typing import cast

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.stub import Stubber

from foobar_instance.errors import KmsError, KmsStaleAttestationError
from foobar_instance.kms_client import KmsService
from foobar_shared.addresses import TcpAddress
from foobar_shared.messages import MAX_ENVELOPED_DATA
from foobar_shared.timeouts import REQUEST_IDLE
from tests.support.documents import KEY_ARN, KEY_ID, PUBLIC_KEY, REGION

SDK = {
    "AWS_ACCESS_KEY_ID": "ASIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "canary",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}
QUESTION = {
    "KeyId": KEY_ARN,
    "KeyAgreementAlgorithm": "ECDH",
    "PublicKey": PUBLIC_KEY,
    "Recipient": {
        "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
        "AttestationDocument": b"document",
    },
}


@pytest.fixture(autouse=True)
def sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KMS", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in SDK.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def kms(sdk: None) -> KmsService:  # noqa: ARG001 - only for the order
    return KmsService(REGION)


@pytest.fixture
def stub(kms: KmsService) -> Iterator[Stubber]:
    with Stubber(kms._client) as stubber:
        yield stubber


def derive(kms: KmsService) -> bytes:
    return kms.derive_shared_secret(
        key_arn=KEY_ARN, ephemeral_key=PUBLIC_KEY, attestation=b"document"
    )


def answer(**changes: object) -> dict[str, object]:
    fields: dict[str, object] = {
        "KeyId": KEY_ARN,
        "CiphertextForRecipient": b"enveloped",
        "KeyAgreementAlgorithm": "ECDH",
        "KeyOrigin": "AWS_KMS",
    }
    return {name: value for name, value in (fields | changes).items() if value is not None}


def refused(kms: KmsService, words: str) -> KmsError:
    with pytest.raises(KmsError, match=words) as caught:
        derive(kms)
    assert caught.value.exit_code == 1
    assert str(caught.value).isprintable()
    return caught.value


def test_what_is_asked_and_answered(kms: KmsService, stub: Stubber) -> None:
    stub.add_response("derive_shared_secret", answer(), QUESTION)
    assert derive(kms) == b"enveloped"
    stub.assert_no_pending_responses()


def test_the_longest_enveloped_data(kms: KmsService, stub: Stubber) -> None:
    longest = bytes(MAX_ENVELOPED_DATA)
    stub.add_response("derive_shared_secret", answer(CiphertextForRecipient=longest))
    assert derive(kms) == longest


@pytest.mark.parametrize("enveloped", [None, b"", bytes(MAX_ENVELOPED_DATA + 1)])
def test_no_usable_enveloped_data(kms: KmsService, stub: Stubber, enveloped: bytes | None) -> None:
    stub.add_response("derive_shared_secret", answer(CiphertextForRecipient=enveloped))
    refused(kms, "without CiphertextForRecipient")


@pytest.mark.parametrize("enveloped", [None, b"enveloped"])
def test_a_readable_shared_secret_is_never_used(
    kms: KmsService, stub: Stubber, enveloped: bytes | None
) -> None:
    given = answer(CiphertextForRecipient=enveloped, SharedSecret=b"canary")
    stub.add_response("derive_shared_secret", given)
    error = refused(kms, "readable shared secret: it is not used")
    assert "canary" not in str(error)


@pytest.mark.parametrize("key", [None, KEY_ID, KEY_ARN.replace("1111", "2222")])
def test_an_answer_for_another_key(kms: KmsService, stub: Stubber, key: str | None) -> None:
    stub.add_response("derive_shared_secret", answer(KeyId=key))
    refused(kms, "another key")


def test_a_refusal_is_told_with_code_message_and_hint(kms: KmsService, stub: Stubber) -> None:
    stub.add_client_error("derive_shared_secret", "AccessDeniedException", "User: x is not ...")
    error = refused(kms, "refused DeriveSharedSecret: AccessDeniedException: User: x is not")
    assert "key policy allows this only" in str(error)
    assert not isinstance(error, KmsStaleAttestationError)


def test_another_refusal_has_no_such_hint(kms: KmsService, stub: Stubber) -> None:
    stub.add_client_error("derive_shared_secret", "NotFoundException", "Key does not exist")
    assert str(refused(kms, "NotFoundException")).endswith("Key does not exist")


def test_a_hostile_refusal_is_cleaned(kms: KmsService, stub: Stubber) -> None:
    stub.add_client_error("derive_shared_secret", "Bad\x1b[2JCode", "two\nlines\x07" + "x" * 5000)
    assert len(str(refused(kms, "Bad"))) < 1200


@pytest.mark.parametrize(
    "message",
    [
        "The attestation document is too old.",
        "The provided attestation document is older than 5 minutes",
        "Attestation document has expired",
        "Stale attestation",
        "The age of the attestation document exceeds the limit",
        "The attestation\ndocument must not be more than five minutes in the past",
    ],
)
def test_a_document_that_kms_holds_to_be_too_old(
    kms: KmsService, stub: Stubber, message: str
) -> None:
    stub.add_client_error("derive_shared_secret", "ValidationException", message)
    assert isinstance(refused(kms, "ValidationException"), KmsStaleAttestationError)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("ValidationException", "The attestation document is malformed"),
        ("ValidationException", "The attestation document's public key has an unusable threshold"),
        ("AccessDeniedException", "because no resource-based policy allows the action"),
        ("AccessDeniedException", "Recipient attestation PCR0 does not match the key policy"),
        ("ExpiredTokenException", "The security token included in the request is expired"),
        ("ThrottlingException", "You have exceeded the rate of a minute"),
        ("ValidationException", ""),
    ],
)
def test_other_refusals_are_not_about_age(
    kms: KmsService, stub: Stubber, code: str, message: str
) -> None:
    stub.add_client_error("derive_shared_secret", code, message)
    assert type(refused(kms, code)) is KmsError


def test_the_regions_own_endpoint() -> None:
    assert KmsService(REGION).address == TcpAddress(f"kms.{REGION}.amazonaws.com", 443)
    assert KmsService("cn-north-1").address.host == "kms.cn-north-1.amazonaws.com.cn"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://localhost:4566", TcpAddress("localhost", 4566)),
        ("https://kms.example.com", TcpAddress("kms.example.com", 443)),
        ("https://[::1]:4566/path", TcpAddress("::1", 4566)),
    ],
)
def test_another_endpoint(monkeypatch: pytest.MonkeyPatch, url: str, address: TcpAddress) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", url)
    assert KmsService(REGION).address == address


@pytest.mark.parametrize("url", ["not a url", "localhost", "https://", "https://localhost:99999"])
def test_an_endpoint_that_is_none(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", url)
    with pytest.raises(KmsError, match="the AWS SDK can't be set up"):
        _ = KmsService(REGION).address


def test_a_profile_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    with pytest.raises(KmsError, match="the AWS SDK can't be set up"):
        KmsService(REGION)


def test_kms_that_can_not_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{bound.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", url)
        refused(KmsService(REGION), "KMS can't be asked: .*127.0.0.1")


def test_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    error = refused(KmsService(REGION), "KMS can't be asked: Unable to locate credentials")
    assert "run this on the parent instance" in str(error)


def test_all_attempts_end_before_the_enclave_drops_an_idle_connection(kms: KmsService) -> None:
    settings = vars(kms._client.meta.config)
    attempt = settings["connect_timeout"] + settings["read_timeout"]
    assert attempt * settings["retries"]["total_max_attempts"] + 5 < REQUEST_IDLE


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b'{"CiphertextForRecipient": 5}'),
        (200, b"[]"),
        (200, b"\xff"),
        (200, b"[" * 100_000),
        (400, b'{"__type": 5, "message": [1]}'),
    ],
)
def test_an_answer_that_is_none_of_kms(kms: KmsService, status: int, body: bytes) -> None:
    class Raw(io.BytesIO):
        def stream(self) -> Iterator[bytes]:
            yield self.read()

    def send(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        return AWSResponse(request.url, status, HTTPHeaders(), Raw(body))

    kms._client.meta.events.register("before-send.kms", cast("Callable[..., None]", send))
    refused(kms, "KMS can't be asked, or its answer can't be read|without CiphertextForRecipient")


def test_an_endpoint_with_a_port_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://localhost:99999")
    refused(KmsService(REGION), r"KMS can't be asked.*\(ValueError\): see AWS_ENDPOINT_URL_KMS")

"""The parent's use of KMS, over loopback HTTP: what is asked, and which answers are refused."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from foobar_instance.errors import KmsRequestError, KmsStaleAttestationError
from foobar_instance.kms_client import KmsService
from foobar_shared.addresses import TcpAddress
from foobar_shared.encoding import to_base64
from foobar_shared.messages import MAX_ENVELOPED_DATA
from tests.foobar_instance.peers import HttpRequest, http_answering
from tests.support.documents import KEY_ARN, KEY_ID, PUBLIC_KEY, REGION

SDK = {
    "AWS_ACCESS_KEY_ID": "ASIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "canary",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}
Refuse = Callable[..., str]


@dataclass
class FakeKms:
    """Answers every request with `status` and `body`."""

    status: int = 200
    body: bytes = b""
    asked: list[HttpRequest] = field(default_factory=list)

    def __call__(self, request: HttpRequest) -> tuple[int, bytes]:
        self.asked.append(request)
        return self.status, self.body

    def answers(self, **changes: bytes | str | None) -> None:
        fields = {
            "KeyId": KEY_ARN,
            "CiphertextForRecipient": b"enveloped",
            "KeyAgreementAlgorithm": "ECDH",
            "KeyOrigin": "AWS_KMS",
        } | changes
        self.body = json.dumps(
            {
                name: to_base64(value) if isinstance(value, bytes) else value
                for name, value in fields.items()
                if value is not None
            }
        ).encode()

    def refuses(self, code: str, message: str) -> None:
        self.status = 400
        self.body = json.dumps({"__type": code, "message": message}).encode()


@pytest.fixture(autouse=True)
def sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KMS", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in SDK.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def kms(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKms]:
    fake = FakeKms()
    with http_answering(fake) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", url)
        yield fake


def derive() -> bytes:
    return KmsService(REGION).derive_shared_secret(
        key_arn=KEY_ARN, ephemeral_key=PUBLIC_KEY, attestation=b"document"
    )


def refused(words: str, kind: type[KmsRequestError] = KmsRequestError) -> str:
    with pytest.raises(KmsRequestError, match=words) as caught:
        derive()
    assert type(caught.value) is kind
    assert caught.value.exit_code == 1
    text = str(caught.value)
    assert text.isprintable()
    assert "canary" not in text
    return text


@pytest.mark.parametrize("enveloped", [b"enveloped", bytes(MAX_ENVELOPED_DATA)])
def test_what_is_asked_and_answered(kms: FakeKms, enveloped: bytes) -> None:
    kms.answers(CiphertextForRecipient=enveloped)
    assert derive() == enveloped
    (request,) = kms.asked
    assert request.headers["X-Amz-Target"] == "TrentService.DeriveSharedSecret"
    assert json.loads(request.body) == {
        "KeyId": KEY_ARN,
        "KeyAgreementAlgorithm": "ECDH",
        "PublicKey": to_base64(PUBLIC_KEY),
        "Recipient": {
            "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
            "AttestationDocument": to_base64(b"document"),
        },
        "DryRun": False,
    }


def check_derive() -> None:
    KmsService(REGION).check_derive(
        key_arn=KEY_ARN, ephemeral_key=PUBLIC_KEY, attestation=b"document"
    )


def test_a_dry_run_succeeds_where_kms_says_so(kms: FakeKms) -> None:
    kms.refuses("DryRunOperationException", "The request would have succeeded")
    check_derive()
    assert json.loads(kms.asked[0].body)["DryRun"] is True
    kms.refuses("NotFoundException", "Key does not exist")
    with pytest.raises(KmsRequestError, match="NotFoundException: Key does not exist"):
        check_derive()
    kms.status = 200
    kms.answers()
    with pytest.raises(KmsRequestError, match="it knows no DryRun"):
        check_derive()


@pytest.mark.parametrize("enveloped", [None, b"", bytes(MAX_ENVELOPED_DATA + 1)])
def test_no_usable_enveloped_data(kms: FakeKms, enveloped: bytes | None) -> None:
    kms.answers(CiphertextForRecipient=enveloped)
    refused("without CiphertextForRecipient")


@pytest.mark.parametrize("enveloped", [None, b"enveloped"])
@pytest.mark.threat("E")
def test_a_readable_shared_secret_is_never_used(kms: FakeKms, enveloped: bytes | None) -> None:
    kms.answers(CiphertextForRecipient=enveloped, SharedSecret=b"canary")
    refused("readable shared secret: it is not used")


@pytest.mark.parametrize("key", [None, KEY_ID, KEY_ARN.replace("1111", "2222")])
@pytest.mark.threat("4")
def test_an_answer_for_another_key(kms: FakeKms, key: str | None) -> None:
    kms.answers(KeyId=key)
    refused("another key")


def test_a_refusal_is_told_with_code_message_and_hint(kms: FakeKms) -> None:
    kms.refuses("AccessDeniedException", "User: x is not ...")
    text = refused("refused DeriveSharedSecret: AccessDeniedException: User: x is not")
    assert "key policy allows this only" in text
    kms.refuses("NotFoundException", "Key does not exist")
    assert refused("NotFoundException").endswith("Key does not exist")


def test_a_hostile_refusal_is_cleaned(kms: FakeKms) -> None:
    kms.refuses("Bad\x1b[2JCode", "two\nlines\x07" + "x" * 5000)
    assert len(refused("Bad")) < 1200


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
def test_a_document_that_is_too_old_for_kms(kms: FakeKms, message: str) -> None:
    kms.refuses("ValidationException", message)
    refused("ValidationException", KmsStaleAttestationError)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("ValidationException", "The attestation document is malformed"),
        ("ValidationException", "The attestation document's public key has an unusable threshold"),
        ("AccessDeniedException", "because no resource-based policy allows the action"),
        ("AccessDeniedException", "Recipient attestation PCR0 does not match the key policy"),
        ("ExpiredTokenException", "The security token included in the request is expired"),
        ("ValidationException", ""),
    ],
)
def test_other_refusals_are_not_about_age(kms: FakeKms, code: str, message: str) -> None:
    kms.refuses(code, message)
    refused(code)


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
def test_an_answer_that_is_none_of_kms(kms: FakeKms, status: int, body: bytes) -> None:
    kms.status, kms.body = status, body
    refused("KMS can't be asked, or its answer can't be read|without CiphertextForRecipient")


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


@pytest.mark.parametrize("setting", ["use_fips_endpoint", "use_dualstack_endpoint"])
def test_the_enclave_talks_to_the_standard_endpoint_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, setting: str
) -> None:
    variable = f"AWS_{setting.upper()}"
    monkeypatch.setenv(variable, "true")
    with pytest.raises(KmsRequestError, match=f"^{variable} is set.* without it"):
        _ = KmsService(REGION).address
    monkeypatch.setenv(variable, "false")
    assert KmsService(REGION).address.host == f"kms.{REGION}.amazonaws.com"
    monkeypatch.delenv(variable)
    (tmp_path / "config").write_text(f"[default]\n{setting} = true\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(KmsRequestError, match=f"^{setting} in the AWS config file is set"):
        _ = KmsService(REGION).address
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setattr("time.sleep", lambda _: None)
    refused("KMS can't be asked: Failed to connect to proxy")  # tried all the same


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_ENDPOINT_URL_KMS", "not a url"),
        ("AWS_ENDPOINT_URL_KMS", "localhost"),
        ("AWS_ENDPOINT_URL_KMS", "https://"),
        ("AWS_ENDPOINT_URL_KMS", "https://localhost:99999"),
        ("AWS_PROFILE", "nobody"),
    ],
)
def test_a_configuration_that_is_unusable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(KmsRequestError, match="the AWS SDK can't be set up"):
        _ = KmsService(REGION).address


ARN = "arn:aws:iam::123456789012:role/x"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("web_identity_token_file = /no/token\nrole_arn = " + ARN, "/no/token: No such file"),
        ("credential_process = /no/program", "/no/program: No such file"),
        ("credential_process = /bin/echo canary", "JSONDecodeError in its config"),
        ("aws_access_key_id = x", "Partial credentials"),
        ("source_profile = nobody\nrole_arn = " + ARN, "nobody"),
    ],
)
@pytest.mark.parametrize("profile", [None, "mine"])
def test_a_source_of_credentials_that_fails_is_named(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    config: str,
    words: str,
    profile: str | None,
) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    if profile:
        monkeypatch.setenv("AWS_PROFILE", profile)
    name = f"profile {profile}" if profile else "default"
    (tmp_path / "config").write_text(f"[{name}]\n{config}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    text = refused(f"(set up|KMS can't be asked): .*({words})")
    assert text.endswith(f"(profile {profile or 'default'})")


def test_a_role_that_may_not_be_assumed_is_no_refusal_of_kms(
    kms: FakeKms, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("canary")
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", ARN)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", os.environ["AWS_ENDPOINT_URL_KMS"])
    kms.status = 403
    kms.body = b"<E><Error><Code>AccessDenied</Code><Message>no</Message></Error></E>"
    refused("^KMS can't be asked: .*AccessDenied.* AssumeRoleWithWebIdentity operation: no")


def test_kms_that_can_not_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{bound.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", url)
        refused("KMS can't be asked: .*127.0.0.1")


@pytest.mark.parametrize("source", ["the role", "a profile"])
@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_never_sees_the_roles_credentials(
    kms: FakeKms, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, source: str
) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    if source == "a profile":
        role = (
            "role_arn = arn:aws:iam::111122223333:role/x\ncredential_source = Ec2InstanceMetadata"
        )
        (tmp_path / "config").write_text(f"[default]\n{role}\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    seen: list[str] = []

    def answer(request: HttpRequest) -> tuple[int, bytes]:
        seen.append(request.path)
        return 404, b""

    with http_answering(answer) as metadata:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata)
        with http_answering(kms) as proxy:
            monkeypatch.setenv(name, proxy)
            refused("KMS can't be asked|can't be set up")
    assert "/latest/api/token" in seen
    assert kms.asked == []


def test_kms_is_asked_through_the_environments_proxy(
    kms: FakeKms, monkeypatch: pytest.MonkeyPatch
) -> None:
    kms.answers()
    monkeypatch.setenv("HTTP_PROXY", os.environ["AWS_ENDPOINT_URL_KMS"])
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://kms.example.com")
    assert derive() == b"enveloped"


def test_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    text = refused("KMS can't be asked: Unable to locate credentials")
    assert "run this on the parent instance" in text

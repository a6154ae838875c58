from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from emulator.identity import AccessKey, CredentialStore, Instance, Principal
from emulator.kms_fault import KmsFault
from emulator.kms_server import MAX_BODY, KmsServer
from emulator.sigv4 import Authenticator, HttpRequest
from emulator.tls import ServerIdentity, create_server_identity

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

INSTANCE = Instance()
Connect: TypeAlias = "Callable[[AccessKey], KMSClient]"


class Clock:
    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


class Backend:
    """Answers every request with its caller; fails on a request for the key `defect`."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Principal]] = []

    def perform(
        self, operation: str, members: Mapping[str, object], caller: Principal
    ) -> Mapping[str, object]:
        self.requests.append((operation, caller))
        key_id = members["KeyId"]
        if key_id == "defect":
            raise RuntimeError("a defect")
        if key_id == "none":
            raise KmsFault("NotFoundException", "no such key")
        return {"Policy": caller.arn}


@pytest.fixture(scope="module")
def identity() -> ServerIdentity:
    return create_server_identity(host_names=["kms.us-east-1.amazonaws.com"], now=datetime.now(UTC))


@pytest.fixture(scope="module")
def ca_file(identity: ServerIdentity, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    path.write_bytes(identity.ca_certificate)
    return path


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def credentials() -> CredentialStore:
    return CredentialStore()


@pytest.fixture
def session(credentials: CredentialStore) -> AccessKey:
    return credentials.session(INSTANCE.role_session(), now=datetime.now(UTC))


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def server(
    identity: ServerIdentity,
    credentials: CredentialStore,
    clock: Clock,
    backend: Backend,
    tmp_path: Path,
) -> Iterator[KmsServer]:
    authenticator = Authenticator(credentials, region="us-east-1", clock=clock)
    tls = identity.server_context(tmp_path)
    with KmsServer(authenticator, backend.perform, tls=tls) as server:
        yield server


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")


def client(
    server: KmsServer, ca_file: Path, key: AccessKey, region: str = "us-east-1"
) -> KMSClient:
    return boto3.client(
        "kms",
        region_name=region,
        endpoint_url=server.endpoint,
        verify=str(ca_file),
        aws_access_key_id=key.access_key_id,
        aws_secret_access_key=key.secret_access_key,
        aws_session_token=key.token,
        config=Config(retries={"total_max_attempts": 1}),
    )


@pytest.fixture
def connect(server: KmsServer, ca_file: Path) -> Connect:
    return lambda key: client(server, ca_file, key)


def refusal(client: KMSClient, key_id: str = "k") -> str:
    with pytest.raises(ClientError) as refused:
        client.get_key_policy(KeyId=key_id)
    return str(refused.value.response["Error"]["Code"])


def altered(key: AccessKey, **changes: str | None) -> AccessKey:
    parts = {
        "access_key_id": key.access_key_id,
        "secret_access_key": key.secret_access_key,
        "token": key.token,
    } | changes
    return AccessKey(
        key.principal,
        str(parts["access_key_id"]),
        str(parts["secret_access_key"]),
        token=parts["token"],
    )


def test_the_caller_is_the_principal_of_the_access_key(
    server: KmsServer, ca_file: Path, session: AccessKey, backend: Backend
) -> None:
    answer = client(server, ca_file, session).get_key_policy(KeyId="k")
    assert answer["Policy"] == (
        "arn:aws:sts::123456789012:assumed-role/"
        "aws-nitro-enclave-foobar-iam-role/i-0123456789abcdef0"
    )
    assert backend.requests == [("GetKeyPolicy", session.principal)]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"access_key_id": "ASIAAAAAAAAAAAAAAAAA"}, "UnrecognizedClientException"),
        ({"token": "another"}, "UnrecognizedClientException"),
        ({"token": None}, "UnrecognizedClientException"),
        ({"secret_access_key": "another"}, "InvalidSignatureException"),
        ({"access_key_id": "lower"}, "IncompleteSignatureException"),
    ],
)
def test_other_credentials_are_refused(
    connect: Connect,
    session: AccessKey,
    backend: Backend,
    changes: dict[str, str | None],
    code: str,
) -> None:
    assert refusal(connect(altered(session, **changes))) == code
    assert backend.requests == []


def test_expired_credentials_are_refused(
    server: KmsServer, ca_file: Path, credentials: CredentialStore
) -> None:
    past = datetime.now(UTC) - timedelta(hours=7)
    key = credentials.new_session(INSTANCE.role_session(), now=past)
    assert refusal(client(server, ca_file, key)) == "ExpiredTokenException"


@pytest.mark.parametrize("minutes", [-6, 6])
def test_an_old_or_early_signature_is_refused(
    server: KmsServer, ca_file: Path, session: AccessKey, clock: Clock, minutes: int
) -> None:
    clock.ahead = timedelta(minutes=minutes)
    assert refusal(client(server, ca_file, session)) == "InvalidSignatureException"


class Recorded:
    """A request as botocore signs it, to be altered on its way."""

    def __init__(self, server: KmsServer, ca_file: Path, key: AccessKey) -> None:
        self.headers: dict[str, str] = {}
        self.body = b""
        kms = client(server, ca_file, key)
        kms.meta.events.register("before-send.kms", self._record)
        kms.get_key_policy(KeyId="k")

    def _record(self, request: object, **_: object) -> None:
        headers = getattr(request, "headers", {})
        self.headers = {
            name.lower(): value.decode() if isinstance(value, bytes) else str(value)
            for name, value in headers.items()
        }
        self.body = getattr(request, "body", b"")
        self.headers["host"] = getattr(request, "url", "").split("/")[2]


@pytest.fixture
def authenticator(credentials: CredentialStore, clock: Clock) -> Authenticator:
    return Authenticator(credentials, region="us-east-1", clock=clock)


@pytest.fixture
def recorded(server: KmsServer, ca_file: Path, session: AccessKey) -> Recorded:
    return Recorded(server, ca_file, session)


def authentication_error(authenticator: Authenticator, headers: dict[str, str], body: bytes) -> str:
    with pytest.raises(KmsFault) as refused:
        authenticator.caller(HttpRequest(headers, body))
    return refused.value.code


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1", "IncompleteSignatureException"),
        ("/kms/", "/s3/", "InvalidSignatureException"),
        ("/us-east-1/", "/eu-west-1/", "InvalidSignatureException"),
        ("/20", "/19", "InvalidSignatureException"),
        ("host;", "", "InvalidSignatureException"),
        ("x-amz-date;", "", "InvalidSignatureException"),
        ("x-amz-target", "x-amz-other", "InvalidSignatureException"),
    ],
)
def test_the_authorization_header_is_read_strictly(
    authenticator: Authenticator, recorded: Recorded, old: str, new: str, code: str
) -> None:
    authorization = recorded.headers["authorization"]
    assert old in authorization
    headers = recorded.headers | {"authorization": authorization.replace(old, new)}
    assert authentication_error(authenticator, headers, recorded.body) == code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"x-amz-target": "TrentService.Decrypt"}, "InvalidSignatureException"),
        ({"host": "kms.example"}, "InvalidSignatureException"),
        ({"content-type": "text/plain"}, "InvalidSignatureException"),
        ({"x-amz-extra": "1"}, "InvalidSignatureException"),
        ({"x-amz-security-token": "x"}, "UnrecognizedClientException"),
        ({"x-amz-date": "20200101T000000Z"}, "InvalidSignatureException"),
        ({"x-amz-date": None}, "InvalidSignatureException"),
        ({"host": None}, "InvalidSignatureException"),
        ({"x-amz-target": None}, "InvalidSignatureException"),
        ({"authorization": None}, "MissingAuthenticationTokenException"),
    ],
)
def test_no_header_can_be_changed_added_or_removed(
    authenticator: Authenticator,
    recorded: Recorded,
    session: AccessKey,
    changes: dict[str, str | None],
    code: str,
) -> None:
    genuine = HttpRequest(recorded.headers, recorded.body)
    assert authenticator.caller(genuine) == session.principal
    altered = {
        name: text for name, text in (recorded.headers | changes).items() if text is not None
    }
    assert authentication_error(authenticator, altered, recorded.body) == code


def test_the_body_cannot_be_changed(authenticator: Authenticator, recorded: Recorded) -> None:
    code = authentication_error(authenticator, recorded.headers, recorded.body + b" ")
    assert code == "InvalidSignatureException"


def test_a_body_that_was_not_signed_is_refused(
    authenticator: Authenticator, recorded: Recorded, session: AccessKey
) -> None:
    names = ("host", "content-type", "x-amz-target")
    headers = {name: recorded.headers[name] for name in names}
    request = AWSRequest(
        method="POST",
        url=f"https://{headers['host']}/",
        headers=headers | {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"},
        data=recorded.body,
    )
    key = Credentials(session.access_key_id, session.secret_access_key, session.token)
    SigV4Auth(key, "kms", "us-east-1").add_auth(request)
    signed = {name.lower(): str(value) for name, value in request.headers.items()}
    code = authentication_error(authenticator, signed, recorded.body)
    assert code == "InvalidSignatureException"


CALL = {"X-Amz-Target": "TrentService.ListKeys", "Content-Type": "application/x-amz-json-1.1"}


def raw(
    server: KmsServer, identity: ServerIdentity, request: str, headers: dict[str, str]
) -> tuple[int, str]:
    context = ssl.create_default_context(cadata=identity.ca_certificate.decode())
    connection = http.client.HTTPSConnection("localhost", server.port, context=context, timeout=10)
    method, path = request.split()
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    status, code = response.status, response.getheader("x-amzn-ErrorType", "")
    response.read()
    connection.close()
    return status, code or ""


@pytest.mark.parametrize(
    ("request_line", "headers", "expected"),
    [
        ("POST /", {}, (400, "UnknownOperationException")),
        ("POST /", CALL, (400, "MissingAuthenticationTokenException")),
        ("POST /", CALL | {"Content-Type": "text/plain"}, (400, "UnknownOperationException")),
        ("POST /", {"X-Amz-Target": "Other.Decrypt"}, (400, "UnknownOperationException")),
        (
            "POST /",
            {"Content-Length": str(MAX_BODY + 1)},
            (413, "RequestEntityTooLargeException"),
        ),
        ("POST /", {"Content-Length": "x"}, (413, "RequestEntityTooLargeException")),
        ("GET /", {}, (501, "")),
    ],
)
def test_other_requests_are_refused(
    server: KmsServer,
    identity: ServerIdentity,
    request_line: str,
    headers: dict[str, str],
    expected: tuple[int, str],
) -> None:
    assert raw(server, identity, request_line, headers) == expected


def test_a_defect_is_an_internal_error(
    server: KmsServer, ca_file: Path, session: AccessKey, capfd: pytest.CaptureFixture[str]
) -> None:
    assert refusal(client(server, ca_file, session), "defect") == "KMSInternalException"
    assert "RuntimeError: a defect" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "kms.us-east-1.amazonaws.com"])
def test_the_certificate_names_the_server_and_nobody_else(
    server: KmsServer, identity: ServerIdentity, name: str
) -> None:
    context = ssl.create_default_context(cadata=identity.ca_certificate.decode())
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain:
        # One client that says nothing keeps no other waiting.
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=10) as second,
            context.wrap_socket(second, server_hostname=name) as connection,
        ):
            assert connection.version() in ("TLSv1.2", "TLSv1.3")
        with pytest.raises(ssl.SSLCertVerificationError):
            context.wrap_socket(plain, server_hostname="kms.eu-west-1.amazonaws.com")

"""The real SDK against a KMS of our own, over TLS, on a unix socket."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import botocore.session
import pytest

from foobar_enclave.errors import KmsError
from foobar_enclave.kms import AMAZON_ROOTS, MAX_RESPONSE, KmsConnector, KmsSession
from foobar_shared.timeouts import KMS_EXCHANGE
from tests.foobar_enclave.fake_kms import HOST, Authority, FakeKms, refusal
from tests.foobar_enclave.fakes import (
    CREDENTIALS,
    KEY_ARN,
    REGION,
    metadata,
    no_connection,
    public_key,
)


class Clock:
    """Seconds that pass when a test says so, or by `step` at each look."""

    def __init__(self, step: float = 0.0) -> None:
        self.now = 0.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def open_session(
    connect: Callable[[], socket.socket],
    ca_file: Path,
    pause: Callable[[float], None] = lambda _: pytest.fail("paused"),
    clock: Callable[[], float] = time.monotonic,
) -> KmsSession:
    connector = KmsConnector(connect, ca_file=ca_file, pause=pause, clock=clock)
    return connector.open(REGION, CREDENTIALS)


def create(session: KmsSession) -> object:
    return session.create_key(policy='{"a policy"}', description="what for")


def test_a_key_is_made_with_exactly_these_members(kms: FakeKms, authority: Authority) -> None:
    session = open_session(kms.connect, authority.ca_file)
    assert create(session) == metadata()
    assert public_key().items() <= session.get_public_key(KEY_ARN).items()
    (_, made, headers), (_, asked, _) = kms.requests
    assert made == {
        "Policy": '{"a policy"}',
        "Description": "what for",
        "KeySpec": "ECC_NIST_P256",
        "KeyUsage": "KEY_AGREEMENT",
        "Origin": "AWS_KMS",
        "MultiRegion": False,
        "BypassPolicyLockoutSafetyCheck": True,
    }
    assert asked == {"KeyId": KEY_ARN}
    assert headers["Host"] == HOST
    assert headers["X-Amz-Security-Token"] == CREDENTIALS.token
    assert f"Credential={CREDENTIALS.access_key_id}/" in headers["Authorization"]
    assert f"/{REGION}/kms/aws4_request" in headers["Authorization"]
    assert headers["User-Agent"].startswith("foobar-enclave ")


def test_an_unknown_authority_is_refused(kms: FakeKms, tmp_path: Path) -> None:
    for ca_file in (Authority.create(tmp_path).ca_file, AMAZON_ROOTS):
        with pytest.raises(KmsError, match="certificate is not valid") as raised:
            create(open_session(kms.connect, ca_file))
        assert not raised.value.may_have_acted
    assert kms.requests == []


def old_tls(context: ssl.SSLContext) -> ssl.SSLContext:
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


@pytest.mark.parametrize(
    ("host", "change", "text"),
    [
        ("kms.eu-west-1.amazonaws.com", lambda tls: tls, "Hostname mismatch"),
        ("amazonaws.com", lambda tls: tls, "Hostname mismatch"),
        (HOST, lambda _: None, "TLS fails"),
        (HOST, old_tls, "TLS fails: TLSV1_ALERT_PROTOCOL_VERSION"),
    ],
    ids=["another region", "a domain above", "no TLS", "TLS 1.1"],
)
@pytest.mark.threat("B")
def test_a_certificate_for_another_host_is_refused(
    host: str, change: Callable[[ssl.SSLContext], ssl.SSLContext | None], text: str, tmp_path: Path
) -> None:
    authority = Authority.create(tmp_path, host)
    with FakeKms(change(authority.tls)) as kms, pytest.raises(KmsError, match=text) as raised:
        create(open_session(kms.connect, authority.ca_file))
    assert not raised.value.may_have_acted
    assert kms.requests == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "fails: Connection refused"),
        (TimeoutError("timed out"), "timed out"),
    ],
)
def test_a_relay_that_does_not_connect_is_told(
    error: OSError, text: str, authority: Authority
) -> None:
    def fail() -> socket.socket:
        raise error

    with pytest.raises(KmsError) as raised:
        create(open_session(fail, authority.ca_file))
    assert not raised.value.may_have_acted
    assert (
        str(raised.value)
        == f"no answer from KMS to CreateKey: the connection over the relay {text}"
    )


def test_a_relay_that_says_nothing_times_out(authority: Authority) -> None:
    near, far = socket.socketpair()
    with far, pytest.raises(KmsError, match="timed out") as raised:
        # Each look at the clock takes almost all of the time that is left to the first.
        create(open_session(lambda: near, authority.ca_file, clock=Clock(KMS_EXCHANGE / 2.002)))
    assert not raised.value.may_have_acted


@pytest.mark.parametrize("seconds", [KMS_EXCHANGE - 0.1, KMS_EXCHANGE + 1])
def test_a_kms_that_does_not_answer_times_out(
    seconds: float, kms: FakeKms, authority: Authority
) -> None:
    done, clock = threading.Event(), Clock()

    def hang(_: int) -> bytes:
        done.wait(5)
        return b""

    kms.answers["CreateKey"] = hang
    session = open_session(kms.connect, authority.ca_file, clock=clock)
    clock.now = seconds
    with pytest.raises(KmsError, match="timed out") as raised:
        create(session)
    done.set()
    assert raised.value.may_have_acted == (seconds < KMS_EXCHANGE)
    assert kms.operations == (["CreateKey"] if seconds < KMS_EXCHANGE else [])


def test_a_relay_that_drips_is_cut_at_the_deadline(kms: FakeKms, authority: Authority) -> None:
    """However soon each byte comes: every read is another look at the clock."""
    clock = Clock()

    def drip(_: int) -> bytes:
        clock.step = KMS_EXCHANGE / 10
        return HEAD + b"Content-Length: 1000000\r\n\r\n" + b" " * 1_000_000

    kms.answers["CreateKey"] = drip
    session = open_session(kms.connect, authority.ca_file, clock=clock)
    with pytest.raises(KmsError, match="timed out"):
        create(session)
    with pytest.raises(KmsError, match="timed out") as raised:
        session.get_public_key(KEY_ARN)
    assert not raised.value.may_have_acted, "no further connection is opened"


def test_a_request_is_not_begun_after_the_deadline(authority: Authority) -> None:
    """However slow the handshake was: every write is another look at the clock."""
    clock, near, far = Clock(), *socket.socketpair()
    taken: list[bytes] = []

    class Slow(socket.socket):
        def detach(self) -> int:  # when TLS begins, after the last look at the clock before it
            clock.now = KMS_EXCHANGE + 1
            return super().detach()

    def serve() -> None:
        with authority.tls.wrap_socket(far, server_side=True) as stream:
            taken.append(stream.recv(1))

    server = threading.Thread(target=serve)
    server.start()
    with pytest.raises(KmsError, match="timed out"):
        create(open_session(lambda: Slow(fileno=near.detach()), authority.ca_file, clock=clock))
    server.join()
    assert taken == [b""]


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CUT_ANSWERS = {
    "nothing": b"",
    "half a body": HEAD + b"Content-Length: 100\r\n\r\n{",
    "half a head": HEAD + b"Content-Le",
    "half of the chunks": HEAD + CHUNKED + b"\r\n2\r\n{}\r\n",
    "no HTTP": b"no HTTP at all\r\n\r\n",
}


@pytest.mark.parametrize("answer", CUT_ANSWERS.values(), ids=CUT_ANSWERS)
def test_a_stream_cut_in_the_answer_is_told_and_not_sent_again(
    answer: bytes, kms: FakeKms, authority: Authority
) -> None:
    kms.answers["CreateKey"] = lambda _: answer
    with pytest.raises(KmsError, match=r"was cut|fails") as raised:
        create(open_session(kms.connect, authority.ca_file))
    assert raised.value.may_have_acted
    assert kms.operations == ["CreateKey"]


@pytest.mark.parametrize(
    ("status", "code"),
    [(500, "KMSInternalException"), (400, "ThrottlingException"), (400, "RequestTimeTooSkewed")],
)
def test_create_key_is_sent_once_whatever_kms_says(
    status: int, code: str, kms: FakeKms, authority: Authority
) -> None:
    kms.answers["CreateKey"] = lambda _: refusal(code, "try again", status)
    with pytest.raises(KmsError) as raised:
        create(open_session(kms.connect, authority.ca_file))
    assert raised.value.code == code
    assert raised.value.may_have_acted == (status >= 500)
    assert kms.operations == ["CreateKey"]


def test_a_redirection_is_not_followed(kms: FakeKms, authority: Authority) -> None:
    kms.answers["CreateKey"] = lambda _: (
        b"HTTP/1.1 307 X\r\nLocation: https://attacker.example/\r\nContent-Length: 0\r\n\r\n"
    )
    with pytest.raises(KmsError, match="refused CreateKey: 307"):
        create(open_session(kms.connect, authority.ca_file))
    assert kms.operations == ["CreateKey"]


def test_an_answer_in_chunks_is_read(kms: FakeKms, authority: Authority) -> None:
    kms.answers["GetPublicKey"] = lambda _: (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'b\r\n{"KeySpec":\r\n4\r\n"x"}\r\n0\r\n\r\n'
    )
    assert open_session(kms.connect, authority.ca_file).get_public_key(KEY_ARN)["KeySpec"] == "x"


def test_an_endless_answer_is_bounded(kms: FakeKms, authority: Authority) -> None:
    kms.answers["CreateKey"] = lambda _: (200, {"x": "y" * MAX_RESPONSE})
    with pytest.raises(KmsError, match="longer than it may be"):
        create(open_session(kms.connect, authority.ca_file))


@pytest.mark.threat("18")
def test_a_fresh_key_that_is_not_known_everywhere_yet_is_asked_for_again(
    kms: FakeKms, authority: Authority
) -> None:
    pauses: list[float] = []
    kms.answers["GetPublicKey"] = lambda count: (
        refusal("NotFoundException", "no such key")
        if count < 4
        else (200, {"KeyId": KEY_ARN, "PublicKey": "AAEC"})
    )
    session = open_session(kms.connect, authority.ca_file, pauses.append)
    assert session.get_public_key(KEY_ARN)["PublicKey"] == b"\0\1\2"
    assert pauses == [0.25, 0.5, 1.0]


@pytest.mark.parametrize(
    ("code", "asked"), [("NotFoundException", 6), ("AccessDeniedException", 1)]
)
def test_asking_again_ends(code: str, asked: int, kms: FakeKms, authority: Authority) -> None:
    pauses: list[float] = []
    kms.answers["GetPublicKey"] = lambda _: refusal(code, "no such key")
    with pytest.raises(KmsError, match=f"KMS refused GetPublicKey: {code}: no such key"):
        open_session(kms.connect, authority.ca_file, pauses.append).get_public_key(KEY_ARN)
    assert len(kms.operations) == len(pauses) + 1 == asked
    assert sum(pauses) < 10


def test_kms_speaks_in_its_own_words_cleaned_and_bounded(
    kms: FakeKms, authority: Authority
) -> None:
    echo = f"{CREDENTIALS.token} {CREDENTIALS.secret_access_key} {CREDENTIALS.access_key_id}"
    kms.answers["CreateKey"] = lambda _: refusal(
        "InvalidSignatureException", f"\x1b[31mline\nline {echo} " + "x" * 5000
    )
    with pytest.raises(KmsError) as raised:
        create(open_session(kms.connect, authority.ca_file))
    text = str(raised.value)
    assert text.startswith(
        "KMS refused CreateKey: InvalidSignatureException: "
        "?[31mline?line [secret] [secret] [secret] xxx"
    )
    assert text.isprintable()
    assert len(text) < 600
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


HOSTILE_CONFIG = """
[default]
region = eu-west-1
endpoint_url = https://attacker.example
use_fips_endpoint = true
ca_bundle = /nonexistent
retry_mode = adaptive
max_attempts = 9
[profile hostile]
endpoint_url = https://attacker.example
credential_process = /bin/false
"""


@pytest.fixture
def hostile_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything the SDK, urllib3 or OpenSSL would listen to."""
    home = tmp_path / "home"
    models = home / ".aws" / "models"
    models.mkdir(parents=True)
    (models / "endpoints.json").write_text("{}")
    (models / "partitions.json").write_text("{}")
    (home / ".aws" / "config").write_text(HOSTILE_CONFIG)
    (home / ".aws" / "credentials").write_text("[default]\naws_access_key_id = AKIAHOSTILE\n")
    for name, value in {
        "HOME": str(home),
        "AWS_PROFILE": "hostile",
        "AWS_DEFAULT_PROFILE": "absent",
        "AWS_CONFIG_FILE": str(home / ".aws" / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(home / ".aws" / "credentials"),
        "AWS_DATA_PATH": str(models),
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "AKIAHOSTILE",
        "AWS_SECRET_ACCESS_KEY": "hostile",
        "AWS_SESSION_TOKEN": "hostile",
        "AWS_ENDPOINT_URL": "https://attacker.example",
        "AWS_ENDPOINT_URL_KMS": "https://attacker.example",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false",
        "AWS_CA_BUNDLE": "/nonexistent",
        "REQUESTS_CA_BUNDLE": "/nonexistent",
        "CURL_CA_BUNDLE": "/nonexistent",
        "SSL_CERT_FILE": str(home / "cert.pem"),
        "SSL_CERT_DIR": str(home),
        "SSLKEYLOGFILE": str(tmp_path / "keys.log"),
        "AWS_USE_FIPS_ENDPOINT": "true",
        "AWS_USE_DUALSTACK_ENDPOINT": "true",
        "AWS_MAX_ATTEMPTS": "9",
        "AWS_RETRY_MODE": "adaptive",
        "AWS_DEFAULTS_MODE": "auto",
        "AWS_CSM_ENABLED": "true",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/",
        "AWS_SDK_UA_APP_ID": "hostile",
        "AWS_EXECUTION_ENV": "hostile",
        "HTTPS_PROXY": "http://127.0.0.1:1",
        "HTTP_PROXY": "http://127.0.0.1:1",
        "ALL_PROXY": "http://127.0.0.1:1",
        "https_proxy": "http://127.0.0.1:1",
        "all_proxy": "http://127.0.0.1:1",
        "NO_PROXY": "",
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.mark.threat("3")
def test_weakness_3_no_environment_or_file_has_any_effect(
    kms: FakeKms,
    authority: Authority,
    hostile_environment: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, no_connection)
    session = open_session(kms.connect, authority.ca_file)
    create(session)
    session.get_public_key(KEY_ARN)
    kms.answers["CreateKey"] = lambda _: refusal("KMSInternalException", "once", 500)
    with pytest.raises(KmsError):
        create(session)
    assert kms.operations == ["CreateKey", "GetPublicKey", "CreateKey"]
    for _, _, headers in kms.requests:
        assert headers["Host"] == HOST
        assert f"Credential={CREDENTIALS.access_key_id}/" in headers["Authorization"]
        assert f"/{REGION}/kms/" in headers["Authorization"]
        assert "hostile" not in str(headers)
    # The SDK opens the file for a connection of its own, which it never makes.
    log = hostile_environment / "keys.log"
    assert not log.exists() or "CLIENT" not in log.read_text()


def test_an_endpoint_other_than_the_regions_is_not_used(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = botocore.session.Session.create_client

    def elsewhere(*arguments: object, **keywords: object) -> object:
        return real(*arguments, **keywords | {"endpoint_url": "https://kms.attacker.example"})  # type: ignore[arg-type]

    monkeypatch.setattr(botocore.session.Session, "create_client", elsewhere)
    with pytest.raises(KmsError, match=f"endpoint of KMS in us-east-1 is not https://{HOST}"):
        open_session(no_connection, authority.ca_file)


@pytest.mark.parametrize(
    "region", ["zz-foo-9", "us-east-99", "us-iso-east-9", "us-isob-east-9", "cn-east-9"]
)
def test_a_region_without_kms_is_refused(region: str) -> None:
    with pytest.raises(KmsError, match="is no region of partition aws"):
        KmsConnector(no_connection).open(region, CREDENTIALS)


def test_the_sdk_logs_nothing() -> None:
    for name in ("boto3", "botocore.auth", "botocore.endpoint", "urllib3.connectionpool"):
        assert logging.getLogger(name).getEffectiveLevel() == logging.CRITICAL

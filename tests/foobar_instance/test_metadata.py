"""Instance metadata over loopback HTTP, read by the AWS SDK's own fetchers."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from foobar_instance.errors import MetadataError
from foobar_instance.metadata import InstanceIdentity, read_identity
from foobar_shared.messages import Credentials
from tests.support.documents import ACCOUNT, REGION, ROLE

TOKEN = "the-session-token"
ZONE = "/latest/meta-data/placement/availability-zone/"
INFO = "/latest/meta-data/iam/info"
ROLES = "/latest/meta-data/iam/security-credentials/"
PROFILE = f"arn:aws:iam::{ACCOUNT}:instance-profile/foobar"


def credentials(**changes: str) -> str:
    fields = {
        "Code": "Success",
        "AccessKeyId": "ASIAEXAMPLE",
        "SecretAccessKey": "canary-secret",
        "Token": "canary-token",
        "Expiration": "2099-01-01T00:00:00Z",
    }
    return json.dumps(fields | changes)


class Service(ThreadingHTTPServer):
    """A metadata service whose pages a test may change; `token` None knows only version 1."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.token: str | None = TOKEN
        self.requests: list[str] = []
        self.pages = {
            ZONE: f"{REGION}b",
            INFO: json.dumps({"Code": "Success", "InstanceProfileArn": PROFILE}),
            ROLES: ROLE,
            ROLES + ROLE: credentials(),
        }


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_PUT(self) -> None:
        self.server.requests.append(f"PUT {self.path}")
        self._answer(self.server.token)

    def do_GET(self) -> None:
        self.server.requests.append(f"GET {self.path}")
        if self.headers.get("x-aws-ec2-metadata-token") != self.server.token:
            self.send_error(401)
            return
        self._answer(self.server.pages.get(self.path))

    def _answer(self, text: str | None) -> None:
        if text is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: object) -> None:
        """Tests are quiet."""


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    for name in ("AWS_PROFILE", "AWS_EC2_METADATA_DISABLED", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    with Service() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv(
            "AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{server.server_port}"
        )
        yield server
        server.shutdown()
        thread.join()


def refused(words: str, role: str = ROLE) -> None:
    with pytest.raises(MetadataError, match=words) as caught:
        read_identity(role)
    assert caught.value.exit_code == 1
    assert "canary" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_region_account_role_and_credentials(service: Service) -> None:
    assert read_identity(ROLE) == InstanceIdentity(
        REGION, ACCOUNT, ROLE, Credentials("ASIAEXAMPLE", "canary-secret", "canary-token")
    )
    assert "PUT /latest/api/token" in service.requests


def test_another_partition(service: Service) -> None:
    service.pages[ZONE] = "us-gov-west-1a"
    service.pages[INFO] = json.dumps(
        {"InstanceProfileArn": PROFILE.replace("arn:aws:", "arn:aws-us-gov:")}
    )
    assert read_identity(ROLE).region == "us-gov-west-1"


def test_the_identity_shows_no_credentials(service: Service) -> None:
    assert service.pages[ROLES + ROLE].count("canary") == 2
    assert "canary" not in repr(read_identity(ROLE))


def test_no_service(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
    refused("no instance metadata service answers: run this on the parent EC2 instance")
    assert service.requests == []


def test_a_service_that_is_switched_off(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    refused("instance metadata")
    assert service.requests == []


def test_version_1_alone_is_refused(service: Service) -> None:
    service.token = None
    refused("with IMDSv2 enabled")
    assert not any(request.startswith("GET") for request in service.requests)


def test_no_region(service: Service) -> None:
    del service.pages[ZONE]
    refused("no instance metadata service answers")


@pytest.mark.parametrize("zone", ["evil.example.com/a", "us-east-1@evil.coma", "a", "\x1b[2Ja"])
def test_a_region_that_is_none(service: Service, zone: str) -> None:
    service.pages[ZONE] = zone
    refused("instance metadata")


def test_no_instance_profile(service: Service) -> None:
    del service.pages[INFO]
    refused("this instance has no IAM role: attach an instance profile")


@pytest.mark.parametrize(
    "arn",
    [
        "",
        "arn:aws:iam::12345678901:instance-profile/foobar",
        f"arn:aws:iam::{ACCOUNT}:instance-profile/",
        f"arn:aws:iam::{ACCOUNT}:role/foobar",
        f"x{PROFILE}",
    ],
)
def test_a_profile_that_is_none(service: Service, arn: str) -> None:
    service.pages[INFO] = json.dumps({"InstanceProfileArn": arn})
    refused("names no instance profile")


@pytest.mark.parametrize("page", ["", "{", "[]", "1", "<html>"])
def test_a_malformed_profile(service: Service, page: str) -> None:
    service.pages[INFO] = page
    refused("instance metadata can't be read")


def test_the_role_of_another_partition(service: Service) -> None:
    service.pages[INFO] = json.dumps({"InstanceProfileArn": PROFILE.replace("aws:", "aws-cn:", 1)})
    refused("another partition")


def test_another_role(service: Service) -> None:
    refused(f"the instance's role is {ROLE}, not other: say so with --role", role="other")
    assert service.requests


def test_a_role_name_with_control_characters(service: Service) -> None:
    service.pages |= {ROLES: "a\x1bb", ROLES + "a\x1bb": credentials()}
    service.pages |= {ROLES + "a%1Bb": credentials()}
    refused("instance metadata|the instance's role is a b, not")


def test_no_role(service: Service) -> None:
    del service.pages[ROLES]
    refused("the instance's role has no credentials")


def test_no_credentials(service: Service) -> None:
    del service.pages[ROLES + ROLE]
    refused(f"no credentials: check that the role {ROLE} exists")


@pytest.mark.parametrize(
    "page",
    [
        "",
        "{",
        "{}",
        '{"Code": "AssumeRoleUnauthorizedAccess", "Message": "canary"}',
        '{"Code": "Success", "AccessKeyId": "canary"}',
    ],
)
def test_malformed_credentials(service: Service, page: str) -> None:
    service.pages[ROLES + ROLE] = page
    refused("credentials")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_PROFILE", "nobody"),
        ("AWS_CONFIG_FILE", "broken"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "no url"),
    ],
)
def test_a_configuration_that_the_sdk_can_not_use(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken").write_text("junk[[")
    monkeypatch.setenv(name, value)
    refused("the AWS SDK can't be set up")
    assert service.requests == []

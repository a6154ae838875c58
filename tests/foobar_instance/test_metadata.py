"""Instance metadata over loopback HTTP, read by the AWS SDK's own fetchers."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from foobar_instance.errors import MetadataError
from foobar_instance.metadata import InstanceIdentity, read_identity
from foobar_shared.messages import Credentials
from tests.foobar_instance.peers import HttpRequest, http_answering
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


class Service:
    """A metadata service whose pages a test may change; `token` None knows only version 1."""

    def __init__(self) -> None:
        self.token: str | None = TOKEN
        self.requests: list[str] = []
        self.pages = {
            ZONE: f"{REGION}b",
            INFO: json.dumps({"Code": "Success", "InstanceProfileArn": PROFILE}),
            ROLES: ROLE,
            ROLES + ROLE: credentials(),
        }

    def __call__(self, request: HttpRequest) -> tuple[int, bytes]:
        self.requests.append(f"{request.method} {request.path}")
        if request.method == "PUT":
            page = self.token
        elif request.headers.get("x-aws-ec2-metadata-token") != self.token:
            return 401, b""
        else:
            page = self.pages.get(request.path)
        return (404, b"") if page is None else (200, page.encode())


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    for name in ("AWS_PROFILE", "AWS_EC2_METADATA_DISABLED", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    service = Service()
    with http_answering(service) as url:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
        yield service


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


@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"])
def test_a_proxy_never_sees_the_credentials(
    service: Service, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    proxy = Service()
    with http_answering(proxy) as url:
        monkeypatch.setenv(name, url)
        monkeypatch.setenv("no_proxy", "example.com")
        read_identity(ROLE)
    assert service.requests
    assert proxy.requests == []
    assert os.environ["no_proxy"] == "example.com"


@pytest.mark.parametrize(
    ("region", "partition"),
    [
        ("us-gov-west-1", "aws-us-gov"),
        ("eusc-de-east-1", "aws-eusc"),
        ("eu-isoe-west-1", "aws-iso-e"),
    ],
)
def test_another_partition(service: Service, region: str, partition: str) -> None:
    service.pages[ZONE] = f"{region}a"
    service.pages[INFO] = json.dumps(
        {"InstanceProfileArn": PROFILE.replace("arn:aws:", f"arn:{partition}:")}
    )
    assert read_identity(ROLE).region == region


def test_the_identity_shows_no_credentials(service: Service) -> None:
    assert service.pages[ROLES + ROLE].count("canary") == 2
    assert "canary" not in repr(read_identity(ROLE))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1", "no instance metadata service"),
        ("AWS_EC2_METADATA_DISABLED", "true", "instance metadata"),
        ("AWS_PROFILE", "nobody", "the AWS SDK can't be set up"),
        ("AWS_CONFIG_FILE", "broken", "the AWS SDK can't be set up: .*broken"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "no url", "the AWS SDK can't be set up"),
    ],
)
def test_a_service_that_is_not_there_or_switched_off_or_misconfigured(
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    value: str,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken").write_text("junk[[")
    monkeypatch.setenv(name, value)
    refused(words)
    assert service.requests == []


@pytest.mark.threat("18")
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
        "arn:aws:iam::12345678901:instance-profile/foobar",
        f"arn:aws:iam::{ACCOUNT}:instance-profile/",
        f"arn:aws:iam::{ACCOUNT}:role/foobar",
        f"x{PROFILE}",
    ],
)
def test_a_profile_that_is_none(service: Service, arn: str) -> None:
    service.pages[INFO] = json.dumps({"InstanceProfileArn": arn})
    refused("names no instance profile")


@pytest.mark.parametrize("page", ["", "{", "[]", "{}", '{"InstanceProfileArn": 1}'])
def test_a_malformed_profile(service: Service, page: str) -> None:
    service.pages[INFO] = page
    refused("instance metadata can't be read")


def test_the_role_of_another_partition(service: Service) -> None:
    service.pages[INFO] = json.dumps({"InstanceProfileArn": PROFILE.replace("aws:", "aws-cn:", 1)})
    refused("another partition")


@pytest.mark.threat("18")
def test_another_role(service: Service) -> None:
    refused(f"the instance's role is {ROLE}, not other: say so with --role", role="other")
    assert service.requests


def test_a_role_name_with_control_characters(service: Service) -> None:
    service.pages |= {ROLES: "a\x1bb", ROLES + "a\x1bb": credentials()}
    service.pages |= {ROLES + "a%1Bb": credentials()}
    refused("instance metadata|the instance's role is a b, not")


@pytest.mark.parametrize("page", [ROLES, ROLES + ROLE])
def test_no_role_or_no_credentials(service: Service, page: str) -> None:
    del service.pages[page]
    refused(f"the instance's role has no credentials: check that the role {ROLE} exists")


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

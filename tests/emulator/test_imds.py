from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from botocore.utils import InstanceMetadataFetcher, InstanceMetadataRegionFetcher

from emulator.identity import CredentialStore, Instance
from emulator.imds import ImdsServer

TOKEN = "X-aws-ec2-metadata-token"
TTL = "X-aws-ec2-metadata-token-ttl-seconds"
TOKENS = "/latest/api/token"
ZONE = "/latest/meta-data/placement/availability-zone"
ROLES = "/latest/meta-data/iam/security-credentials"


class Metadata(ImdsServer):
    """The server, its clock and a client of it."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)
        self.credentials = CredentialStore()
        # Another loopback address, as a server at AWS's own address is one too.
        super().__init__(
            Instance(), self.credentials, clock=lambda: self.now, address=("127.0.0.2", 0)
        )

    def request(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        connection = http.client.HTTPConnection(self.endpoint.removeprefix("http://"), timeout=10)
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        body = response.read().decode()
        connection.close()
        return response.status, body

    def token(self, ttl: str = "21600") -> str:
        status, token = self.request("PUT", TOKENS, {TTL: ttl})
        assert status == 200
        return token

    def get(self, path: str, token: str | None = None) -> tuple[int, str]:
        return self.request("GET", path, {TOKEN: self.token() if token is None else token})


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.2")
    with Metadata() as server:
        yield server


def test_botocore_fetches_the_credentials_that_kms_knows(metadata: Metadata) -> None:
    fetched = InstanceMetadataFetcher(
        base_url=metadata.endpoint, config={"ec2_metadata_v1_disabled": True}
    ).retrieve_iam_role_credentials()
    assert fetched["role_name"] == Instance().role
    key = metadata.credentials.find(fetched["access_key"])
    assert key is not None
    assert (key.secret_access_key, key.token) == (fetched["secret_key"], fetched["token"])
    assert key.principal.principal_arns == {Instance().role_arn}
    assert key.expires == metadata.now + timedelta(hours=6)
    assert fetched["secret_key"] not in repr(key)
    assert fetched["token"] not in repr(key)


def test_botocore_finds_the_region(metadata: Metadata) -> None:
    fetcher = InstanceMetadataRegionFetcher(base_url=metadata.endpoint)
    assert fetcher.retrieve_region() == "us-east-1"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/latest/meta-data/placement/region", "us-east-1"),
        (ZONE, "us-east-1a"),
        ("/latest/meta-data/instance-id", "i-0123456789abcdef0"),
        (f"{ROLES}/", "aws-nitro-enclave-foobar-iam-role"),
    ],
)
def test_answers_text(metadata: Metadata, path: str, text: str) -> None:
    assert metadata.get(path) == (200, text)


def test_iam_info_names_the_account(metadata: Metadata) -> None:
    status, body = metadata.get("/latest/meta-data/iam/info")
    info = json.loads(body)
    assert (status, info["Code"]) == (200, "Success")
    assert info["InstanceProfileArn"] == (
        "arn:aws:iam::123456789012:instance-profile/aws-nitro-enclave-foobar-iam-role"
    )


def test_no_page_without_a_token_that_is_valid(metadata: Metadata) -> None:
    for token in ("", "x"):
        assert metadata.get(ZONE, token) == (401, "")
    token = metadata.token("60")
    metadata.now += timedelta(seconds=59)
    assert metadata.get(ZONE, token)[0] == 200
    metadata.now += timedelta(seconds=1)
    assert metadata.get(ZONE, token) == (401, "")


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        *(("PUT", TOKENS, {TTL: ttl}, 400) for ttl in ("0", "21601", "-1", "1.5", "", "9" * 11)),
        ("PUT", TOKENS, {TTL: "60", "X-Forwarded-For": "203.0.113.7"}, 403),
        ("PUT", ZONE, {TTL: "60"}, 404),
        ("GET", f"{ROLES}/another-role", {}, 404),
        ("GET", "/latest/user-data", {}, 404),
    ],
)
def test_other_requests_are_refused(
    metadata: Metadata, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    token = {TOKEN: metadata.token()}
    assert metadata.request(method, path, token | headers) == (status, "")

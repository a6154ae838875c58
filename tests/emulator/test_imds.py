from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from botocore.utils import InstanceMetadataFetcher, InstanceMetadataRegionFetcher

from emulator.identity import CredentialStore, Instance
from emulator.imds import ImdsServer

TOKEN = "X-aws-ec2-metadata-token"
TTL = "X-aws-ec2-metadata-token-ttl-seconds"
START = datetime.now(UTC).replace(microsecond=0)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


class Client:
    def __init__(self, port: int) -> None:
        self._port = port

    def request(self, method: str, path: str, **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        connection.request(
            method, path, headers={name.replace("_", "-"): text for name, text in headers.items()}
        )
        response = connection.getresponse()
        body = response.read().decode()
        connection.close()
        return response.status, body

    def token(self, ttl: str = "21600") -> str:
        status, token = self.request("PUT", "/latest/api/token", **{TTL: ttl})
        assert status == 200
        return token

    def get(self, path: str, token: str) -> tuple[int, str]:
        return self.request("GET", path, **{TOKEN: token})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def credentials() -> CredentialStore:
    return CredentialStore()


@pytest.fixture
def server(clock: Clock, credentials: CredentialStore) -> Iterator[ImdsServer]:
    with ImdsServer(Instance(), credentials, clock=clock) as server:
        yield server


@pytest.fixture
def client(server: ImdsServer) -> Client:
    return Client(server.port)


def test_it_is_served_at_the_address_that_is_asked_for(
    clock: Clock, credentials: CredentialStore
) -> None:
    with ImdsServer(Instance(), credentials, clock=clock, address=("127.0.0.2", 0)) as server:
        assert server.endpoint == f"http://127.0.0.2:{server.port}"
        with socket.create_connection(("127.0.0.2", server.port), timeout=10):
            pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), timeout=10)


def test_botocore_fetches_the_credentials_that_kms_knows(
    server: ImdsServer, credentials: CredentialStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    fetched = InstanceMetadataFetcher(
        base_url=server.endpoint, config={"ec2_metadata_v1_disabled": True}
    ).retrieve_iam_role_credentials()
    assert fetched["role_name"] == Instance().role
    key = credentials.find(fetched["access_key"])
    assert key is not None
    assert (key.secret_access_key, key.token) == (fetched["secret_key"], fetched["token"])
    assert key.principal.principal_arns == {Instance().role_arn}


def test_botocore_finds_the_region(server: ImdsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    fetcher = InstanceMetadataRegionFetcher(base_url=server.endpoint)
    assert fetcher.retrieve_region() == "us-east-1"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/latest/meta-data/placement/region", "us-east-1"),
        ("/latest/meta-data/placement/availability-zone", "us-east-1a"),
        ("/latest/meta-data/instance-id", "i-0123456789abcdef0"),
        ("/latest/meta-data/iam/security-credentials/", "aws-nitro-enclave-foobar-iam-role"),
    ],
)
def test_answers_text(client: Client, path: str, text: str) -> None:
    assert client.get(path, client.token()) == (200, text)


def test_iam_info_names_the_account(client: Client) -> None:
    status, body = client.get("/latest/meta-data/iam/info", client.token())
    info = json.loads(body)
    assert (status, info["Code"]) == (200, "Success")
    assert info["InstanceProfileArn"] == (
        "arn:aws:iam::123456789012:instance-profile/aws-nitro-enclave-foobar-iam-role"
    )


@pytest.mark.parametrize("token", ["", "x", "9999999999.000~" + "0" * 64, "~"])
def test_no_page_without_a_token(client: Client, token: str) -> None:
    status, body = client.get("/latest/meta-data/instance-id", token)
    assert status == 401
    assert "i-0" not in body


def test_a_token_expires(client: Client, clock: Clock) -> None:
    token = client.token("60")
    clock.now += timedelta(seconds=59)
    assert client.get("/latest/meta-data/instance-id", token)[0] == 200
    clock.now += timedelta(seconds=1)
    assert client.get("/latest/meta-data/instance-id", token)[0] == 401


@pytest.mark.parametrize("ttl", ["0", "21601", "-1", "1.5", "", "99999999999"])
def test_a_token_needs_a_valid_time_to_live(client: Client, ttl: str) -> None:
    assert client.request("PUT", "/latest/api/token", **{TTL: ttl})[0] == 400


def test_no_token_through_a_proxy(client: Client) -> None:
    headers = {TTL: "60", "X-Forwarded-For": "203.0.113.7"}
    assert client.request("PUT", "/latest/api/token", **headers)[0] == 403


def test_other_paths_do_not_exist(client: Client) -> None:
    token = client.token()
    assert client.get("/latest/meta-data/iam/security-credentials/another-role", token)[0] == 404
    assert client.get("/latest/user-data", token)[0] == 404
    assert client.request("PUT", "/latest/meta-data/instance-id", **{TTL: "60"})[0] == 404


def test_credentials_last_six_hours_and_earlier_ones_stay_valid(
    client: Client, credentials: CredentialStore
) -> None:
    path = f"/latest/meta-data/iam/security-credentials/{Instance().role}"
    first, second = (json.loads(client.get(path, client.token())[1]) for _ in range(2))
    assert datetime.fromisoformat(first["Expiration"]) == START + timedelta(hours=6)
    for answer in (first, second):
        assert credentials.find(answer["AccessKeyId"]) is not None


def test_secrets_are_in_no_text_form(credentials: CredentialStore) -> None:
    key = credentials.session(Instance().role_session(), now=START)
    assert key.secret_access_key not in repr(key)
    assert key.token is not None
    assert key.token not in repr(key)

"""KMS's HTTP: what is no request of its API, and whom its certificate names."""

from __future__ import annotations

import http.client
import json
import socket
import ssl

import pytest

from emulator import Emulator
from emulator.kms_server import MAX_BODY

CALL = {"X-Amz-Target": "TrentService.ListKeys", "Content-Type": "application/x-amz-json-1.1"}


@pytest.fixture
def port(nitro_emulator: Emulator) -> int:
    return int(nitro_emulator.environment["AWS_ENDPOINT_URL_KMS"].rpartition(":")[2])


@pytest.fixture
def trust(nitro_emulator: Emulator) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=nitro_emulator.ca_file)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


@pytest.mark.parametrize(
    ("method", "headers", "expected"),
    [
        ("POST", {}, (400, "UnknownOperationException")),
        ("POST", CALL, (400, "MissingAuthenticationTokenException")),
        ("POST", CALL | {"Content-Type": "text/plain"}, (400, "UnknownOperationException")),
        ("POST", {"X-Amz-Target": "Other.Decrypt"}, (400, "UnknownOperationException")),
        ("POST", {"Content-Length": str(MAX_BODY + 1)}, (413, "RequestEntityTooLargeException")),
        ("POST", {"Content-Length": "x"}, (413, "RequestEntityTooLargeException")),
        ("GET", {}, (501, None)),
    ],
)
def test_other_requests_are_refused(
    port: int,
    trust: ssl.SSLContext,
    method: str,
    headers: dict[str, str],
    expected: tuple[int, str | None],
) -> None:
    connection = http.client.HTTPSConnection("localhost", port, context=trust, timeout=10)
    connection.request(method, "/", headers=headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    code = json.loads(body)["__type"] if method == "POST" else None
    assert (response.status, code) == expected


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "kms.us-east-1.amazonaws.com"])
def test_the_certificate_names_the_server_and_nobody_else(
    port: int, trust: ssl.SSLContext, name: str
) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as silent:
        # A client that says nothing keeps no other waiting.
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            trust.wrap_socket(plain, server_hostname=name) as connection,
        ):
            assert connection.version() in ("TLSv1.2", "TLSv1.3")
        with pytest.raises(ssl.SSLCertVerificationError):
            trust.wrap_socket(silent, server_hostname="kms.eu-west-1.amazonaws.com")

"""Requests that botocore signs, and what may not happen to them on their way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from emulator.identity import AccessKey, CredentialStore, Instance
from emulator.kms_fault import KmsFault
from emulator.sigv4 import Authenticator

NOW = datetime.now(UTC)
INSTANCE = Instance()
CREDENTIALS = CredentialStore()
SESSION = CREDENTIALS.session(INSTANCE.role_session(), now=NOW)
ROOT = CREDENTIALS.long_term_key(INSTANCE.root())
BODY = b'{"KeyId":"k"}'


def signed(
    key: AccessKey = SESSION,
    *,
    access_key_id: str | None = None,
    secret: str | None = None,
    token: str | None = None,
    **further: str,
) -> dict[str, str]:
    headers = {
        "host": "localhost:1",
        "content-type": "application/x-amz-json-1.1",
        "x-amz-target": "TrentService.GetKeyPolicy",
    }
    headers |= {name.replace("_", "-"): text for name, text in further.items()}
    request = AWSRequest("POST", "https://localhost:1/", headers, BODY)
    credentials = Credentials(
        access_key_id or key.access_key_id,
        secret or key.secret_access_key,
        key.token if token is None else token or None,
    )
    SigV4Auth(credentials, "kms", "us-east-1").add_auth(request)
    return {name.lower(): str(text) for name, text in request.headers.items()}


def caller_of(headers: dict[str, str], *, body: bytes = BODY, at: datetime | None = None) -> str:
    """The caller's ARN, or the code of the refusal."""
    clock = lambda: at or datetime.now(UTC)  # noqa: E731
    authenticator = Authenticator(CREDENTIALS, region="us-east-1", clock=clock)
    try:
        return authenticator.caller(headers, body).arn
    except KmsFault as fault:
        return fault.code


def test_the_caller_is_the_principal_of_the_access_key() -> None:
    assert caller_of(signed()) == (
        "arn:aws:sts::123456789012:assumed-role/"
        "aws-nitro-enclave-foobar-iam-role/i-0123456789abcdef0"
    )
    assert caller_of(signed(ROOT)) == "arn:aws:iam::123456789012:root"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"access_key_id": "ASIAAAAAAAAAAAAAAAAA"}, "UnrecognizedClientException"),
        ({"access_key_id": "lower"}, "IncompleteSignatureException"),
        ({"token": "another"}, "UnrecognizedClientException"),
        ({"token": ""}, "UnrecognizedClientException"),
        ({"secret": "another"}, "InvalidSignatureException"),
        # The body's hash is what the body has, whatever was signed.
        ({"x_amz_content_sha256": "UNSIGNED-PAYLOAD"}, "InvalidSignatureException"),
    ],
)
def test_other_credentials_are_refused(changes: dict[str, str], code: str) -> None:
    assert caller_of(signed(SESSION, **changes)) == code


def test_expired_credentials_are_refused() -> None:
    key = CREDENTIALS.session(INSTANCE.role_session(), now=NOW - timedelta(hours=7))
    assert caller_of(signed(key)) == "ExpiredTokenException"


@pytest.mark.parametrize("minutes", [-6, 6])
def test_an_old_or_early_signature_is_refused(minutes: int) -> None:
    at = datetime.now(UTC) + timedelta(minutes=minutes)
    assert caller_of(signed(), at=at) == "InvalidSignatureException"


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
def test_the_authorization_header_is_read_strictly(old: str, new: str, code: str) -> None:
    headers = signed()
    assert old in headers["authorization"]
    headers["authorization"] = headers["authorization"].replace(old, new)
    assert caller_of(headers) == code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"x-amz-target": "TrentService.Decrypt"}, "InvalidSignatureException"),
        ({"host": "kms.example"}, "InvalidSignatureException"),
        ({"content-type": "text/plain"}, "InvalidSignatureException"),
        ({"x-amz-extra": "1"}, "InvalidSignatureException"),
        ({"x-amz-security-token": "x"}, "UnrecognizedClientException"),
        ({"x-amz-date": "20200101T000000Z"}, "InvalidSignatureException"),
        ({"x-amz-date": f"{NOW:%Y%m%d}Tnoon"}, "IncompleteSignatureException"),
        ({"x-amz-date": ""}, "InvalidSignatureException"),
        ({"host": ""}, "InvalidSignatureException"),
        ({"x-amz-target": ""}, "InvalidSignatureException"),
        ({"authorization": ""}, "MissingAuthenticationTokenException"),
    ],
)
def test_no_header_can_be_changed_added_or_removed(changes: dict[str, str], code: str) -> None:
    headers = {name: text for name, text in (signed() | changes).items() if text}
    assert caller_of(headers) == code


def test_the_body_cannot_be_changed() -> None:
    assert caller_of(signed(), body=BODY + b" ") == "InvalidSignatureException"

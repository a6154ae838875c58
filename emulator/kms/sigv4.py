"""Who signed a request: AWS Signature Version 4, checked by signing it again with botocore."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from emulator.clock import Clock
from emulator.identity import AccessKey, CredentialStore, Principal
from emulator.kms.errors import KmsError

MAX_SKEW: Final = timedelta(minutes=5)

_SERVICE: Final = "kms"
_TIME_FORMAT: Final = "%Y%m%dT%H%M%SZ"
_AUTHORIZATION: Final = re.compile(
    r"AWS4-HMAC-SHA256 "
    r"Credential=(?P<key_id>[A-Z0-9]{16,128})/(?P<date>[0-9]{8})/(?P<region>[a-z0-9-]{1,64})/"
    r"(?P<service>[a-z0-9-]{1,64})/aws4_request, ?"
    r"SignedHeaders=(?P<signed>[a-z0-9;-]{1,1024}), ?"
    r"Signature=(?P<signature>[0-9a-f]{64})",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A POST to `/`; header names are in lower case."""

    headers: Mapping[str, str]
    body: bytes


class Authenticator:
    """Finds the caller of a request by its access key, and refuses what that key did not sign."""

    def __init__(self, credentials: CredentialStore, *, region: str, clock: Clock) -> None:
        self._credentials = credentials
        self._region = region
        self._clock = clock

    def caller(self, request: HttpRequest) -> Principal:
        """The principal that signed the request.

        Raises:
            KmsError: MissingAuthenticationTokenException, IncompleteSignatureException,
                InvalidSignatureException, UnrecognizedClientException or ExpiredTokenException.
        """
        authorization = request.headers.get("authorization")
        if authorization is None:
            raise KmsError("MissingAuthenticationTokenException", "Missing Authentication Token")
        parsed = _AUTHORIZATION.fullmatch(authorization)
        if parsed is None:
            raise KmsError(
                "IncompleteSignatureException", "The Authorization header is not of SigV4's form."
            )
        signed = frozenset(parsed["signed"].split(";"))
        self._check_scope(parsed, request, signed)
        key = self._access_key(parsed["key_id"], request)
        expected = _signature(request, key, region=self._region, signed=signed)
        if not hmac.compare_digest(expected, parsed["signature"]):
            raise _invalid_signature(
                "The request signature we calculated does not match the signature you provided. "
                "Check your AWS Secret Access Key and signing method."
            )
        return key.principal

    def _check_scope(
        self, parsed: re.Match[str], request: HttpRequest, signed: frozenset[str]
    ) -> None:
        if parsed["service"] != _SERVICE or parsed["region"] != self._region:
            raise _invalid_signature(
                f"Credential should be scoped to a valid region and service: {self._region}/kms."
            )
        present = {name for name in request.headers if name.startswith("x-amz-")}
        if not {"host", "x-amz-date", "x-amz-target", *present} <= signed <= set(request.headers):
            raise _invalid_signature("Host and every x-amz- header must be a 'SignedHeader'.")
        signed_at = _parse_time(request.headers["x-amz-date"])
        if signed_at.strftime("%Y%m%d") != parsed["date"]:
            raise _invalid_signature("Date in Credential scope does not match X-Amz-Date.")
        if abs(self._clock() - signed_at) > MAX_SKEW:
            raise _invalid_signature(
                f"Signature expired: {request.headers['x-amz-date']} is more than five minutes "
                "from the time of this service."
            )

    def _access_key(self, key_id: str, request: HttpRequest) -> AccessKey:
        key = self._credentials.find(key_id)
        token = request.headers.get("x-amz-security-token", "")
        if key is None or not hmac.compare_digest((key.token or "").encode(), token.encode()):
            raise KmsError(
                "UnrecognizedClientException",
                "The security token included in the request is invalid.",
            )
        if key.expires is not None and self._clock() >= key.expires:
            raise KmsError(
                "ExpiredTokenException", "The security token included in the request is expired"
            )
        return key


def _signature(request: HttpRequest, key: AccessKey, *, region: str, signed: frozenset[str]) -> str:
    headers = {name: value for name, value in request.headers.items() if name in signed}
    # The hash in the signature is of the body that came, whatever the header claims.
    if "x-amz-content-sha256" in headers:
        headers["x-amz-content-sha256"] = hashlib.sha256(request.body).hexdigest()
    aws_request = AWSRequest(
        method="POST", url=f"https://{headers['host']}/", headers=headers, data=request.body
    )
    aws_request.context["timestamp"] = headers["x-amz-date"]
    signer = SigV4Auth(Credentials(key.access_key_id, key.secret_access_key), _SERVICE, region)
    text = signer.string_to_sign(aws_request, signer.canonical_request(aws_request))
    return str(signer.signature(text, aws_request))


def _parse_time(text: str) -> datetime:
    try:
        return datetime.strptime(text, _TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        raise KmsError(
            "IncompleteSignatureException", "Date must be in ISO-8601 'basic format'."
        ) from None


def _invalid_signature(message: str) -> KmsError:
    return KmsError("InvalidSignatureException", message)

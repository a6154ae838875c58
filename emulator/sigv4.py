"""Who signed a request: AWS Signature Version 4, checked by signing it again with botocore."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from emulator.clock import Clock
from emulator.identity import AccessKey, CredentialStore, Principal
from emulator.kms_fault import KmsFault

MAX_SKEW: Final = timedelta(minutes=5)

_AUTHORIZATION: Final = re.compile(
    r"AWS4-HMAC-SHA256 "
    r"Credential=(?P<key_id>[A-Z0-9]{16,128})/(?P<scope>[a-z0-9/-]{1,150})/aws4_request, ?"
    r"SignedHeaders=(?P<signed>[a-z0-9;-]{1,1024}), ?"
    r"Signature=(?P<signature>[0-9a-f]{64})",
    re.ASCII,
)


class Authenticator:
    """Find the caller of a request by its access key, and refuse what that key did not sign."""

    def __init__(self, credentials: CredentialStore, *, region: str, clock: Clock) -> None:
        self._credentials = credentials
        self._region = region
        self._clock = clock

    def caller(self, headers: Mapping[str, str], body: bytes) -> Principal:
        """Return the principal that signed a POST to `/`; header names are in lower case.

        Raises:
            KmsFault: MissingAuthenticationTokenException, IncompleteSignatureException,
                InvalidSignatureException, UnrecognizedClientException or ExpiredTokenException.
        """
        if "authorization" not in headers:
            raise KmsFault("MissingAuthenticationTokenException", "Missing Authentication Token")
        parsed = _AUTHORIZATION.fullmatch(headers["authorization"])
        if parsed is None:
            raise KmsFault(
                "IncompleteSignatureException", "The Authorization header is not of SigV4's form."
            )
        signed = frozenset(parsed["signed"].split(";"))
        present = {name for name in headers if name.startswith("x-amz-")}
        if not {"host", "x-amz-date", "x-amz-target", *present} <= signed <= set(headers):
            raise _invalid_signature("Host and every x-amz- header must be a 'SignedHeader'.")
        date = headers["x-amz-date"]
        if parsed["scope"] != f"{date[:8]}/{self._region}/kms":
            raise _invalid_signature(f"The credential's scope is not {self._region}/kms, today.")
        self._check_date(date)
        key = self._access_key(parsed["key_id"], headers.get("x-amz-security-token", ""))
        signed_headers = {name: headers[name] for name in signed}
        expected = _signature(signed_headers, body, key, self._region)
        if not hmac.compare_digest(expected, parsed["signature"]):
            raise _invalid_signature(
                "The request signature we calculated does not match the signature you provided."
            )
        return key.principal

    def _check_date(self, date: str) -> None:
        try:
            signed_at = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except ValueError:
            raise KmsFault(
                "IncompleteSignatureException", "Date must be in ISO-8601 'basic format'."
            ) from None
        if abs(self._clock() - signed_at) > MAX_SKEW:
            raise _invalid_signature(
                f"Signature expired: {date} is more than five minutes from this clock."
            )

    def _access_key(self, key_id: str, token: str) -> AccessKey:
        key = self._credentials.find(key_id)
        if key is None or not hmac.compare_digest((key.token or "").encode(), token.encode()):
            raise KmsFault("UnrecognizedClientException", "The security token is invalid.")
        if key.expires is not None and self._clock() >= key.expires:
            raise KmsFault("ExpiredTokenException", "The security token is expired.")
        return key


def _signature(headers: dict[str, str], body: bytes, key: AccessKey, region: str) -> str:
    # The hash in the signature is of the body that came, whatever the header claims.
    if "x-amz-content-sha256" in headers:
        headers["x-amz-content-sha256"] = hashlib.sha256(body).hexdigest()
    aws_request = AWSRequest("POST", f"https://{headers['host']}/", headers, body)
    aws_request.context["timestamp"] = headers["x-amz-date"]
    signer = SigV4Auth(Credentials(key.access_key_id, key.secret_access_key), "kms", region)
    text = signer.string_to_sign(aws_request, signer.canonical_request(aws_request))
    return str(signer.signature(text, aws_request))


def _invalid_signature(message: str) -> KmsFault:
    return KmsFault("InvalidSignatureException", message)

"""EC2 instance metadata, version 2 only: a session token first, then what the CLI and SDKs read.

Paths, headers and fields are those of the EC2 user guide ("Use the Instance Metadata Service to
access instance metadata", "Instance identity documents").
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Final

from emulator.clock import Clock, utc_now
from emulator.identity import CredentialStore, Instance
from emulator.loopback import ANY_LOOPBACK_PORT, LoopbackServer, QuietHandler, SocketAddress

MAX_TOKEN_SECONDS: Final = 21600

_TOKEN_PATH: Final = "/latest/api/token"  # noqa: S105 - a path
_TTL_HEADER: Final = "X-aws-ec2-metadata-token-ttl-seconds"
_TOKEN_HEADER: Final = "X-aws-ec2-metadata-token"  # noqa: S105 - a header's name
_PROFILE_ID: Final = "AIPAEXAMPLEEXAMPLE234"


class Imds:
    """What instance metadata says, and to whom."""

    def __init__(
        self, instance: Instance, credentials: CredentialStore, *, clock: Clock = utc_now
    ) -> None:
        self._instance = instance
        self._credentials = credentials
        self._clock = clock
        self._token_key = secrets.token_bytes(32)

    def new_token(self, ttl: str | None) -> str | None:
        """A session token for `ttl` seconds, or None where that is not 1 to 21600."""
        if not ttl or not re.fullmatch(r"[0-9]{1,5}", ttl, re.ASCII):
            return None
        if not 1 <= int(ttl) <= MAX_TOKEN_SECONDS:
            return None
        expires = f"{(self._clock() + timedelta(seconds=int(ttl))).timestamp():.3f}"
        return f"{expires}~{self._token_mac(expires)}"

    def accepts_token(self, token: str | None) -> bool:
        """Whether `token` is one of ours that has not expired."""
        expires, _, mac = (token or "").partition("~")
        if not hmac.compare_digest(self._token_mac(expires).encode(), mac.encode()):
            return False
        return self._clock().timestamp() < float(expires)

    def answer(self, path: str) -> tuple[str, str] | None:
        """Content type and text of what is at `path`, or None; a closing slash changes nothing."""
        page = self._pages().get(path.removesuffix("/"))
        return page() if page else None

    def _pages(self) -> dict[str, Callable[[], tuple[str, str]]]:
        instance = self._instance
        roles = "/latest/meta-data/iam/security-credentials"
        return {
            "/latest/meta-data/instance-id": lambda: _text(instance.instance_id),
            "/latest/meta-data/placement/region": lambda: _text(instance.region),
            "/latest/meta-data/placement/availability-zone": lambda: _text(
                instance.availability_zone
            ),
            "/latest/meta-data/iam/info": self._iam_info,
            roles: lambda: _text(instance.role),
            f"{roles}/{instance.role}": self._role_credentials,
            "/latest/dynamic/instance-identity/document": self._identity_document,
        }

    def _iam_info(self) -> tuple[str, str]:
        return _json(
            {
                "Code": "Success",
                "LastUpdated": _iso(self._clock()),
                "InstanceProfileArn": self._instance.instance_profile_arn,
                "InstanceProfileId": _PROFILE_ID,
            }
        )

    def _role_credentials(self) -> tuple[str, str]:
        now = self._clock()
        key = self._credentials.session(self._instance.role_session(), now=now)
        return _json(
            {
                "Code": "Success",
                "LastUpdated": _iso(key.issued or now),
                "Type": "AWS-HMAC",
                "AccessKeyId": key.access_key_id,
                "SecretAccessKey": key.secret_access_key,
                "Token": key.token,
                "Expiration": _iso(key.expires or now),
            }
        )

    def _identity_document(self) -> tuple[str, str]:
        return _json(
            {
                "accountId": self._instance.account_id,
                "architecture": "x86_64",
                "availabilityZone": self._instance.availability_zone,
                "imageId": "ami-0123456789abcdef0",
                "instanceId": self._instance.instance_id,
                "instanceType": "m5.xlarge",
                "pendingTime": "2026-01-01T00:00:00Z",
                "privateIp": "10.0.0.10",
                "region": self._instance.region,
                "version": "2017-09-30",
            }
        )

    def _token_mac(self, expires: str) -> str:
        return hmac.new(self._token_key, expires.encode(), hashlib.sha256).hexdigest()


class ImdsServer(LoopbackServer):
    """Instance metadata, on a loopback port unless told otherwise, while the context lasts."""

    def __init__(self, imds: Imds, *, address: SocketAddress = ANY_LOOPBACK_PORT) -> None:
        super().__init__(_Handler, address=address)
        self.imds = imds

    @property
    def endpoint(self) -> str:
        """The URL for AWS_EC2_METADATA_SERVICE_ENDPOINT."""
        return f"http://{self.server_address[0]!s}:{self.port}"


class _Handler(QuietHandler):
    server_version = "EC2ws"
    server: ImdsServer

    def do_PUT(self) -> None:  # noqa: N802 - http.server's name
        if self.path != _TOKEN_PATH:
            self._refuse(HTTPStatus.NOT_FOUND)
        elif self.headers.get("X-Forwarded-For") is not None:
            self._refuse(HTTPStatus.FORBIDDEN)  # a token never leaves through a proxy
        else:
            self._issue_token()

    def do_GET(self) -> None:  # noqa: N802 - http.server's name
        if not self.server.imds.accepts_token(self.headers.get(_TOKEN_HEADER)):
            self._refuse(HTTPStatus.UNAUTHORIZED)
        elif (page := self.server.imds.answer(self.path)) is None:
            self._refuse(HTTPStatus.NOT_FOUND)
        else:
            self._send(HTTPStatus.OK, page[1], content_type=page[0])

    def _issue_token(self) -> None:
        ttl = self.headers.get(_TTL_HEADER)
        token = self.server.imds.new_token(ttl)
        if token is None:
            self._refuse(HTTPStatus.BAD_REQUEST)
        else:
            self.send_response(HTTPStatus.OK)
            self.send_header(_TTL_HEADER, ttl or "")
            self._finish(token)

    def _refuse(self, status: HTTPStatus) -> None:
        # The body of a refused request is not read, so nothing may follow it.
        self.close_connection = True
        self._send(status, f"{status.value} - {status.phrase}")

    def _send(self, status: HTTPStatus, text: str, *, content_type: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self._finish(text)

    def _finish(self, text: str) -> None:
        body = text.encode()
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def _text(text: str) -> tuple[str, str]:
    return "text/plain", text


def _json(value: object) -> tuple[str, str]:
    return "application/json", json.dumps(value, indent=2)


def _iso(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")

"""EC2 instance metadata, version 2 only: a session token first, then what the CLI and SDKs read.

Paths, headers and members are those of the EC2 user guide ("Use the Instance Metadata Service to
access instance metadata").
"""

from __future__ import annotations

import json
import re
import secrets
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
_ROLES: Final = "/latest/meta-data/iam/security-credentials"


class ImdsServer(LoopbackServer):
    """Instance metadata, on a loopback port unless told otherwise, while the context lasts."""

    def __init__(
        self,
        instance: Instance,
        credentials: CredentialStore,
        *,
        clock: Clock = utc_now,
        address: SocketAddress = ANY_LOOPBACK_PORT,
    ) -> None:
        super().__init__(_Handler, address)
        self._instance = instance
        self._credentials = credentials
        self._clock = clock
        self._tokens: dict[str, datetime] = {}  # and when they expire

    @property
    def endpoint(self) -> str:
        """Return the URL for AWS_EC2_METADATA_SERVICE_ENDPOINT."""
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}"

    def new_token(self, ttl: str) -> str | None:
        """Return a session token for `ttl` seconds, or None where that is not 1 to 21600."""
        if not re.fullmatch(r"[0-9]{1,5}", ttl, re.ASCII) or not 1 <= int(ttl) <= MAX_TOKEN_SECONDS:
            return None
        token = secrets.token_urlsafe(42)
        self._tokens[token] = self._clock() + timedelta(seconds=int(ttl))
        return token

    def accepts_token(self, token: str) -> bool:
        """Return whether `token` was handed out here and has not expired."""
        expires = self._tokens.get(token)
        return expires is not None and self._clock() < expires

    def page(self, path: str) -> str | dict[str, str] | None:
        """Return the text or JSON object at `path`; a closing slash changes nothing."""
        instance = self._instance
        pages: dict[str, str | dict[str, str]] = {
            "/latest/meta-data/instance-id": instance.instance_id,
            "/latest/meta-data/placement/region": instance.region,
            "/latest/meta-data/placement/availability-zone": f"{instance.region}a",
            "/latest/meta-data/iam/info": {
                "Code": "Success",
                "LastUpdated": _iso(self._clock()),
                "InstanceProfileArn": instance.iam_arn(f"instance-profile/{instance.role}"),
                "InstanceProfileId": "AIPAEXAMPLEEXAMPLE234",
            },
            _ROLES: instance.role,
            f"{_ROLES}/{instance.role}": self._role_credentials(),
        }
        return pages.get(path.removesuffix("/"))

    def _role_credentials(self) -> dict[str, str]:
        now = self._clock()
        key = self._credentials.session(self._instance.role_session(), now=now)
        return {
            "Code": "Success",
            "LastUpdated": _iso(now),
            "Type": "AWS-HMAC",
            "AccessKeyId": key.access_key_id,
            "SecretAccessKey": key.secret_access_key,
            "Token": key.token or "",
            "Expiration": _iso(key.expires or now),
        }


class _Handler(QuietHandler):
    server: ImdsServer

    def do_PUT(self) -> None:  # noqa: N802 - http.server's name
        if self.path != _TOKEN_PATH:
            self._refuse(HTTPStatus.NOT_FOUND)
        elif self.headers.get("X-Forwarded-For") is not None:
            self._refuse(HTTPStatus.FORBIDDEN)  # a token never leaves through a proxy
        elif (token := self.server.new_token(ttl := self.headers.get(_TTL_HEADER, ""))) is None:
            self._refuse(HTTPStatus.BAD_REQUEST)
        else:
            self.reply(200, token.encode(), {_TTL_HEADER: ttl})

    def do_GET(self) -> None:  # noqa: N802 - http.server's name
        if not self.server.accepts_token(self.headers.get(_TOKEN_HEADER, "")):
            self._refuse(HTTPStatus.UNAUTHORIZED)
        elif (page := self.server.page(self.path)) is None:
            self._refuse(HTTPStatus.NOT_FOUND)
        else:
            self.reply(200, (page if isinstance(page, str) else json.dumps(page)).encode(), {})

    def _refuse(self, status: HTTPStatus) -> None:
        self.reply(status, b"", {})


def _iso(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")

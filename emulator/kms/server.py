"""KMS over TLS: AWS JSON 1.1 (X-Amz-Target), signed requests, KMS's form of errors."""

from __future__ import annotations

import re
import secrets
import ssl
import traceback
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from emulator.identity import Principal
from emulator.kms.errors import KmsError
from emulator.kms.fields import Fields
from emulator.kms.sigv4 import Authenticator, HttpRequest
from emulator.loopback import ANY_LOOPBACK_PORT, LoopbackServer, QuietHandler, SocketAddress
from foobar_shared.encoding import to_json

MAX_BODY: Final = 512 * 1024
"""Longest request body in bytes; the largest attestation document is 350 kB in base64."""

_TARGET: Final = re.compile(r"TrentService\.([A-Za-z]{1,64})", re.ASCII)
_CONTENT_TYPE: Final = "application/x-amz-json-1.1"

Perform: TypeAlias = Callable[[str, Fields, Principal], Mapping[str, object]]
"""Takes an operation's name, its request and its caller, and gives the answer's members."""


class KmsServer(LoopbackServer):
    """KMS, on a loopback port unless told otherwise, while the context lasts."""

    def __init__(
        self,
        authenticator: Authenticator,
        perform: Perform,
        *,
        tls: ssl.SSLContext,
        address: SocketAddress = ANY_LOOPBACK_PORT,
    ) -> None:
        super().__init__(_Handler, tls=tls, address=address)
        self._authenticator = authenticator
        self._perform = perform

    @property
    def endpoint(self) -> str:
        """The URL for AWS_ENDPOINT_URL_KMS."""
        return f"https://localhost:{self.port}"

    def answer(self, request: HttpRequest) -> Mapping[str, object]:
        """The members of the answer to a request.

        Raises:
            KmsError: the refusal to send instead.
        """
        target = _TARGET.fullmatch(request.headers.get("x-amz-target", ""))
        if target is None or request.headers.get("content-type") != _CONTENT_TYPE:
            raise KmsError("UnknownOperationException", "")
        caller = self._authenticator.caller(request)
        return self._perform(target[1], Fields.parse(request.body), caller)


class _Handler(QuietHandler):
    server_version = "kms"
    server: KmsServer

    def do_POST(self) -> None:  # noqa: N802 - http.server's name
        try:
            if self.path != "/":
                raise KmsError("UnknownOperationException", "")
            answer = self.server.answer(HttpRequest(self._headers(), self._body()))
        except KmsError as error:
            self._send(
                error.status,
                {"__type": error.code, "message": error.message},
                {"x-amzn-ErrorType": error.code},
            )
        except Exception:  # noqa: BLE001 - shown here, and to the client it is KMS's fault
            traceback.print_exc()
            self._send(500, {"__type": "KMSInternalException", "message": ""}, {})
        else:
            self._send(200, answer, {})

    def _headers(self) -> dict[str, str]:
        return {name.lower(): ",".join(self.headers.get_all(name, [])) for name in self.headers}

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"[0-9]{1,9}", length, re.ASCII) or int(length) > MAX_BODY:
            raise KmsError(
                "RequestEntityTooLargeException", f"At most {MAX_BODY} bytes.", status=413
            )
        return self.rfile.read(int(length))

    def _send(self, status: int, members: Mapping[str, object], headers: Mapping[str, str]) -> None:
        body = to_json(members)
        # Where a request was refused, its body may not have been read.
        self.close_connection = self.close_connection or status != 200
        self.send_response(status)
        self.send_header("Content-Type", _CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-amzn-RequestId", secrets.token_hex(16))
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

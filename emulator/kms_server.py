"""KMS over TLS: AWS JSON 1.1 (X-Amz-Target), signed requests, KMS's form of errors."""

from __future__ import annotations

import re
import secrets
import ssl
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from emulator.identity import Principal
from emulator.kms_fault import KmsFault
from emulator.loopback import ANY_LOOPBACK_PORT, LoopbackServer, QuietHandler, SocketAddress
from emulator.sigv4 import Authenticator
from foobar_shared.encoding import parse_json_object, to_json
from foobar_shared.errors import MessageError

MAX_BODY: Final = 512 * 1024
"""In bytes; the largest attestation document is 350 kB in base64."""

_TARGET: Final = re.compile(r"TrentService\.([A-Za-z]{1,64})", re.ASCII)
_CONTENT_TYPE: Final = "application/x-amz-json-1.1"

Perform: TypeAlias = Callable[[str, Mapping[str, object], Principal], Mapping[str, object]]
"""Takes an operation's name, its members and its caller, and returns the answer's members."""


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
        super().__init__(_Handler, address, tls)
        self._authenticator = authenticator
        self._perform = perform

    @property
    def endpoint(self) -> str:
        """Return the URL for AWS_ENDPOINT_URL_KMS."""
        return f"https://localhost:{self.server_address[1]}"

    def answer(self, headers: Mapping[str, str], body: bytes) -> Mapping[str, object]:
        """Return the members of the answer to a request.

        Raises:
            KmsFault: the refusal to send instead.
        """
        target = _TARGET.fullmatch(headers.get("x-amz-target", ""))
        if target is None or headers.get("content-type") != _CONTENT_TYPE:
            raise KmsFault("UnknownOperationException", "")
        caller = self._authenticator.caller(headers, body)
        try:
            members = parse_json_object(body)
        except MessageError as error:
            raise KmsFault("SerializationException", f"The body is {error}.") from None
        return self._perform(target[1], members, caller)


class _Handler(QuietHandler):
    server: KmsServer

    def do_POST(self) -> None:  # noqa: N802 - http.server's name
        try:
            answer = self.server.answer(self._headers(), self._body())
        except KmsFault as fault:
            self._send(fault.status, {"__type": fault.code, "message": fault.message})
        else:
            self._send(200, answer)

    def _headers(self) -> dict[str, str]:
        return {name.lower(): ",".join(self.headers.get_all(name, [])) for name in self.headers}

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"[0-9]{1,9}", length, re.ASCII) or int(length) > MAX_BODY:
            raise KmsFault(
                "RequestEntityTooLargeException", f"At most {MAX_BODY} bytes.", status=413
            )
        return self.rfile.read(int(length))

    def _send(self, status: int, members: Mapping[str, object]) -> None:
        headers = {"Content-Type": _CONTENT_TYPE, "x-amzn-RequestId": secrets.token_hex(16)}
        self.reply(status, to_json(members), headers)

"""A KMS over TLS on loopback, under an authority of its own, that says what it is told to."""

from __future__ import annotations

import base64
import json
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from emulator.loopback import ANY_LOOPBACK_PORT, LoopbackServer, QuietHandler
from emulator.tls import create_server_identity
from tests.foobar_enclave.fakes import P256, metadata, public_key

HOST = "kms.us-east-1.amazonaws.com"
PUBLIC_KEY = public_key(PublicKey=base64.b64encode(P256).decode())


@dataclass(frozen=True)
class Authority:
    """A server's TLS, and the file of the one authority under which its certificate is."""

    ca_file: Path
    tls: ssl.SSLContext

    @classmethod
    def create(cls, folder: Path, host: str = HOST) -> Authority:
        identity = create_server_identity(host_names=[host], now=datetime.now(UTC))
        (folder / "ca.pem").write_bytes(identity.ca_certificate)
        context = identity.server_context(folder)
        context.num_tickets = 0  # a client that closes before it has read them resets the stream
        return cls(folder / "ca.pem", context)


Answer = tuple[int, dict[str, object]]


class FakeKms(LoopbackServer):
    """Serves while the context lasts; `requests` are operation, body and headers of each."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        super().__init__(_handler(self), ANY_LOOPBACK_PORT, tls)
        self.requests: list[tuple[str, dict[str, object], dict[str, str]]] = []
        self.answers: dict[str, Callable[[int], Answer | bytes]] = {}

    def connect(self) -> socket.socket:
        connection = socket.socket()
        connection.settimeout(5)
        connection.connect(self.server_address)
        return connection

    @property
    def operations(self) -> list[str]:
        return [operation for operation, _, _ in self.requests]

    def answer(
        self, operation: str, body: dict[str, object], headers: dict[str, str]
    ) -> Answer | bytes:
        """Status and JSON, or raw bytes after which the connection is cut."""
        self.requests.append((operation, body, headers))
        if operation in self.answers:
            return self.answers[operation](self.operations.count(operation))
        return 200, {"KeyMetadata": metadata()} if operation == "CreateKey" else PUBLIC_KEY


def _handler(kms: FakeKms) -> type[BaseHTTPRequestHandler]:
    class Handler(QuietHandler):
        def do_POST(self) -> None:  # noqa: N802 - http.server's name
            body = self.rfile.read(int(self.headers["Content-Length"]))
            operation = self.headers["X-Amz-Target"].rpartition(".")[2]
            answer = kms.answer(operation, json.loads(body), dict(self.headers.items()))
            if isinstance(answer, bytes):
                self.wfile.write(answer)
                self.close_connection = True
                return
            status, members = answer
            self.reply(status, json.dumps(members).encode(), {})

    return Handler


def refusal(code: str, message: str, status: int = 400) -> Answer:
    return status, {"__type": code, "message": message}

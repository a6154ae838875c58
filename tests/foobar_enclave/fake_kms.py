"""A KMS over TLS on a unix socket, under an authority of its own, that says what it is told to."""

from __future__ import annotations

import base64
import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from foobar_shared.addresses import UnixAddress, connect
from tests.foobar_enclave.fakes import P256, metadata, public_key

HOST = "kms.us-east-1.amazonaws.com"
PUBLIC_KEY = public_key(PublicKey=base64.b64encode(P256).decode())


@dataclass(frozen=True)
class Authority:
    """A certificate authority and the directory its files go to."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def create(cls, folder: Path) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder("Throw-away CA", "Throw-away CA", key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, SHA256())
        )
        (folder / "ca.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        return cls(folder, key, certificate)

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    def server_context(self, host: str) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder("Throw-away CA", host, key)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .sign(self.key, SHA256())
        )
        path = self.folder / f"{host}.pem"
        path.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + certificate.public_bytes(Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


def _builder(issuer: str, subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
    )


Answer = tuple[int, dict[str, object]]


class FakeKms:
    """Serves while the context lasts; `requests` are operation, body and headers of each."""

    def __init__(self, path: str, tls: ssl.SSLContext | None) -> None:
        self.path = path
        self.requests: list[tuple[str, dict[str, object], dict[str, str]]] = []
        self.answers: dict[str, Callable[[int], Answer | bytes]] = {}
        self._tls = tls
        self._server = _Server(path, _handler(self))
        self._server.tls = tls
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def connect(self) -> socket.socket:
        return connect(UnixAddress(self.path), seconds=5)

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

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    tls: ssl.SSLContext | None = None

    def finish_request(self, request: object, client_address: object) -> None:
        assert isinstance(request, socket.socket)
        request.settimeout(5)
        if self.tls is None:
            super().finish_request(request, client_address)
            return
        with self.tls.wrap_socket(request, server_side=True) as wrapped:
            super().finish_request(wrapped, client_address)

    def handle_error(self, *_: object) -> None:
        """A client that trusts another authority hangs up; that is what some tests are for."""


def _handler(kms: FakeKms) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            operation = self.headers["X-Amz-Target"].rpartition(".")[2]
            answer = kms.answer(operation, json.loads(body), dict(self.headers.items()))
            if isinstance(answer, bytes):
                self.wfile.write(answer)
                self.close_connection = True
                return
            status, members = answer
            content = json.dumps(members).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


def refusal(code: str, message: str, status: int = 400) -> Answer:
    return status, {"__type": code, "message": message}

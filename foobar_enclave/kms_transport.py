"""HTTPS to KMS over a socket that somebody else has connected."""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit

import urllib3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import HTTPError

from foobar_enclave.errors import KmsAnswerError, KmsError, KmsUnreachableError
from foobar_enclave.text import one_line

if TYPE_CHECKING:
    from botocore.compat import HTTPHeaders

_MAX_RESPONSE: Final = 1024 * 1024  # the largest response of KMS has a few kilobytes
_HANDSHAKE_SECONDS: Final = 10.0
_READ_SECONDS: Final = 30.0
# All requests of one transport, however the relay spreads the bytes: less than the 90 seconds for
# which the command line waits.
_SECONDS: Final = 75.0


class KmsTransport:
    """Sends the SDK's prepared requests to one endpoint, each once."""

    def __init__(
        self, endpoint: str, *, connect: Callable[[], socket.socket], tls: ssl.SSLContext
    ) -> None:
        """Connects at the first request.

        Args:
            endpoint: `https://` and a host name, which the certificate must be for.
            connect: a stream socket connected to the relay; raises OSError.
            tls: verifies certificate and host name.
        """
        self._url = f"{endpoint}/"
        self._pool = _pool_class(connect, time.monotonic() + _SECONDS)(
            urlsplit(endpoint).hostname or "",
            443,
            timeout=urllib3.Timeout(connect=_HANDSHAKE_SECONDS, read=_READ_SECONDS),
            maxsize=1,
            ssl_context=tls,
        )

    def send(self, request: AWSPreparedRequest, *, event_name: str, **_: object) -> AWSResponse:
        """KMS's response; a handler of the SDK's event `before-send.kms.OPERATION`.

        Raises:
            KmsError: the request is for another URL than the endpoint's.
            KmsUnreachableError: no connection, no valid certificate, or no whole response.
            KmsAnswerError: a response over a mebibyte.
        """
        operation = event_name.rpartition(".")[2]
        if request.url != self._url:
            raise KmsError(f"the SDK asks another URL than {self._url}")
        try:
            response = self._pool.urlopen(
                request.method or "",
                "/",
                body=cast("bytes", request.body),
                headers=dict(request.headers.items()),
                retries=False,  # nor is a redirection followed
                preload_content=False,
                decode_content=False,
            )
            with response:
                content = _content(operation, response)
        except HTTPError as error:
            raise KmsUnreachableError(operation, _reason(error), sent=True) from None
        except _NotConnectedError as error:
            raise KmsUnreachableError(operation, str(error), sent=False) from None
        headers = cast("HTTPHeaders", response.headers)  # any mapping will do
        return AWSResponse(request.url, response.status, headers, _Body(content))


class _NotConnectedError(Exception):
    """There is no TLS session, so nothing was sent."""


class _Body(io.BytesIO):
    """A response's content in the form in which the SDK reads it."""

    def stream(self) -> Iterator[bytes]:
        yield self.read()


def _content(operation: str, response: urllib3.BaseHTTPResponse) -> bytes:
    """The whole body of a response that says how long it is.

    Without that, whoever cuts the connection could make a part of a response pass for all of it.
    """
    if not _says_its_length(response.headers):
        raise KmsUnreachableError(operation, "the connection over the relay was cut", sent=True)
    content = b""
    for chunk in response.stream(65536, decode_content=False):
        content += chunk
        if len(content) > _MAX_RESPONSE:
            raise KmsAnswerError(f"KMS's answer to {operation} is longer than it may be")
    return content


def _says_its_length(headers: urllib3.HTTPHeaderDict) -> bool:
    """Whether there is one plain form of framing (RFC 9112 section 6), which the reader knows.

    By a length or an encoding that it does not know it would read until the connection ends.
    """
    lengths = headers.getlist("Content-Length")
    encodings = headers.getlist("Transfer-Encoding")
    if encodings:
        return encodings == ["chunked"] and not lengths
    return len(lengths) == 1 and lengths[0].isascii() and lengths[0].isdecimal()


class _Cut:
    """Ends a connection at a moment that its peer can't put off with a byte now and then."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._duplicate = connection.dup()  # TLS takes the original's descriptor over
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        self._timer.cancel()
        self._duplicate.close()

    def _cut(self) -> None:
        with contextlib.suppress(OSError):  # it has just ended by itself
            self._duplicate.shutdown(socket.SHUT_RDWR)


def _pool_class(
    connect: Callable[[], socket.socket], deadline: float
) -> type[urllib3.HTTPSConnectionPool]:
    class Connection(HTTPSConnection):
        _cut: _Cut | None = None

        def _new_conn(self) -> socket.socket:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError
            connection = connect()
            connection.settimeout(_HANDSHAKE_SECONDS)
            self._cut = _Cut(connection, remaining)
            return connection

        def close(self) -> None:
            if self._cut is not None:
                self._cut.cancel()
            super().close()

        def connect(self) -> None:
            try:
                super().connect()
            except (OSError, HTTPError) as error:
                raise _NotConnectedError(_reason(error)) from None

    class Pool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Connection

    return Pool


def _reason(error: Exception) -> str:
    """What went wrong, in words that depend on nothing secret."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return one_line(f"KMS's certificate is not valid: {error.verify_message}")
    if isinstance(error, TimeoutError | urllib3.exceptions.TimeoutError):
        return "the connection over the relay timed out"
    if isinstance(error, ssl.SSLError):
        return one_line(f"TLS fails: {error.reason or type(error).__name__}")
    if isinstance(error, OSError) and error.strerror:
        return one_line(f"the connection over the relay fails: {error.strerror}")
    return "the connection over the relay was cut"

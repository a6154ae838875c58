"""A KMS client that reaches KMS only through the parent's relay: CreateKey and GetPublicKey.

    boto3 client --signed request--> TLS session --> socket from `connect` --> relay --> KMS
    (no environment, file, network)  (Amazon's roots, KMS's host name)

The TLS session begins in the enclave and ends at KMS, so the relay can cut or delay it, and nothing
else. Each request is sent once, over a connection of its own.
"""

from __future__ import annotations

import http.client
import io
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import boto3.session
import botocore.session
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.configprovider import (
    BOTOCORE_DEFAUT_SESSION_VARIABLES,
    ConfigValueStore,
    ConstantProvider,
)
from botocore.credentials import CredentialResolver
from botocore.exceptions import ClientError
from botocore.loaders import Loader

from foobar_enclave.errors import KmsError, one_line
from foobar_shared.key_policy import kms_host, partition_of
from foobar_shared.messages import Credentials
from foobar_shared.timeouts import KMS_EXCHANGE

if TYPE_CHECKING:
    from botocore.compat import HTTPHeaders
    from mypy_boto3_kms import KMSClient

AMAZON_ROOTS: Final = Path(__file__).parent / "amazon_roots.pem"
"""Amazon Root CA 1 to 4 and Starfield Services Root CA - G2 (amazontrust.com/repository)."""

MAX_RESPONSE: Final = 1024 * 1024
"""Bytes of a response that are read; the largest of KMS has a few kilobytes."""

# A new key may not be known everywhere yet (KMS developer guide, "Eventual consistency"); the
# other errors say by themselves that they pass.
_PASSING: Final = {
    "NotFoundException", "ThrottlingException", "DependencyTimeoutException",
    "KMSInternalException",
}  # fmt: skip
_PAUSES: Final = (0.25, 0.5, 1.0, 2.0, 4.0)

_CONFIG: Final = Config(  # type: ignore[call-arg]  # the stubs lack one option
    # CreateKey is not idempotent: a second one would make a second key.
    retries={"total_max_attempts": 1, "mode": "standard"},
    ignore_configured_endpoint_urls=True,
    user_agent="foobar-enclave",
)
_CUT: Final = "the connection over the relay was cut"
# At debug level the SDK logs what it signs, the session token included.
for _library in ("boto3", "botocore", "urllib3"):
    logging.getLogger(_library).setLevel(logging.CRITICAL)


def tls_context(ca_file: Path) -> ssl.SSLContext:
    """Return TLS 1.2 or newer to a host of the asked-for name under the roots in `ca_file`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificate and host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cafile=ca_file)
    context.sslsocket_class = _BoundedSocket
    return context


class KmsConnector:
    """Makes sessions with KMS whose every connection is one that `connect` returns."""

    def __init__(
        self,
        connect: Callable[[], socket.socket],
        *,
        ca_file: Path = AMAZON_ROOTS,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Load the root certificates.

        Args:
            connect: returns a stream socket connected to the relay; raises OSError.
            ca_file: PEM of the only root certificates that are trusted.
            pause: waits for some seconds between tries.
            clock: seconds that never go back.
        """
        self._connect = connect
        self._tls = tls_context(ca_file)
        self._pause = pause
        self._clock = clock

    def open(self, region: str, credentials: Credentials) -> KmsSession:
        """Return a session in `region`, which must end within `KMS_EXCHANGE` seconds.

        Raises:
            NameFormatError: `region` is not of a region's form.
            KmsError: the region has no KMS, or the SDK would ask another endpoint than its.
        """
        session = _isolated_session()
        host = _kms_host(region, session)
        client: KMSClient = boto3.session.Session(botocore_session=session).client(
            "kms",
            region_name=region,
            aws_access_key_id=credentials.access_key_id,
            aws_secret_access_key=credentials.secret_access_key,
            aws_session_token=credentials.token,
            config=_CONFIG,
        )
        if client.meta.endpoint_url != f"https://{host}":
            raise KmsError(f"the SDK's endpoint of KMS in {region} is not https://{host}")
        deadline = self._clock() + KMS_EXCHANGE

        def remaining() -> float:
            seconds = deadline - self._clock()
            if seconds <= 0:
                raise TimeoutError
            return seconds

        transport = _Transport(host, self._connect, self._tls, remaining)
        # What a handler of this event returns takes the place of the SDK's own network.
        client.meta.events.register("before-send.kms", cast("Callable[..., None]", transport.send))
        return KmsSession(client, credentials, self._pause)


class KmsSession:
    """KMS in one region, as the owner of some credentials sees it.

    Both calls return KMS's answer as it is; the caller checks it. Both raise `KmsError`.
    """

    def __init__(
        self, client: KMSClient, credentials: Credentials, pause: Callable[[float], None]
    ) -> None:
        self._client = client
        self._credentials = credentials
        self._pause = pause

    def create_key(self, *, policy: str, description: str) -> Mapping[str, object]:
        """Make an ECC_NIST_P256 key for key agreement, and return its `KeyMetadata`."""
        answer = self._call(
            "CreateKey",
            lambda: self._client.create_key(
                Policy=policy,
                Description=description,
                KeySpec="ECC_NIST_P256",
                KeyUsage="KEY_AGREEMENT",
                Origin="AWS_KMS",
                MultiRegion=False,
                BypassPolicyLockoutSafetyCheck=True,
            ),
        )
        metadata: Mapping[str, object] = answer.get("KeyMetadata", {})
        return metadata

    def get_public_key(self, key_arn: str) -> Mapping[str, object]:
        """Return the answer to GetPublicKey, after further tries where an error may pass."""
        for seconds in _PAUSES:
            try:
                return self._get_public_key(key_arn)
            except KmsError as error:
                if error.code not in _PASSING:
                    raise
                self._pause(seconds)
        return self._get_public_key(key_arn)

    def _get_public_key(self, key_arn: str) -> Mapping[str, object]:
        return self._call("GetPublicKey", lambda: self._client.get_public_key(KeyId=key_arn))

    def _call(self, operation: str, send: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        # From None: the SDK's exceptions hold the whole response.
        try:
            return send()
        except KmsError:
            raise
        except ClientError as error:
            raise _refusal(operation, error, self._credentials) from None
        except Exception as error:  # noqa: BLE001 - its text may quote anything
            reason = f"the SDK fails ({type(error).__name__})"
            raise _no_answer(operation, reason, sent=True) from None


@dataclass(frozen=True)
class _Transport:
    """Sends the SDK's prepared requests to one host over sockets from `connect`.

    `remaining` returns the seconds until all of them must have been answered, or raises
    TimeoutError.
    """

    host: str
    connect: Callable[[], socket.socket]
    tls: ssl.SSLContext
    remaining: Callable[[], float]

    def send(self, request: AWSPreparedRequest, *, event_name: str, **_: object) -> AWSResponse:
        """Return KMS's response; a handler of the SDK's event `before-send.kms.OPERATION`.

        Raises:
            KmsError: no connection, no valid certificate, no whole response, or a response over
                a mebibyte.
        """
        operation = event_name.rpartition(".")[2]
        connection = http.client.HTTPSConnection(self.host, context=self.tls)
        sent = False
        try:
            self.remaining()
            with self.connect() as relay:
                relay.settimeout(self.remaining())  # of the handshake too
                with self.tls.wrap_socket(relay, server_hostname=self.host) as stream:
                    cast("_BoundedSocket", stream).remaining = self.remaining
                    connection.sock = stream
                    sent = True
                    connection.request(
                        request.method or "POST",
                        "/",
                        cast("bytes", request.body),
                        dict(request.headers.items()),
                    )
                    with connection.getresponse() as response:
                        content = response.read(MAX_RESPONSE + 1)
        except (OSError, http.client.HTTPException) as error:
            raise _no_answer(operation, _reason(error), sent=sent) from None
        if len(content) > MAX_RESPONSE:
            text = f"KMS's answer to {operation} is longer than it may be"
            raise KmsError(text, may_have_acted=True)
        if response.length != 0 and not response.chunked:  # shorter than it says, or says nothing
            raise _no_answer(operation, _CUT, sent=True)
        headers = cast("HTTPHeaders", response.headers)
        return AWSResponse(f"https://{self.host}/", response.status, headers, _Body(content))


class _BoundedSocket(ssl.SSLSocket):
    """A TLS socket that a peer cannot keep open with a byte now and then, read or written."""

    remaining: Callable[[], float]

    def send(self, *args: Any, **keywords: Any) -> int:  # noqa: ANN401 - passed on
        self.settimeout(self.remaining())
        return super().send(*args, **keywords)

    def recv_into(self, *args: Any, **keywords: Any) -> int:  # noqa: ANN401 - passed on
        self.settimeout(self.remaining())
        return super().recv_into(*args, **keywords)


class _Body(io.BytesIO):
    """A response's content in the form in which the SDK reads it."""

    def stream(self) -> Iterator[bytes]:
        yield self.read()


def _isolated_session() -> botocore.session.Session:
    """Return a session that looks up no environment variable, profile, file or credential."""
    session = botocore.session.Session()
    constants = {
        name: ConstantProvider(value=default)
        for name, (_, _, default, _) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()
    }
    constants |= {
        name: ConstantProvider(value=None) for name in ("config_file", "credentials_file")
    }
    # The SDK's own default, whatever the environment or a configuration file says.
    session.register_component("config_store", ConfigValueStore(mapping=constants))
    session.register_component(
        "data_loader",
        Loader(extra_search_paths=[Loader.BUILTIN_DATA_PATH], include_default_search_paths=False),
    )
    session.register_component("credential_provider", CredentialResolver(providers=[]))
    return session


def _kms_host(region: str, session: botocore.session.Session) -> str:
    """Return the host name of KMS in `region`, the requester's word that is not trusted."""
    partition = partition_of(region)
    if region not in session.get_available_regions("kms", partition):
        raise KmsError(f"{region} is no region of partition {partition} with AWS KMS")
    return kms_host(region)


def _refusal(operation: str, error: ClientError, credentials: Credentials) -> KmsError:
    """Return KMS's own words, cleaned of what is secret."""
    secrets = (credentials.access_key_id, credentials.secret_access_key, credentials.token)
    answer = error.response.get("Error", {})
    code = one_line(answer.get("Code", "no error code"), secrets=secrets)
    message = one_line(answer.get("Message", "no message"), secrets=secrets)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return KmsError(
        f"KMS refused {operation}: {code}: {message}",
        code=code,
        may_have_acted=status >= 500,  # a server error (RFC 9110 section 15.6)
    )


def _no_answer(operation: str, reason: str, *, sent: bool) -> KmsError:
    return KmsError(f"no answer from KMS to {operation}: {reason}", may_have_acted=sent)


def _reason(error: Exception) -> str:
    """Return what went wrong, in words that depend on nothing secret."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return one_line(f"KMS's certificate is not valid: {error.verify_message}")
    if isinstance(error, TimeoutError):
        return "the connection over the relay timed out"
    if isinstance(error, ssl.SSLError):
        return one_line(f"TLS fails: {error.reason or type(error).__name__}")
    if isinstance(error, OSError) and error.strerror:
        return one_line(f"the connection over the relay fails: {error.strerror}")
    return _CUT

"""AWS KMS as the enclave uses it: CreateKey and GetPublicKey, over the parent's relay.

The TLS session begins in the enclave and ends at KMS. Its certificate is verified against Amazon's
own root CAs alone, and the credentials are those of the request alone. The SDK is imported at the
first session, so that an enclave that makes no key does not load it.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from foobar_enclave.errors import KmsError, KmsRefusedError
from foobar_shared.messages import Credentials

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

AMAZON_ROOTS: Final = Path(__file__).parent / "amazon_roots.pem"
"""Amazon Root CA 1 to 4 and Starfield Services Root CA - G2 (amazontrust.com/repository)."""

# A key that was just made may not be known everywhere yet (KMS developer guide, "Eventual
# consistency"); the others say by themselves that they pass.
_PASSING: Final = {
    "NotFoundException", "ThrottlingException", "DependencyTimeoutException",
    "KMSInternalException",
}  # fmt: skip
_PAUSES: Final = (0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True, slots=True)
class KeyMetadata:
    """What KMS says about a key that it has made; None where it says nothing."""

    arn: str | None
    key_id: str | None
    account_id: str | None
    spec: str | None
    usage: str | None
    origin: str | None
    state: str | None
    multi_region: bool | None


@dataclass(frozen=True, slots=True)
class PublicKey:
    """KMS's answer to GetPublicKey; `der` is SubjectPublicKeyInfo as KMS gives it, unchecked."""

    key_arn: str | None
    spec: str | None
    usage: str | None
    agreement_algorithms: tuple[str, ...]
    der: bytes


class KmsSession(Protocol):
    """KMS in one region, as the owner of some credentials sees it."""

    def create_key(self, *, policy: str, description: str) -> KeyMetadata:
        """Make an ECC_NIST_P256 key for key agreement; sent once, never again.

        Raises:
            KmsRefusedError: KMS's own error.
            KmsUnreachableError: no answer.
            KmsAnswerError: an answer that is too long to be read.
        """
        ...

    def get_public_key(self, key_arn: str) -> PublicKey:
        """The public key of a key that was just made.

        Raises:
            KmsRefusedError: KMS's own error, after further tries where it may pass.
            KmsUnreachableError: no answer.
            KmsAnswerError: an answer that is too long to be read.
        """
        ...


class KmsConnector:
    """Makes sessions with KMS whose every connection is one that `connect` returns."""

    def __init__(
        self,
        connect: Callable[[], socket.socket],
        *,
        ca_file: Path = AMAZON_ROOTS,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Loads the root certificates.

        Args:
            connect: a stream socket connected to the relay; raises OSError.
            ca_file: PEM of the only authorities that are trusted.
            pause: waits for some seconds between tries.
        """
        self._connect = connect
        self._tls = tls_context(ca_file)
        self._pause = pause

    def open(self, region: str, credentials: Credentials) -> KmsSession:
        """A session in `region`.

        Raises:
            NameFormatError: `region` is not of a region's form.
            RegionError: the region has no KMS.
        """
        from foobar_enclave.kms_client import make_client  # loads the SDK

        client = make_client(
            region=region, credentials=credentials, connect=self._connect, tls=self._tls
        )
        return _BotoSession(client, credentials, self._pause)


def tls_context(ca_file: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer to a host of the asked-for name under the authorities in `ca_file`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks certificate and host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cafile=ca_file)
    return context


class _BotoSession:
    """The SDK's client behind `KmsSession`."""

    def __init__(
        self, client: KMSClient, credentials: Credentials, pause: Callable[[float], None]
    ) -> None:
        self._client = client
        self._credentials = credentials
        self._pause = pause

    def create_key(self, *, policy: str, description: str) -> KeyMetadata:
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
        metadata = answer.get("KeyMetadata")
        return _key_metadata(metadata if isinstance(metadata, dict) else {})

    def get_public_key(self, key_arn: str) -> PublicKey:
        for seconds in _PAUSES:
            try:
                return self._get_public_key(key_arn)
            except KmsRefusedError as error:
                if error.code not in _PASSING:
                    raise
                self._pause(seconds)
        return self._get_public_key(key_arn)

    def _get_public_key(self, key_arn: str) -> PublicKey:
        answer = self._call("GetPublicKey", lambda: self._client.get_public_key(KeyId=key_arn))
        der = answer.get("PublicKey")
        algorithms = answer.get("KeyAgreementAlgorithms")
        return PublicKey(
            key_arn=_text(answer, "KeyId"),
            spec=_text(answer, "KeySpec"),
            usage=_text(answer, "KeyUsage"),
            agreement_algorithms=tuple(algorithms) if isinstance(algorithms, list) else (),
            der=der if isinstance(der, bytes) else b"",
        )

    def _call(
        self, operation: str, send: Callable[[], Mapping[str, object]]
    ) -> Mapping[str, object]:
        from foobar_enclave.kms_client import translated  # loads the SDK

        try:
            return send()
        except KmsError:
            raise
        except Exception as error:  # noqa: BLE001 - every other one is translated
            # From None: the SDK's exception holds the whole response.
            raise translated(operation, error, self._credentials) from None


def _key_metadata(members: Mapping[str, object]) -> KeyMetadata:
    multi_region = members.get("MultiRegion")
    return KeyMetadata(
        arn=_text(members, "Arn"),
        key_id=_text(members, "KeyId"),
        account_id=_text(members, "AWSAccountId"),
        spec=_text(members, "KeySpec"),
        usage=_text(members, "KeyUsage"),
        origin=_text(members, "Origin"),
        state=_text(members, "KeyState"),
        multi_region=multi_region if isinstance(multi_region, bool) else None,
    )


def _text(members: Mapping[str, object], name: str) -> str | None:
    value = members.get(name)
    return value if isinstance(value, str) else None

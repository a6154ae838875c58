"""AWS KMS as the parent instance uses it: a shared secret that only the enclave can open."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import boto3.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
)
from botocore.exceptions import ConnectionError as NoConnectionError
from botocore.session import Session

from foobar_instance.errors import KmsDryRunError, KmsRequestError, KmsStaleAttestationError
from foobar_instance.metadata import without_proxies
from foobar_instance.terminal import one_line
from foobar_shared.addresses import TcpAddress
from foobar_shared.messages import MAX_ENVELOPED_DATA
from foobar_shared.timeouts import DERIVE_ATTEMPTS, DERIVE_CONNECT, DERIVE_READ

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

_log: Final = logging.getLogger(__name__)

_HTTPS_PORT: Final = 443
# KMS may change its wording: anything about the age of an attestation counts.
_TOO_OLD: Final = re.compile(
    r"(?=.*attestation)(?=.*\b(?:age|old|older|expired|stale|fresh|minutes?)\b)",
    re.IGNORECASE | re.DOTALL,
)
# The enclave's TLS is for kms.<region>.<suffix> alone.
_OTHER_HOSTS: Final = ("use_fips_endpoint", "use_dualstack_endpoint")
# They have nothing to do with a profile.
_NETWORK_ERRORS: Final = (NoConnectionError, HTTPClientError, NoCredentialsError)
_CREDENTIALS_HINT: Final = (
    "; run this on the parent instance, or give the AWS SDK credentials of its role"
)
_ACCESS_HINT: Final = (
    "the key policy allows this only to the instance role, and only for an enclave with the PCR0 "
    "that the key was made under"
)


class KmsService:
    """KMS in one region, with the credentials that the AWS SDK finds."""

    def __init__(self, region: str, *, connections: int = 1) -> None:
        """Make a client for as many threads as `connections`; nothing is sent yet.

        Raises:
            KmsRequestError: the SDK's configuration is unusable.
        """
        config = Config(
            connect_timeout=DERIVE_CONNECT,
            read_timeout=DERIVE_READ,
            max_pool_connections=connections,
            # Slows down where KMS answers ThrottlingException.
            retries={"total_max_attempts": DERIVE_ATTEMPTS, "mode": "adaptive"},
        )
        try:
            self._session = Session()
            session = boto3.session.Session(region_name=region, botocore_session=self._session)
            with without_proxies():
                self._session.get_component("credential_provider")
            self._client: KMSClient = session.client("kms", config=config)
        except Exception as error:  # the SDK's sources of credentials do not bound what they raise
            raise KmsRequestError(f"the AWS SDK can't be set up: {self._cause(error)}") from error

    def _cause(self, error: Exception) -> str:
        """Say what failed in the SDK, and which file or profile it is about."""
        if isinstance(error, _NETWORK_ERRORS):
            return one_line(error)
        if isinstance(error, OSError) and error.filename:
            text = f"{one_line(error.filename)}: {error.strerror}"
        elif isinstance(error, BotoCoreError | ClientError) or type(error) is ValueError:
            text = one_line(error)
        else:  # its text may quote a file with a secret
            text = f"{type(error).__name__} in its configuration or its source of credentials"
        profile = self._session.get_config_variable("profile") or "default"
        return f"{text} (profile {one_line(profile)})"

    @property
    def address(self) -> TcpAddress:
        """Return where the relay connects to: the endpoint that the SDK has chosen.

        Raises:
            KmsRequestError: the endpoint that the SDK was given has no such port, or is one whose
                certificate the enclave does not accept.
        """
        for setting in _OTHER_HOSTS:
            if self._session.get_config_variable(setting):
                variable = f"AWS_{setting.upper()}"
                where = variable if variable in os.environ else f"{setting} in the AWS config file"
                raise KmsRequestError(
                    f"{where} is set, but the enclave talks only to KMS's standard endpoint in the "
                    "region: create the key without it (decrypt may use it)"
                )
        endpoint = urlsplit(self._client.meta.endpoint_url)
        try:
            port = endpoint.port or _HTTPS_PORT
        except ValueError as error:
            raise KmsRequestError(f"the AWS SDK can't be set up: {one_line(error)}") from error
        return TcpAddress(str(endpoint.hostname), port)

    def derive_shared_secret(
        self, *, key_arn: str, ephemeral_key: bytes, attestation: bytes
    ) -> bytes:
        """Return the shared secret of a KMS key and an ephemeral key, for the enclave's eyes only.

        Args:
            key_arn: of the attested key.
            ephemeral_key: DER SubjectPublicKeyInfo on P-256.
            attestation: a fresh raw document, with the enclave's RSA key.

        Returns:
            `CiphertextForRecipient`: CMS EnvelopedData, at most 6,144 bytes.

        Raises:
            KmsStaleAttestationError: KMS considers the document too old.
            KmsRequestError: KMS refused, can't be reached, or answered without
                `CiphertextForRecipient`. A secret that this instance can read is never used.
        """
        return self._derive(key_arn, ephemeral_key, attestation, dry_run=False)

    def check_derive(self, *, key_arn: str, ephemeral_key: bytes, attestation: bytes) -> None:
        """Ask KMS whether `derive_shared_secret` would succeed now.

        Raises:
            KmsRequestError: it would not, or KMS can't be asked.
        """
        with contextlib.suppress(KmsDryRunError):
            self._derive(key_arn, ephemeral_key, attestation, dry_run=True)
            raise KmsRequestError("KMS did what it was only asked about: it knows no DryRun")

    def _derive(
        self, key_arn: str, ephemeral_key: bytes, attestation: bytes, *, dry_run: bool
    ) -> bytes:
        _log.debug("asking %s for the shared secret of %s", self._client.meta.endpoint_url, key_arn)
        try:
            answer = self._client.derive_shared_secret(
                KeyId=key_arn,
                KeyAgreementAlgorithm="ECDH",
                PublicKey=ephemeral_key,
                Recipient={
                    "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
                    "AttestationDocument": attestation,
                },
                DryRun=dry_run,
            )
        except ClientError as error:
            if error.operation_name != "DeriveSharedSecret":  # AssumeRole, for the credentials
                raise KmsRequestError(f"KMS can't be asked: {self._cause(error)}") from error
            raise _refused(error) from error
        except (BotoCoreError, OSError) as error:  # files with credentials are read only now
            hint = _CREDENTIALS_HINT if isinstance(error, NoCredentialsError) else ""
            raise KmsRequestError(f"KMS can't be asked: {self._cause(error)}{hint}") from error
        except Exception as error:  # the SDK's parsers do not bound what they raise
            raise KmsRequestError(
                f"KMS can't be asked, or its answer can't be read ({type(error).__name__}): see "
                "AWS_ENDPOINT_URL_KMS if it is set"
            ) from error
        if answer.get("SharedSecret"):
            raise KmsRequestError("KMS answered with a readable shared secret: it is not used")
        enveloped: object = answer.get("CiphertextForRecipient")
        if not isinstance(enveloped, bytes) or not 0 < len(enveloped) <= MAX_ENVELOPED_DATA:
            raise KmsRequestError(
                "KMS answered without CiphertextForRecipient: the enclave can't decrypt"
            )
        if answer.get("KeyId") != key_arn:
            raise KmsRequestError("KMS answered for another key than the attested one")
        _log.debug("KMS answered %d bytes for the enclave", len(enveloped))
        return enveloped


def _refused(error: ClientError) -> KmsRequestError:
    details = error.response.get("Error", {})
    code, message = (one_line(details.get(name, "")) for name in ("Code", "Message"))
    text = f"KMS refused DeriveSharedSecret: {code}: {message}"
    if code == "DryRunOperationException":
        return KmsDryRunError(text)
    if _TOO_OLD.search(message):
        return KmsStaleAttestationError(text)
    return KmsRequestError(f"{text}; {_ACCESS_HINT}" if code == "AccessDeniedException" else text)

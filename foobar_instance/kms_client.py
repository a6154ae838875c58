"""AWS KMS as the parent instance uses it: a shared secret that only the enclave can open."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from foobar_instance.errors import KmsError, KmsStaleAttestationError
from foobar_instance.text import one_line
from foobar_shared.addresses import TcpAddress
from foobar_shared.messages import MAX_ENVELOPED_DATA

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

_log: Final = logging.getLogger(__name__)

_HTTPS_PORT: Final = 443
# All attempts together end within the minute for which the enclave keeps an idle connection.
_CONFIG: Final = Config(
    connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 3, "mode": "standard"}
)
# KMS's wording is no contract: anything about the age of an attestation counts.
_TOO_OLD: Final = re.compile(
    r"(?=.*attestation)(?=.*\b(?:age|old|older|expired|stale|fresh|minutes?)\b)",
    re.IGNORECASE | re.DOTALL,
)
_ACCESS_HINT: Final = (
    "the key policy allows this only to the instance role, and only for an enclave with the PCR0 "
    "that the key was made under"
)


class KmsService:
    """KMS in one region, with the credentials that the AWS SDK finds."""

    def __init__(self, region: str) -> None:
        """A client; nothing is sent yet.

        Raises:
            KmsError: the SDK's configuration is unusable.
        """
        try:
            self._client: KMSClient = boto3.client("kms", region_name=region, config=_CONFIG)
        except (BotoCoreError, ValueError) as error:
            raise KmsError(f"the AWS SDK can't be set up: {one_line(error)}") from error

    @property
    def address(self) -> TcpAddress:
        """Where the relay connects to: the endpoint that the SDK has chosen.

        Raises:
            KmsError: the endpoint that the SDK was given has no such port.
        """
        endpoint = urlsplit(self._client.meta.endpoint_url)
        try:
            port = endpoint.port or _HTTPS_PORT
        except ValueError as error:
            raise KmsError(f"the AWS SDK can't be set up: {one_line(error)}") from error
        return TcpAddress(str(endpoint.hostname), port)

    def derive_shared_secret(
        self, *, key_arn: str, ephemeral_key: bytes, attestation: bytes
    ) -> bytes:
        """The shared secret of a KMS key and an ephemeral key, for the attested enclave alone.

        Args:
            key_arn: of the attested key.
            ephemeral_key: DER SubjectPublicKeyInfo on P-256.
            attestation: a raw document of just now, with the enclave's RSA key.

        Returns:
            `CiphertextForRecipient`: CMS EnvelopedData, at most 6,144 bytes.

        Raises:
            KmsStaleAttestationError: KMS holds the document to be too old.
            KmsError: KMS refused, can't be reached, or answered without `CiphertextForRecipient`:
                there is no falling back to a secret that this instance can read.
        """
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
            )
        except ClientError as error:
            raise _refused(error) from error
        except NoCredentialsError as error:
            raise KmsError(
                f"KMS can't be asked: {one_line(error)}; run this on the parent instance, or give "
                "the AWS SDK credentials of its role"
            ) from error
        except BotoCoreError as error:
            raise KmsError(f"KMS can't be asked: {one_line(error)}") from error
        except Exception as error:  # the SDK's parsers do not bound what they raise
            raise KmsError(
                f"KMS can't be asked, or its answer can't be read ({type(error).__name__}): see "
                "AWS_ENDPOINT_URL_KMS if it is set"
            ) from error
        if answer.get("SharedSecret"):
            raise KmsError("KMS answered with a readable shared secret: it is not used")
        enveloped: object = answer.get("CiphertextForRecipient")
        if not isinstance(enveloped, bytes) or not 0 < len(enveloped) <= MAX_ENVELOPED_DATA:
            raise KmsError("KMS answered without CiphertextForRecipient: the enclave can't decrypt")
        if answer.get("KeyId") != key_arn:
            raise KmsError("KMS answered for another key than the attested one")
        _log.debug("KMS answered %d bytes for the enclave", len(enveloped))
        return enveloped


def _refused(error: ClientError) -> KmsError:
    details = error.response.get("Error", {})
    code, message = (one_line(details.get(name, "")) for name in ("Code", "Message"))
    text = f"KMS refused DeriveSharedSecret: {code}: {message}"
    if _TOO_OLD.search(message):
        return KmsStaleAttestationError(text)
    return KmsError(f"{text}; {_ACCESS_HINT}" if code == "AccessDeniedException" else text)

"""The errors of the command line: what was wrong and what to do, and the exit code."""

from __future__ import annotations

from typing import ClassVar


class InstanceError(Exception):
    """Base of every error that a command reports; its text is one line without any secret.

    Attributes:
        exit_code: 1 the operation failed, 2 wrong usage, 3 something did not verify.
    """

    exit_code: ClassVar[int] = 1


class UsageError(InstanceError):
    """The command's options are malformed, or contradict each other."""

    exit_code = 2


class NotVerifiedError(InstanceError):
    """An attestation, proof or ciphertext that must not be relied on."""

    exit_code = 3


class NotDecryptedError(NotVerifiedError):
    """A message that does not open: damaged, or sealed to another key."""


class ImageError(InstanceError):
    """An enclave image file that can't be measured."""


class FileError(InstanceError):
    """A file that can't be read or written."""


class EnclaveUnavailableError(InstanceError):
    """No enclave answers."""


class EnclaveRefusedError(InstanceError):
    """The enclave answered an error."""


class MetadataError(InstanceError):
    """Instance metadata is missing or has no credentials."""


class RelayError(InstanceError):
    """The relay can't listen."""


class KmsRequestError(InstanceError):
    """KMS refused, can't be reached, or answered something unfit."""


class KmsDryRunError(KmsRequestError):
    """KMS would have done what it was asked, had it not been asked only whether it would."""


class KmsStaleAttestationError(KmsRequestError):
    """KMS considers the attestation document too old."""

"""The errors of the attestation library: which rule a document broke, and what was found."""

from __future__ import annotations


class AttestationError(Exception):
    """A document that must not be trusted; all that a hostile document can provoke.

    Its text says what was found, without control characters that the document chose.

    Attributes:
        rule: stable name of the broken rule, such as `cose-algorithm` (see docs/verification.md).
    """

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(text)
        self.rule = rule

    def __reduce__(self) -> tuple[type[AttestationError], tuple[str, str]]:
        """Pickle by both arguments, so that errors cross process boundaries whole."""
        return type(self), (self.rule, str(self))


class MalformedAttestation(AttestationError):  # noqa: N818 - public names, fixed by the contract
    """Not an attestation document of a Nitro Enclave."""


class UntrustedCertificate(AttestationError):  # noqa: N818
    """The certificates do not lead to the trusted root, or not at that time."""


class InvalidSignature(AttestationError):  # noqa: N818
    """The signature is not the enclave's over this document."""


class MeasurementMismatch(AttestationError):  # noqa: N818
    """Another enclave than the expected one; the text names every PCR that differs."""


class DebugModeAttestation(AttestationError):  # noqa: N818
    """An enclave in debug mode, which proves nothing about its code."""


class StaleAttestation(AttestationError):  # noqa: N818
    """Not the fresh answer that was asked for: too old, too new, or of another nonce."""


class NonceMismatch(StaleAttestation):
    """Not an answer to this request: another nonce, or none."""


class MeasurementsError(Exception):
    """Expected measurements that are malformed: a mistake of the verifier, not of a document."""

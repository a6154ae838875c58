"""Verify the attestation documents of AWS Nitro Enclaves; docs/verification.md explains how."""

from foobar_instance.attestation._cose import has_one_spelling
from foobar_instance.attestation._document import Attestation, parse_attestation
from foobar_instance.attestation.anchors import Partition, packaged_root
from foobar_instance.attestation.errors import (
    AttestationError,
    DebugModeAttestation,
    InvalidSignature,
    MalformedAttestation,
    MeasurementMismatch,
    MeasurementsError,
    NonceMismatch,
    StaleAttestation,
    UntrustedCertificate,
)
from foobar_instance.attestation.measurements import Measurements
from foobar_instance.attestation.verifier import CLOCK_SKEW, Verifier, verify_attestation

__all__ = [
    "CLOCK_SKEW",
    "Attestation",
    "AttestationError",
    "DebugModeAttestation",
    "InvalidSignature",
    "MalformedAttestation",
    "MeasurementMismatch",
    "Measurements",
    "MeasurementsError",
    "NonceMismatch",
    "Partition",
    "StaleAttestation",
    "UntrustedCertificate",
    "Verifier",
    "has_one_spelling",
    "packaged_root",
    "parse_attestation",
    "verify_attestation",
]

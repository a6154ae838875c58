"""Verify the attestation documents of AWS Nitro Enclaves, offline.

Call `verify_attestation`, or keep a `Verifier` for many documents. Say which enclave you expect and
which nonce you sent, and use nothing of a document before it has passed:

    from datetime import UTC, datetime, timedelta
    from foobar_instance.attestation import AttestationError, Measurements, verify_attestation

    expected = Measurements.from_nitro_cli_json("foobar-enclave.measurements.json")
    try:
        attestation = verify_attestation(
            document,
            measurements=expected,
            nonce=nonce,
            at=datetime.now(UTC),
            max_age=timedelta(minutes=5),
        )
    except AttestationError as error:
        print(f"refused by rule {error.rule}: {error}")
    else:
        print(attestation.module_id, attestation.user_data)

For a saved document leave out `at` and `max_age`: it is judged at its own signed time. Without
`measurements` any enclave of anybody passes, and without `nonce` any old answer.

All that a hostile document provokes is an `AttestationError`. A `MeasurementsError` or `ValueError`
is the caller's own mistake. `CLOCK_SKEW` is how far the clock here may be behind Nitro's;
`Partition` names the AWS partitions whose root is packaged. docs/verification.md has the rules.
"""

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

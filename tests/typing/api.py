"""A typed use of the library: mypy checks this file, and nothing runs it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import assert_type

from cryptography import x509

from foobar_instance.attestation import (
    Attestation,
    AttestationError,
    Measurements,
    Partition,
    Verifier,
    packaged_root,
    parse_attestation,
    verify_attestation,
)

partition: Partition = "aws-us-gov"
root = packaged_root(partition)
assert_type(root, x509.Certificate)
expected = Measurements.from_mapping({0: "ab" * 48})
assert_type(Measurements.from_nitro_cli_json(Path("measurements.json")), Measurements)


def fresh(document: bytes, nonce: bytes) -> Attestation | None:
    """Return what a fresh document says, or None if it breaks a rule."""
    try:
        return Verifier(root).verify(
            document,
            at=datetime.now(UTC),
            measurements=expected,
            nonce=nonce,
            max_age=timedelta(minutes=1),
        )
    except AttestationError as error:
        assert_type(error.rule, str)
        return None


def saved(document: bytes) -> None:
    """Show the types of what a document says."""
    attestation = verify_attestation(document, root=root, measurements=expected)
    assert_type(attestation, Attestation)
    assert_type(parse_attestation(document), Attestation)
    assert_type(attestation.module_id, str)
    assert_type(attestation.timestamp, datetime)
    assert_type(attestation.pcrs, Mapping[int, bytes])
    assert_type(attestation.cabundle, tuple[bytes, ...])
    assert_type(attestation.user_data, bytes | None)
    assert_type(attestation.is_debug, bool)
    attestation.module_id = "other"  # type: ignore[misc]  # an attestation is immutable
    Verifier(root).verify(document, nonce="text")  # type: ignore[arg-type]  # bytes, not text
    Verifier(root).verify(document, expected)  # type: ignore[call-arg, arg-type]  # by name only

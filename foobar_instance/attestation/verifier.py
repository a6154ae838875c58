"""The validation process: every document goes through all rules, in one order."""

from __future__ import annotations

import hmac
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from foobar_instance.attestation._chain import ChainVerifier, utc
from foobar_instance.attestation._document import Attestation, parse_message
from foobar_instance.attestation._rules import AGE, DEBUG, NONCE, SIGNATURE
from foobar_instance.attestation.anchors import packaged_root
from foobar_instance.attestation.measurements import Measurements

CLOCK_SKEW: Final = timedelta(minutes=1)
"""How far the verifier's clock may be behind Nitro's."""


class Verifier:
    """Verify many attestation documents under one root. Safe to use from several threads.

    A kept verifier remembers the last chains that it has validated: a further document of the same
    enclave costs one signature.
    """

    def __init__(self, root: x509.Certificate | None = None) -> None:
        """Trust `root`, or the packaged AWS root of the `aws` partition."""
        self._chains = ChainVerifier(packaged_root() if root is None else root)

    def verify(
        self,
        document: bytes,
        *,
        at: datetime | None = None,
        measurements: Measurements | None = None,
        nonce: bytes | None = None,
        max_age: timedelta | None = None,
        allow_debug: bool = False,
    ) -> Attestation:
        """Verify a document by every check, in this order, and return its content.

        1. Form: COSE structure and payload, within bounds (AWS 3.1, 3.2.1, 3.2.2).
        2. Chain: from the leaf to the trusted root, at the time that counts (AWS 3.2.3, 3.2.4).
        3. Signature: the leaf's, over the payload as it was received (AWS 3.2).
        4. Mode and measurements: not in debug mode, and an expected enclave.
        5. Freshness: the answer to this request, signed just now.

        Args:
            document: raw COSE_Sign1 bytes.
            at: aware; when the certificates must be valid. None is the document's own signed time,
                for saved documents: leaf certificates live three hours.
            measurements: the expected PCRs; None accepts every enclave.
            nonce: what the document must carry; None accepts any.
            max_age: how long before `at`, the wall clock, the document may have been signed. It
                may also have been signed up to `CLOCK_SKEW` after `at`.
            allow_debug: accept a debug-mode enclave, whose PCR0 proves nothing.

        Returns:
            What the enclave and Nitro say in the document, as they signed it.

        Raises:
            MalformedAttestation: step 1 failed.
            UntrustedCertificate: step 2 failed.
            InvalidSignature: step 3 failed.
            DebugModeAttestation, MeasurementMismatch: step 4 failed.
            NonceMismatch, StaleAttestation: step 5 failed.
            ValueError: `max_age` without `at`, or an `at` without time zone.
        """
        if max_age is not None and at is None:
            raise ValueError("max_age needs the time to judge by: pass at")
        if at is not None and at.tzinfo is None:
            raise ValueError("at needs a time zone")
        # 1. Form
        message, attestation = parse_message(document)
        # 2. Chain
        key = self._chains.verify(attestation, _moment(attestation, at, max_age))
        # 3. Signature
        if not message.verify_signature(key):
            raise SIGNATURE.broken("it does not verify")
        # 4. Mode and measurements
        if 0 not in attestation.pcrs:
            raise DEBUG.broken("PCR0 is missing: its code is not measured")
        if attestation.is_debug and not allow_debug:
            raise DEBUG.broken("PCR0 is all zero: its code is not measured")
        if measurements is not None:
            measurements.check(attestation)
        # 5. Freshness
        if nonce is not None:
            _check_nonce(attestation, nonce)
        if max_age is not None and at is not None:
            _check_age(attestation, at, max_age)
        return attestation


def verify_attestation(
    document: bytes,
    *,
    root: x509.Certificate | None = None,
    at: datetime | None = None,
    measurements: Measurements | None = None,
    nonce: bytes | None = None,
    max_age: timedelta | None = None,
    allow_debug: bool = False,
) -> Attestation:
    """Verify a single document, and return its content.

    Args:
        document: raw COSE_Sign1 bytes.
        root: the root certificate to trust; None is the packaged AWS root of the `aws` partition.
        at: as for `Verifier.verify`, and so are all others.
        measurements: the expected PCRs; None accepts every enclave.
        nonce: what the document must carry; None accepts any.
        max_age: how old the document may be at the time `at`.
        allow_debug: accept a debug-mode enclave, whose PCR0 proves nothing.

    Raises:
        AttestationError: a rule is broken; the subclass and `rule` say which.
        ValueError: `max_age` without `at`, or an `at` without time zone.
    """
    return Verifier(root).verify(
        document,
        at=at,
        measurements=measurements,
        nonce=nonce,
        max_age=max_age,
        allow_debug=allow_debug,
    )


def _moment(attestation: Attestation, at: datetime | None, max_age: timedelta | None) -> datetime:
    """Return when the certificates must be valid.

    New leaf certificates are backdated by 3 seconds only. Where the clock here may be behind, the
    document's own, later time counts.
    """
    if at is None:
        return attestation.timestamp
    if max_age is not None and timedelta() < attestation.timestamp - at <= CLOCK_SKEW:
        return attestation.timestamp
    return at


def _check_nonce(attestation: Attestation, nonce: bytes) -> None:
    if attestation.nonce is None:
        raise NONCE.broken("it carries none")
    if not hmac.compare_digest(attestation.nonce, nonce):
        raise NONCE.broken("it carries another: it answers some other request")


def _check_age(attestation: Attestation, at: datetime, max_age: timedelta) -> None:
    age = at - attestation.timestamp
    if not -CLOCK_SKEW <= age <= max_age:
        raise AGE.broken(
            f"its time is {utc(attestation.timestamp)} UTC and the clock here says {utc(at)} UTC"
        )

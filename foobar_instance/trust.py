"""What a command trusts: a root, expected measurements, and the documents checked against both."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from foobar_instance.attestation import (
    Attestation,
    AttestationError,
    Measurements,
    Verifier,
)
from foobar_instance.errors import NotVerifiedError
from foobar_instance.logs import debug
from foobar_shared.claims import KeyClaims, parse_key_claims
from foobar_shared.envelope import load_p256_public_key
from foobar_shared.errors import EnvelopeError, MessageError, NameFormatError
from foobar_shared.key_policy import check_account_id, check_region, partition_of

MAX_AGE: Final = timedelta(minutes=5)
"""How old an answer may be that was asked for just now."""

_HINTS: Final = {
    "measurements": "is this the enclave that you built? See --measurements and --pcr0",
    "debug-mode": "start the enclave without --debug-mode, or pass --allow-debug for a test",
    "chain-order": "the document is under another root: AWS's other partition, or an emulator's",
    "chain-validity": "check the clock of this machine",
    "age": "check the clock of this machine",
    "nonce": "somebody replays old answers, or answers in the enclave's place",
}


@dataclass(frozen=True, slots=True)
class Trust:
    """What a document must match. `measurements` None accepts any enclave under the root."""

    verifier: Verifier
    measurements: Measurements | None
    allow_debug: bool = False

    def saved(self, document: bytes, what: str) -> Attestation:
        """A saved document, judged at its own signed time.

        Raises:
            NotVerifiedError: a rule is broken; `what` names the document.
        """
        try:
            attestation = self.verifier.verify(
                document, measurements=self.measurements, allow_debug=self.allow_debug
            )
        except AttestationError as error:
            raise refusal(what, error) from error
        _log_verified(what, attestation)
        return attestation

    def fresh(self, document: bytes, what: str, *, nonce: bytes, now: datetime) -> Attestation:
        """An answer to a request of just now, which carries its nonce.

        Raises:
            NotVerifiedError: a rule is broken; `what` names the document.
        """
        try:
            attestation = self.verifier.verify(
                document,
                at=now,
                measurements=self.measurements,
                nonce=nonce,
                max_age=MAX_AGE,
                allow_debug=self.allow_debug,
            )
        except AttestationError as error:
            raise refusal(what, error) from error
        _log_verified(what, attestation)
        return attestation


def refusal(what: str, error: AttestationError) -> NotVerifiedError:
    """One line: which document, which rule, what was found, what to do."""
    hint = _HINTS.get(error.rule)
    return NotVerifiedError(
        f"{what} does not verify: {error} (rule {error.rule})" + (f"; {hint}" if hint else "")
    )


def key_claims(attestation: Attestation, what: str) -> KeyClaims:
    """The key that a verified document attests, with an ARN that agrees with itself.

    Raises:
        NotVerifiedError: no such claims, or they contradict themselves.
    """
    try:
        claims = parse_key_claims(attestation.user_data)
        load_p256_public_key(claims.public_key)
        partition, region, account, key_id = _arn_parts(claims.key_arn)
        check_account_id(account)
        consistent = (
            partition == partition_of(check_region(claims.region))
            and region == claims.region
            and key_id == claims.key_id
        )
    except (MessageError, EnvelopeError, NameFormatError) as error:
        raise NotVerifiedError(f"{what} does not attest a key: {error}") from error
    if not consistent:
        raise NotVerifiedError(f"{what} does not attest a key: its claims contradict each other")
    return claims


def _log_verified(what: str, attestation: Attestation) -> None:
    debug(__name__, "%s verifies: %s at %s", what, attestation.module_id, attestation.timestamp)


def _arn_parts(arn: str) -> tuple[str, str, str, str]:
    """Partition, region, account id and key id of `arn:P:kms:R:A:key/ID`."""
    parts = arn.split(":")
    if len(parts) != 6 or parts[0] != "arn" or parts[2] != "kms" or parts[5][:4] != "key/":
        raise MessageError("keyArn is not the ARN of a KMS key")
    return parts[1], parts[3], parts[4], parts[5][4:]

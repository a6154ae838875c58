"""`create-key`: asks the enclave for a key, and saves its attestation once it is verified."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from foobar_instance.attestation import AttestationError, parse_attestation
from foobar_instance.enclave_client import EnclaveClient
from foobar_instance.errors import (
    EnclaveUnavailableError,
    InstanceError,
    NotVerifiedError,
    RelayError,
)
from foobar_instance.files import check_writable, write_file
from foobar_instance.kms_client import KmsService
from foobar_instance.metadata import InstanceIdentity, read_identity
from foobar_instance.progress import Progress
from foobar_instance.text import one_line
from foobar_instance.trust import Trust, key_claims
from foobar_shared.addresses import Address, VsockAddress, listen
from foobar_shared.claims import KeyClaims, parse_key_claims
from foobar_shared.errors import MessageError
from foobar_shared.key_policy import is_debug_mode, key_policy, policy_sha256
from foobar_shared.messages import NONCE_BYTES, CreateKeyRequest
from proxy.relay import Relay

_WHAT: Final = "the key's attestation"
_PERHAPS_A_KEY: Final = (
    "a key may have been made all the same: look in KMS for one whose description begins with "
    '"Locked to the enclave image", and schedule its deletion'
)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the enclave is, where the relay listens, and where the attestation is saved."""

    enclave: Address
    relay: Address
    attestation: Path


def create_key(
    role: str, places: Places, trust: Trust, progress: Progress, *, now: Callable[[], datetime]
) -> KeyClaims:
    """Have the enclave create a key, verify its attestation and save it.

    Raises:
        InstanceError: a step failed; no file was written.
    """
    check_writable(places.attestation)  # a key whose attestation is lost is of no use
    with progress.waiting("reading instance metadata"):
        identity = read_identity(role)
    progress.step(f"region {identity.region}, account {identity.account_id}, role {identity.role}")
    nonce = secrets.token_bytes(NONCE_BYTES)
    request = CreateKeyRequest(
        region=identity.region,
        account_id=identity.account_id,
        role=identity.role,
        credentials=identity.credentials,
        nonce=nonce,
    )
    document = _ask(request, places, progress)
    try:
        attestation = trust.fresh(document, _WHAT, nonce=nonce, now=now())
        claims = key_claims(attestation, _WHAT)
        _check_answers_request(claims, identity, attestation.pcrs.get(0, b""))
        progress.step(f"attestation verified, PCR0 {attestation.pcrs[0].hex()}")
        write_file(places.attestation, document)
    except InstanceError as error:
        raise _naming_the_key(error, document) from error
    progress.step(f"key {claims.key_arn}")
    progress.step(f"attestation saved in {places.attestation}")
    return claims


def _ask(request: CreateKeyRequest, places: Places, progress: Progress) -> bytes:
    target = KmsService(request.region).address
    with EnclaveClient(places.enclave) as enclave:
        try:
            listener = listen(places.relay)
        except OSError as error:
            raise _cannot_listen(places.relay, error) from error
        cid = places.enclave.cid if isinstance(places.enclave, VsockAddress) else None
        with Relay(listener, target, allowed_cid=cid):
            progress.step(f"relay up: {places.relay} to {target}")
            try:
                with progress.waiting("the enclave creates a key in KMS"):
                    document = enclave.ask(request)
            except (EnclaveUnavailableError, KeyboardInterrupt):
                # The enclave goes on by itself, and nobody will hear which key it has made.
                progress.warn(_PERHAPS_A_KEY)
                raise
    return document


def _naming_the_key(error: InstanceError, document: bytes) -> InstanceError:
    """The same failure, with the key that costs money if the enclave did make it.

    Nothing of the document need be true: whoever sent it may name a key that is in use.
    """
    try:
        claims = parse_key_claims(parse_attestation(document).user_data)
    except (AttestationError, MessageError):
        return error
    return type(error)(
        f"{error}; the answer names the key {one_line(claims.key_arn)}: if it was made just now, "
        "schedule its deletion in KMS"
    )


def _cannot_listen(address: Address, error: OSError) -> RelayError:
    if error.errno in (errno.EACCES, errno.EPERM):
        return RelayError(
            f"the relay may not listen at {address}: ports below 1024 need root, so run this "
            "command with sudo"
        )
    if error.errno == errno.EADDRINUSE:
        return RelayError(
            f"the relay can't listen at {address}: it is in use; is another create-key running?"
        )
    return RelayError(f"the relay can't listen at {address}: {error.strerror}")


def _check_answers_request(claims: KeyClaims, identity: InstanceIdentity, pcr0: bytes) -> None:
    """The key is the one that was asked for, under the policy that locks it to this enclave."""
    account = claims.key_arn.split(":")[4]
    if claims.region != identity.region or account != identity.account_id:
        raise NotVerifiedError(
            "the attested key is not in the region and account that were asked for: do not use it"
        )
    if is_debug_mode(pcr0):
        raise NotVerifiedError("the enclave made a key in debug mode: do not use it")
    policy = key_policy(
        region=identity.region, account_id=identity.account_id, role=identity.role, pcr0=pcr0
    )
    if claims.policy_sha256 != policy_sha256(policy):
        raise NotVerifiedError(
            "the attested key has another key policy than the enclave's PCR0 calls for: do not use "
            "it"
        )

"""`create-key`: asks the enclave for a key, and saves its attestation once it is verified."""

from __future__ import annotations

import errno
import itertools
import os
import re
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from foobar_instance.attestation import AttestationError, parse_attestation
from foobar_instance.enclave_client import EnclaveClient
from foobar_instance.errors import (
    EnclaveRefusedError,
    EnclaveUnavailableError,
    FileError,
    InstanceError,
    NotVerifiedError,
    RelayError,
    UsageError,
)
from foobar_instance.files import MAX_DOCUMENT, check_writable, read_file, write_file
from foobar_instance.kms_client import KmsService
from foobar_instance.metadata import InstanceIdentity, read_identity
from foobar_instance.terminal import Progress, one_line
from foobar_instance.trust import KEY, Trust, key_claims
from foobar_shared.addresses import Address, TcpAddress, VsockAddress, listen
from foobar_shared.claims import KeyClaims
from foobar_shared.encoding import Fields, parse_json_object
from foobar_shared.errors import MessageError, NameFormatError
from foobar_shared.key_policy import check_role_name, is_debug_mode, key_policy, policy_sha256
from foobar_shared.messages import NONCE_BYTES, CreateKeyRequest
from proxy.relay import Relay

_KEY_ID: Final = re.compile(r"[0-9a-f-]{36}", re.ASCII)
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
    role: str,
    places: Places,
    trust: Trust,
    progress: Progress,
    *,
    now: Callable[[], datetime],
    identify: Callable[[str], InstanceIdentity] = read_identity,
) -> KeyClaims:
    """Have the enclave create a key, verify its attestation and save it.

    The attestation of another key that is there already is renamed, never replaced. `now` is the
    clock; `identify` reads region, account and credentials of the instance's IAM role.

    Raises:
        InstanceError: a step failed; no file was written.
    """
    _check_role(role)
    check_writable(places.attestation)  # a key whose attestation is lost is of no use
    with progress.waiting("reading instance metadata"):
        identity = identify(role)
    trust.check_partition(identity.region)
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
        attestation = trust.verify_fresh(document, KEY, nonce=nonce, now=now())
        claims = key_claims(attestation)
        _check_answers_request(claims, identity, attestation.pcrs.get(0, b""))
        progress.step(f"attestation verified, PCR0 {attestation.pcrs[0].hex()}")
        kept = _name_for_old(places.attestation)
        write_file(places.attestation, document, keep_old_as=kept)
    except InstanceError as error:
        raise _with_the_keys_name(error, document) from error
    except KeyboardInterrupt:
        progress.warn(_PERHAPS_A_KEY)
        raise
    if kept:
        progress.note(f"the attestation that was in {places.attestation} is now in {kept}")
    progress.step(f"key {claims.key_arn}")
    progress.step(f"attestation saved in {places.attestation}")
    return claims


def _check_role(role: str) -> None:
    try:
        check_role_name(role)
    except NameFormatError as error:
        name = role.rpartition("/")[2]
        raise UsageError(
            f"--role: {error}: give the name alone, {one_line(name)!r} and not its ARN or path; a "
            "role that has a path can't be used, since the key's policy names it by role/NAME"
            if "/" in role
            else f"--role: {error}"
        ) from error


def start_relay(
    places: Places,
    target: TcpAddress,
    *,
    listen: Callable[[Address], socket.socket] = listen,
    relay: Callable[..., Relay] = Relay,
) -> Relay:
    """Return a relay to KMS, which only the enclave may use; it serves from `__enter__` on.

    Raises:
        RelayError: it can't listen there; the text says what to do.
    """
    cannot = f"the relay can't listen at {places.relay}"
    try:
        listener = listen(places.relay)
    except PermissionError as error:
        raise RelayError(
            f"the relay may not listen at {places.relay}: ports below 1024 need root, so run this "
            "command with sudo"
        ) from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise RelayError(f"{cannot}: it is in use; is another create-key running?") from error
        raise RelayError(f"{cannot}: {error.strerror}") from error
    cid = places.enclave.cid if isinstance(places.enclave, VsockAddress) else None
    return relay(listener, target, allowed_cid=cid)


def _ask(request: CreateKeyRequest, places: Places, progress: Progress) -> bytes:
    target = KmsService(request.region).address
    with EnclaveClient(places.enclave) as enclave, start_relay(places, target) as relay:
        progress.step(f"relay up: {places.relay} to {target}")
        try:
            with progress.waiting("the enclave creates a key in KMS"):
                return enclave.ask(request)
        except EnclaveRefusedError as error:
            if relay.last_failure is None:
                raise
            # The enclave sees only a cut connection.
            text = f"{error}; the relay can't reach {one_line(relay.last_failure)}"
            raise EnclaveRefusedError(text) from error
        except (EnclaveUnavailableError, KeyboardInterrupt):
            # The enclave goes on by itself, and nobody will hear which key it has made.
            progress.warn(_PERHAPS_A_KEY)
            raise


def _name_for_old(path: Path) -> Path | None:
    """Return a free name for what is at `path`: with the id of its key, else with a number."""
    if not os.path.lexists(path):
        return None
    try:
        key = _unverified_key(read_file(path, limit=MAX_DOCUMENT)) or ""
    except FileError:
        key = ""
    key_id = key.rpartition("/")[2]
    # The id becomes part of a path, and anybody may have written the old document.
    key_ids = [key_id] if _KEY_ID.fullmatch(key_id) else []
    names = itertools.chain(key_ids, map(str, itertools.count(1)))
    kept = (path.with_name(f"{path.stem}.{name}{path.suffix}") for name in names)
    return next(name for name in kept if not os.path.lexists(name))


def _with_the_keys_name(error: InstanceError, document: bytes) -> InstanceError:
    """Return the same error, with the name of the key that costs money if the enclave made it."""
    key = _unverified_key(document)
    if key is None:
        return error
    return type(error)(
        f"{error}; the answer names the key {one_line(key)}: if it was made just now, "
        "schedule its deletion in KMS"
    )


def _unverified_key(document: bytes) -> str | None:
    """Return the ARN of the key that a document names, or the id that the original's enclave gives.

    The document may name any key, even one that is in use. It is for finding the key, no more.
    """
    try:
        values = parse_json_object(parse_attestation(document).user_data or b"")
        key_id = Fields("", values).text("keyId")
    except (AttestationError, MessageError):
        return None
    arn = values.get("keyArn")
    return arn if arn and isinstance(arn, str) else key_id


def _check_answers_request(claims: KeyClaims, identity: InstanceIdentity, pcr0: bytes) -> None:
    """Check that the key is the one that was asked for, and locked to this enclave."""
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

"""The key ceremony: a KMS key that only this enclave image can use, and the proof of it."""

from __future__ import annotations

import re
from typing import Final

from foobar_enclave.errors import (
    DebugModeError,
    EnclaveError,
    KmsAnswerError,
    KmsError,
    KmsRefusedError,
    KmsUnreachableError,
    NsmInvalidResponseError,
    UnattestedKeyError,
)
from foobar_enclave.kms import KeyMetadata, KmsConnector, KmsSession, PublicKey
from foobar_enclave.nsm import NsmDevice
from foobar_enclave.text import one_line
from foobar_shared.claims import KeyClaims
from foobar_shared.envelope import load_p256_public_key
from foobar_shared.errors import EnvelopeError, SharedError
from foobar_shared.key_policy import (
    PCR_BYTES,
    check_region,
    is_debug_mode,
    key_policy,
    partition_of,
    policy_sha256,
)
from foobar_shared.messages import CreateKeyRequest

_KEY_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_SPEC: Final = "ECC_NIST_P256"
_USAGE: Final = "KEY_AGREEMENT"


def create_key(request: CreateKeyRequest, *, nsm: NsmDevice, kms: KmsConnector) -> bytes:
    """An attestation document (raw COSE_Sign1) whose `user_data` are the new key's claims.

    Raises:
        DebugModeError: the enclave runs in debug mode; nothing was asked of KMS.
        NameFormatError, RegionError: what the request names cannot be AWS's.
        KmsError: KMS has made no key.
        UnattestedKeyError: KMS has made a key, which the text names; what followed failed.
        NsmError: the module did not tell PCR0.
    """
    pcr0 = _own_pcr0(nsm)
    check_region(request.region)
    policy = key_policy(
        region=request.region, account_id=request.account_id, role=request.role, pcr0=pcr0
    )
    session = kms.open(request.region, request.credentials)
    description = f"Locked to the enclave image with PCR0 {pcr0.hex()}"
    metadata = _make(session, policy, description)
    try:
        claims = _checked_claims(request, session, metadata, policy_sha256(policy))
        # No public_key: only what getAttestation answers may serve KMS as a recipient.
        return nsm.attest(user_data=claims.encode(), nonce=request.nonce)
    except (EnclaveError, SharedError) as error:
        raise UnattestedKeyError(_name(metadata), str(error)) from None
    except Exception as error:
        raise UnattestedKeyError(_name(metadata), f"a defect, {type(error).__name__}") from error


def _own_pcr0(nsm: NsmDevice) -> bytes:
    pcr0 = nsm.describe_pcr(0).data
    if len(pcr0) != PCR_BYTES:
        raise NsmInvalidResponseError("DescribePCR", f"PCR0 is not {PCR_BYTES} bytes")
    if is_debug_mode(pcr0):
        raise DebugModeError(
            "this enclave runs in debug mode, so any other debug enclave could use the key: "
            "start it without --debug-mode"
        )
    return pcr0


def _make(session: KmsSession, policy: str, description: str) -> KeyMetadata:
    try:
        return session.create_key(policy=policy, description=description)
    except KmsError as error:
        if not _may_have_acted(error):
            raise
        raise UnattestedKeyError(
            f'with the description "{description}", if any,', str(error)
        ) from None


def _may_have_acted(error: KmsError) -> bool:
    """Whether KMS may have done what it was asked, though its answer does not say so."""
    if isinstance(error, KmsUnreachableError):
        return error.sent
    if isinstance(error, KmsRefusedError):
        return error.failed
    return isinstance(error, KmsAnswerError)


def _checked_claims(
    request: CreateKeyRequest, session: KmsSession, metadata: KeyMetadata, policy_hash: bytes
) -> KeyClaims:
    key_id, key_arn = _check_metadata(request, metadata)
    public_key = _check_public_key(session.get_public_key(key_arn), key_arn)
    return KeyClaims(
        key_id=key_id,
        key_arn=key_arn,
        public_key=public_key,
        region=request.region,
        policy_sha256=policy_hash,
    )


def _check_metadata(request: CreateKeyRequest, metadata: KeyMetadata) -> tuple[str, str]:
    """Id and ARN of a key that is what was asked for."""
    for what, actual, expected in (
        ("KeySpec", metadata.spec, _SPEC),
        ("KeyUsage", metadata.usage, _USAGE),
        ("Origin", metadata.origin, "AWS_KMS"),
        ("KeyState", metadata.state, "Enabled"),
        ("MultiRegion", metadata.multi_region, False),
        ("AWSAccountId", metadata.account_id, request.account_id),
    ):
        _check("CreateKey", what, actual, expected)
    if metadata.key_id is None or not _KEY_ID.fullmatch(metadata.key_id):
        raise KmsAnswerError(f"KMS's answer to CreateKey has KeyId {one_line(metadata.key_id)}")
    partition = partition_of(request.region)
    arn = f"arn:{partition}:kms:{request.region}:{request.account_id}:key/{metadata.key_id}"
    _check("CreateKey", "Arn", metadata.arn, arn)
    return metadata.key_id, arn


def _check_public_key(answer: PublicKey, key_arn: str) -> bytes:
    """DER SubjectPublicKeyInfo of a P-256 key."""
    _check("GetPublicKey", "KeyId", answer.key_arn, key_arn)
    _check("GetPublicKey", "KeySpec", answer.spec, _SPEC)
    _check("GetPublicKey", "KeyUsage", answer.usage, _USAGE)
    if "ECDH" not in answer.agreement_algorithms:
        raise KmsAnswerError("KMS's answer to GetPublicKey does not offer ECDH")
    try:
        load_p256_public_key(answer.der)
    except EnvelopeError as error:
        raise KmsAnswerError(f"KMS's answer to GetPublicKey: {error}") from None
    return answer.der


def _check(operation: str, what: str, actual: object, expected: object) -> None:
    if actual != expected:
        raise KmsAnswerError(
            f"KMS's answer to {operation} has {what} {one_line(actual)}, not {expected}"
        )


def _name(metadata: KeyMetadata) -> str:
    return one_line(metadata.arn or metadata.key_id or "(without a name)")

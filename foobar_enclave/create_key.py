"""The key ceremony: a KMS key that only this enclave image can use, and the proof of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from foobar_enclave.errors import (
    DebugModeError,
    EnclaveError,
    KmsError,
    NsmError,
    SandboxError,
    UnattestedKeyError,
    one_line,
)
from foobar_enclave.kms import KmsConnector, KmsSession
from foobar_enclave.nsm import NsmDevice
from foobar_shared.claims import KeyClaims
from foobar_shared.envelope import load_p256_public_key
from foobar_shared.errors import EnvelopeError, SharedError
from foobar_shared.key_policy import (
    PCR_BYTES,
    SANDBOX_PCR,
    is_debug_mode,
    key_policy,
    partition_of,
    policy_sha256,
)
from foobar_shared.messages import CreateKeyRequest

_KEY_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_ASKED_FOR: Final = {"KeySpec": "ECC_NIST_P256", "KeyUsage": "KEY_AGREEMENT"}


def create_key(request: CreateKeyRequest, *, nsm: NsmDevice, kms: KmsConnector) -> bytes:
    """Return an attestation document (raw COSE_Sign1) whose `user_data` are a new key's claims.

    Raises:
        DebugModeError, SandboxError: PCR0 would not protect the key; nothing was asked of KMS.
        NameFormatError: what the request names is not of AWS's form.
        KmsError: KMS has made no key, or the region has no KMS.
        UnattestedKeyError: KMS has made a key, which the text names; what followed failed.
        NsmError: the module did not tell PCR0 or PCR17.
    """
    pcr0 = _own_pcr0(nsm)
    _refuse_sandbox(nsm)
    policy = key_policy(
        region=request.region, account_id=request.account_id, role=request.role, pcr0=pcr0
    )
    session = kms.open(request.region, request.credentials)
    description = f"Locked to the enclave image with PCR0 {pcr0.hex()}"
    described = f'with the description "{description}", if any,'
    try:
        metadata = session.create_key(policy=policy, description=description)
    except KmsError as error:
        if not error.may_have_acted:
            raise
        raise UnattestedKeyError(described, str(error)) from None
    name = one_line(metadata.get("Arn") or metadata.get("KeyId") or described)
    try:
        key_id, key_arn = _check_metadata(request, metadata)
        public_key = _public_key(session, key_arn)
        claims = KeyClaims(key_id, key_arn, public_key, request.region, policy_sha256(policy))
        # No public_key: only what getAttestation answers may serve KMS as a recipient.
        return nsm.attest(user_data=claims.encode(), nonce=request.nonce)
    except (EnclaveError, SharedError) as error:
        raise UnattestedKeyError(name, str(error)) from None
    except Exception as error:
        raise UnattestedKeyError(name, f"a defect, {type(error).__name__}") from error


def _own_pcr0(nsm: NsmDevice) -> bytes:
    pcr0 = nsm.describe_pcr(0).data
    if len(pcr0) != PCR_BYTES:
        raise NsmError("DescribePCR", f"PCR0 is not {PCR_BYTES} bytes")
    if is_debug_mode(pcr0):
        raise DebugModeError(
            "this enclave runs in debug mode, so any other debug enclave could use the key: "
            "start it without --debug-mode"
        )
    return pcr0


def _refuse_sandbox(nsm: NsmDevice) -> None:
    """Refuse a Nitro Sandbox: AWS's guest image makes PCR0, and PCR17 tells the workloads apart."""
    try:
        pcr17 = nsm.describe_pcr(SANDBOX_PCR).data
    except NsmError as error:
        if error.code != "InvalidIndex":
            raise
        return  # a module with fewer PCRs
    if any(pcr17):
        raise SandboxError(
            "this is a Nitro Sandbox (PCR17 is not zero), so any workload with the same guest "
            "image could use the key: run this service in a Nitro Enclave"
        )


def _check_metadata(request: CreateKeyRequest, metadata: Mapping[str, object]) -> tuple[str, str]:
    """Return id and ARN of a new key; raise KmsError where KMS made another than was asked for."""
    key_id = metadata.get("KeyId")
    if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id):
        raise KmsError(f"KMS's answer to CreateKey has KeyId {one_line(key_id)}")
    partition = partition_of(request.region)
    arn = f"arn:{partition}:kms:{request.region}:{request.account_id}:key/{key_id}"
    expected = _ASKED_FOR | {
        "Origin": "AWS_KMS",
        "KeyState": "Enabled",
        "MultiRegion": False,
        "AWSAccountId": request.account_id,
        "Arn": arn,
    }
    _check("CreateKey", metadata, expected)
    return key_id, arn


def _public_key(session: KmsSession, key_arn: str) -> bytes:
    """Return DER SubjectPublicKeyInfo of a P-256 key."""
    answer = session.get_public_key(key_arn)
    _check("GetPublicKey", answer, _ASKED_FOR | {"KeyId": key_arn})
    algorithms, der = answer.get("KeyAgreementAlgorithms"), answer.get("PublicKey")
    if not isinstance(algorithms, list) or "ECDH" not in algorithms:
        raise KmsError("KMS's answer to GetPublicKey does not offer ECDH")
    if not isinstance(der, bytes):
        raise KmsError("KMS's answer to GetPublicKey has no public key")
    try:
        load_p256_public_key(der)
    except EnvelopeError as error:
        raise KmsError(f"KMS's answer to GetPublicKey: {error}") from None
    return der


def _check(operation: str, answer: Mapping[str, object], expected: Mapping[str, object]) -> None:
    for name, value in expected.items():
        if answer.get(name) != value:
            actual = one_line(answer.get(name))
            raise KmsError(f"KMS's answer to {operation} has {name} {actual}, not {value}")

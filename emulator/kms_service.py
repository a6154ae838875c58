"""KMS's operations on the keys of one account in one region; each is authorised first."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from emulator.clock import Clock
from emulator.identity import Instance, Principal
from emulator.kms_fault import KmsFault, invalid, malformed_policy, unsupported
from emulator.policy_evaluation import Access, Policy, iam_allows
from emulator.recipient import Recipient, verify_recipient
from emulator.recipient_cms import encrypt_for_recipient
from foobar_instance.attestation import Verifier
from foobar_shared.encoding import Fields, to_base64
from foobar_shared.errors import MessageError
from foobar_shared.key_policy import partition_of

_Answer: TypeAlias = Mapping[str, object]

_MAX_KEY_ID: Final = 2048  # KMS's API model
_KIND: Final = {
    "KeySpec": "ECC_NIST_P256",
    "CustomerMasterKeySpec": "ECC_NIST_P256",
    "KeyUsage": "KEY_AGREEMENT",
    "KeyAgreementAlgorithms": ["ECDH"],
}
_PLAIN: Final = {"Origin": "AWS_KMS", "MultiRegion": False}
_BYPASS: Final = "BypassPolicyLockoutSafetyCheck"
# Each operation that is offered, and the members that its request may have.
_MEMBERS: Final = {
    "CreateKey": {"Policy", "KeySpec", "KeyUsage", "Description", _BYPASS, *_PLAIN},
    "DescribeKey": {"KeyId"},
    "GetPublicKey": {"KeyId"},
    "GetKeyPolicy": {"KeyId", "PolicyName"},
    "DeriveSharedSecret": {"KeyId", "KeyAgreementAlgorithm", "PublicKey", "Recipient", "DryRun"},
    "ScheduleKeyDeletion": {"KeyId", "PendingWindowInDays"},
}


@dataclass(frozen=True, slots=True)
class _Key:
    """One key at one time; `deletion` is None while it is enabled."""

    arn: str
    private_key: ec.EllipticCurvePrivateKey
    policy: Policy
    description: str
    created: datetime
    deletion: datetime | None = None

    def metadata(self) -> _Answer:
        """Return KMS's KeyMetadata."""
        return {
            "AWSAccountId": self.arn.split(":")[4],
            "KeyId": self.arn.rpartition("/")[2],
            "Arn": self.arn,
            "CreationDate": self.created.timestamp(),
            "Enabled": self.deletion is None,
            "Description": self.description,
            "KeyState": "PendingDeletion" if self.deletion else "Enabled",
            "KeyManager": "CUSTOMER",
            **_PLAIN,
            **_KIND,
            **({"DeletionDate": self.deletion.timestamp()} if self.deletion else {}),
        }

    def require_enabled(self) -> None:
        if self.deletion:
            raise KmsFault("KMSInvalidStateException", f"{self.arn} is pending deletion.")


class KmsService:
    """KMS of one account in one region, apart from how it is reached. Thread-safe."""

    def __init__(self, instance: Instance, verifier: Verifier, *, clock: Clock) -> None:
        self._verifier = verifier
        self._clock = clock
        self._arn_prefix = (
            f"arn:{partition_of(instance.region)}:kms:{instance.region}:{instance.account_id}:key/"
        )
        self._root = instance.root()
        self._known_principals = {
            *(instance.account_id, instance.root().arn),
            *(instance.role_arn, instance.role_session().arn),
        }
        self._keys: dict[str, _Key] = {}
        self._lock = threading.Lock()

    def perform(self, operation: str, members: _Answer, caller: Principal) -> _Answer:
        """Return the members of the answer to an operation.

        Raises:
            KmsFault: KMS's refusal. An operation that is not offered here is refused as not
                allowed where it is not allowed either.
        """
        try:
            with self._lock:
                return self._answer(operation, members, caller)
        except MessageError as error:
            raise invalid(f"1 validation error detected: {error}") from None

    def _answer(self, operation: str, members: _Answer, caller: Principal) -> _Answer:
        fields = Fields("", members)
        if operation == "CreateKey":
            return self._create_key(members, caller)
        if not fields.has("KeyId"):
            _require_iam(caller, operation)
            raise unsupported(f"{operation} without a KeyId")
        key = self._find(fields.text("KeyId", maximum=_MAX_KEY_ID))
        recipient = None
        if operation == "DeriveSharedSecret" and fields.has("Recipient"):
            recipient = verify_recipient(
                fields.nested("Recipient"), self._verifier, now=self._clock()
            )
        context = recipient.context if recipient else {}
        _authorise(key, Access(caller, f"kms:{operation}", key.arn, context))
        _require_offered(operation, members)
        if operation == "DeriveSharedSecret":
            answer = _derive_shared_secret(key, fields, recipient)
            if members.get("DryRun"):
                raise KmsFault("DryRunOperationException", "DryRun is set: nothing was derived.")
            return answer
        if operation == "GetPublicKey":
            return _public_key(key)
        if operation == "GetKeyPolicy":
            if members.get("PolicyName", "default") != "default":
                raise KmsFault("NotFoundException", "No such policy exists")
            return {"Policy": key.policy.text, "PolicyName": "default"}
        if operation == "ScheduleKeyDeletion":
            return self._schedule_deletion(key, fields)
        return {"KeyMetadata": key.metadata()}

    def _create_key(self, members: _Answer, caller: Principal) -> _Answer:
        _require_iam(caller, "CreateKey")
        _require_offered("CreateKey", members)
        offered = _PLAIN | {name: _KIND[name] for name in ("KeySpec", "KeyUsage")}
        asked = _PLAIN | {name: members[name] for name in offered if name in members}
        if asked != offered:
            raise unsupported("a key that is not an ECC_NIST_P256 key for KEY_AGREEMENT")
        policy, description = members.get("Policy"), members.get("Description", "")
        if not isinstance(policy, str | None) or not isinstance(description, str):
            raise invalid("Policy or Description is not text.")
        arn = f"{self._arn_prefix}{uuid.uuid4()}"
        key = _Key(
            arn=arn,
            private_key=ec.generate_private_key(ec.SECP256R1()),
            policy=Policy.default(self._root) if policy is None else Policy.parse(policy),
            description=description,
            created=self._clock(),
        )
        self._check_policy(key, caller, bypass=members.get(_BYPASS) is True)
        self._keys[arn] = key
        return {"KeyMetadata": key.metadata()}

    def _schedule_deletion(self, key: _Key, fields: Fields) -> _Answer:
        days = 30
        if fields.has("PendingWindowInDays"):
            days = fields.integer("PendingWindowInDays", minimum=7, maximum=30)
        key.require_enabled()
        deletion = self._clock() + timedelta(days=days)
        self._keys[key.arn] = replace(key, deletion=deletion)
        return {
            "KeyId": key.arn,
            "DeletionDate": deletion.timestamp(),
            "KeyState": "PendingDeletion",
            "PendingWindowInDays": days,
        }

    def _check_policy(self, key: _Key, caller: Principal, *, bypass: bool) -> None:
        """Refuse unknown principals, and a policy that locks its caller out of changing it."""
        if not key.policy.principals <= self._known_principals:
            raise malformed_policy(
                "Policy contains a statement with one or more invalid principals."
            )
        # An Allow for the account counts, whatever IAM says today.
        trusting = replace(caller, iam_actions=("kms:*",))
        if not bypass and not key.policy.allows(Access(trusting, "kms:PutKeyPolicy", key.arn, {})):
            raise malformed_policy(
                "The new key policy will not allow you to update the key policy in the future."
            )

    def _find(self, name: str) -> _Key:
        """Return the key that `name` is the id or the ARN of."""
        key = self._keys.get(self._arn_prefix + name.removeprefix(self._arn_prefix))
        if key is None:
            raise KmsFault("NotFoundException", f"Key '{name}' does not exist")
        return key


def _public_key(key: _Key) -> _Answer:
    key.require_enabled()
    spki = key.private_key.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    return {"KeyId": key.arn, "PublicKey": to_base64(spki), **_KIND}


def _derive_shared_secret(key: _Key, fields: Fields, recipient: Recipient | None) -> _Answer:
    key.require_enabled()
    secret = _shared_secret(key, fields)
    answer = {"KeyId": key.arn, "KeyAgreementAlgorithm": "ECDH", "KeyOrigin": "AWS_KMS"}
    if recipient is None:
        return answer | {"SharedSecret": to_base64(secret)}
    sealed = encrypt_for_recipient(secret, recipient.public_key)
    return answer | {"SharedSecret": None, "CiphertextForRecipient": to_base64(sealed)}


def _shared_secret(key: _Key, fields: Fields) -> bytes:
    if fields.text("KeyAgreementAlgorithm") != "ECDH":
        raise invalid("KeyAgreementAlgorithm must be ECDH.")
    refusal = invalid("PublicKey is not a public key on the curve of the KMS key.")
    try:
        peer = load_der_public_key(fields.data("PublicKey"))
    except Exception as error:  # the library does not bound what it raises
        raise refusal from error
    if not isinstance(peer, ec.EllipticCurvePublicKey) or peer.curve.name != "secp256r1":
        raise refusal
    return key.private_key.exchange(ec.ECDH(), peer)


def _require_offered(operation: str, members: _Answer) -> None:
    if operation not in _MEMBERS:
        raise unsupported(operation)
    if others := members.keys() - _MEMBERS[operation]:
        raise unsupported(f"{operation} with {', '.join(sorted(others))}")


def _authorise(key: _Key, access: Access) -> None:
    if not key.policy.allows(access):
        raise _access_denied(access.caller, access.action, f" on resource: {key.arn}", "resource")


def _require_iam(caller: Principal, operation: str) -> None:
    action = f"kms:{operation}"
    if not iam_allows(caller, action):
        raise _access_denied(caller, action, "", "identity")


def _access_denied(caller: Principal, action: str, where: str, kind: str) -> KmsFault:
    return KmsFault(
        "AccessDeniedException",
        f"User: {caller.arn} is not authorized to perform: {action}{where} "
        f"because no {kind}-based policy allows the {action} action",
    )

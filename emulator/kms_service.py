"""KMS's operations on the keys of one account in one region; each is authorised first."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from emulator import policy_evaluation as policies
from emulator.clock import Clock
from emulator.identity import Instance, Principal
from emulator.kms_fault import KmsFault, invalid, malformed_policy, unsupported
from emulator.kms_key import CURVES, KEY_AGREEMENT, SIGN_VERIFY, KmsKey
from emulator.recipient import Recipient, verify_recipient
from emulator.recipient_cms import encrypt_for_recipient
from foobar_instance.attestation import Verifier
from foobar_shared.encoding import Fields, to_base64
from foobar_shared.errors import MessageError
from foobar_shared.key_policy import partition_of

# Bounds of KMS's API model.
_MAX_KEY_ID: Final = 2048
_MAX_DESCRIPTION: Final = 8192
_MAX_POLICY: Final = 131072


@dataclass(frozen=True, slots=True)
class _Request:
    operation: str
    members: Mapping[str, object]
    caller: Principal

    @property
    def fields(self) -> Fields:
        return Fields("", self.members)

    def flag(self, name: str) -> bool:
        return self.members.get(name) is True

    def long_text(self, name: str, *, maximum: int) -> str | None:
        """Return a text of any characters, or None."""
        value = self.members.get(name)
        if value is not None and not (isinstance(value, str) and len(value) <= maximum):
            raise invalid(f"{name} is not a text of at most {maximum} characters.")
        return value


_Answer: TypeAlias = Mapping[str, object]


class KmsService:
    """KMS of one account in one region, apart from how it is reached. Thread-safe."""

    def __init__(self, instance: Instance, verifier: Verifier, *, clock: Clock) -> None:
        self._verifier = verifier
        self._clock = clock
        self._arn_prefix = (
            f"arn:{partition_of(instance.region)}:kms:{instance.region}:{instance.account_id}:key/"
        )
        self._default_policy = policies.default_policy(instance.root())
        self._known_principals = {
            *(instance.account_id, instance.root().arn),
            *(instance.role_arn, instance.role_session().arn),
        }
        self._keys: dict[str, KmsKey] = {}
        self._lock = threading.Lock()
        self._operations: dict[str, Callable[[KmsKey, _Request], _Answer]] = {
            "DescribeKey": lambda key, _: {"KeyMetadata": key.metadata()},
            "GetPublicKey": _get_public_key,
            "GetKeyPolicy": _get_key_policy,
            "PutKeyPolicy": self._put_key_policy,
            "EnableKey": self._enable_key,
            "DisableKey": self._disable_key,
            "ScheduleKeyDeletion": self._schedule_key_deletion,
            "CancelKeyDeletion": self._cancel_key_deletion,
        }

    def perform(
        self, operation: str, members: Mapping[str, object], caller: Principal
    ) -> Mapping[str, object]:
        """Return the members of the answer to an operation.

        Raises:
            KmsFault: KMS's refusal. An operation that is not offered here is refused as not
                allowed where it is not allowed either.
        """
        try:
            with self._lock:
                return self._answer(_Request(operation, members, caller))
        except MessageError as error:
            raise invalid(f"1 validation error detected: {error}") from None

    def _answer(self, request: _Request) -> _Answer:
        if request.operation == "CreateKey":
            return self._create_key(request)
        if not request.fields.has("KeyId"):
            _require_iam(request.caller, request.operation)
            raise unsupported(f"{request.operation} without a KeyId")
        key = self._find(request.fields.text("KeyId", maximum=_MAX_KEY_ID))
        recipient = None
        if request.operation == "DeriveSharedSecret" and request.fields.has("Recipient"):
            recipient = verify_recipient(
                request.fields.nested("Recipient"), self._verifier, now=self._clock()
            )
        _authorise(key, request, recipient.context if recipient else {})
        if request.members.get("GrantTokens"):
            raise KmsFault("InvalidGrantTokenException", "The grant token is not valid.")
        if request.operation == "DeriveSharedSecret":
            return _derive_shared_secret(key, request, recipient)
        if request.operation not in self._operations:
            raise unsupported(request.operation)
        return self._operations[request.operation](key, request)

    def _create_key(self, request: _Request) -> _Answer:
        _require_iam(request.caller, "CreateKey")
        if request.members.get("Tags"):
            _require_iam(request.caller, "TagResource")
        spec, usage = _spec_and_usage(request)
        policy = request.long_text("Policy", maximum=_MAX_POLICY)
        if policy is not None:
            self._check_policy(policy, request, resource="*")
        key_id = str(uuid.uuid4())
        key = KmsKey(
            key_id=key_id,
            arn=self._arn_prefix + key_id,
            spec=spec,
            usage=usage,
            private_key=ec.generate_private_key(CURVES[spec]),
            policy=policy or self._default_policy,
            description=request.long_text("Description", maximum=_MAX_DESCRIPTION) or "",
            created=self._clock(),
        )
        self._keys[key_id] = key
        return {"KeyMetadata": key.metadata()}

    def _put_key_policy(self, key: KmsKey, request: _Request) -> _Answer:
        _check_policy_name(request)
        policy = request.long_text("Policy", maximum=_MAX_POLICY) or ""
        self._check_policy(policy, request, resource=key.arn)
        return self._change(replace(key, policy=policy))

    def _enable_key(self, key: KmsKey, _: _Request) -> _Answer:
        key.require_not_pending()
        return self._change(replace(key, state="Enabled"))

    def _disable_key(self, key: KmsKey, _: _Request) -> _Answer:
        key.require_not_pending()
        return self._change(replace(key, state="Disabled"))

    def _schedule_key_deletion(self, key: KmsKey, request: _Request) -> _Answer:
        days = 30
        if request.fields.has("PendingWindowInDays"):
            days = request.fields.integer("PendingWindowInDays", minimum=7, maximum=30)
        key.require_not_pending()
        deletion = self._clock() + timedelta(days=days)
        self._change(replace(key, state="PendingDeletion", deletion=deletion))
        return {
            "KeyId": key.arn,
            "DeletionDate": deletion.timestamp(),
            "KeyState": "PendingDeletion",
            "PendingWindowInDays": days,
        }

    def _cancel_key_deletion(self, key: KmsKey, _: _Request) -> _Answer:
        if key.state != "PendingDeletion":
            raise KmsFault("KMSInvalidStateException", f"{key.arn} is not pending deletion.")
        self._change(replace(key, state="Disabled", deletion=None))
        return {"KeyId": key.arn}

    def _change(self, key: KmsKey) -> _Answer:
        self._keys[key.key_id] = key
        return {}

    def _check_policy(self, policy: str, request: _Request, *, resource: str) -> None:
        policies.check_principals(policy, self._known_principals)
        if not request.flag("BypassPolicyLockoutSafetyCheck") and (
            not policies.leaves_policy_changeable(policy, request.caller, resource)
        ):
            raise malformed_policy(
                "The new key policy will not allow you to update the key policy in the future."
            )

    def _find(self, name: str) -> KmsKey:
        """Return the key that `name` is the id or the ARN of."""
        key = self._keys.get(name.removeprefix(self._arn_prefix))
        if key is None:
            raise KmsFault("NotFoundException", f"Key '{name}' does not exist")
        return key


def _spec_and_usage(request: _Request) -> tuple[str, str]:
    fields = request.fields
    spec = fields.text("KeySpec", maximum=64) if fields.has("KeySpec") else "SYMMETRIC_DEFAULT"
    origin = fields.text("Origin", maximum=64) if fields.has("Origin") else "AWS_KMS"
    if spec not in CURVES or origin != "AWS_KMS" or request.flag("MultiRegion"):
        raise unsupported("a key that is not an ECC_NIST key of one region, made by KMS itself")
    usage = fields.text("KeyUsage", maximum=64)
    if usage not in (KEY_AGREEMENT, SIGN_VERIFY):
        raise invalid(f"KeyUsage {usage} is not compatible with KeySpec {spec}")
    return spec, usage


def _get_public_key(key: KmsKey, _: _Request) -> _Answer:
    key.require_enabled()
    return key.public_key()


def _get_key_policy(key: KmsKey, request: _Request) -> _Answer:
    _check_policy_name(request)
    return {"Policy": key.policy, "PolicyName": "default"}


def _derive_shared_secret(key: KmsKey, request: _Request, recipient: Recipient | None) -> _Answer:
    if request.fields.text("KeyAgreementAlgorithm") != "ECDH":
        raise invalid("KeyAgreementAlgorithm must be ECDH.")
    key.require_enabled()
    if key.usage != KEY_AGREEMENT:
        raise KmsFault(
            "InvalidKeyUsageException",
            f"{key.arn} key usage is {key.usage} which is not valid for DeriveSharedSecret.",
        )
    peer = _peer_key(request.fields.data("PublicKey"), CURVES[key.spec])
    if request.flag("DryRun"):
        raise KmsFault(
            "DryRunOperationException",
            "The request would have succeeded, but the DryRun option is set.",
        )
    secret = key.private_key.exchange(ec.ECDH(), peer)
    answer = {"KeyId": key.arn, "KeyAgreementAlgorithm": "ECDH", "KeyOrigin": "AWS_KMS"}
    if recipient is None:
        return answer | {"SharedSecret": to_base64(secret)}
    sealed = encrypt_for_recipient(secret, recipient.public_key)
    return answer | {"SharedSecret": None, "CiphertextForRecipient": to_base64(sealed)}


def _peer_key(der: bytes, curve: ec.EllipticCurve) -> ec.EllipticCurvePublicKey:
    refusal = invalid("PublicKey is not a public key on the curve of the KMS key.")
    try:
        key = load_der_public_key(der)
    except Exception as error:  # the library does not bound what it raises
        raise refusal from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != curve.name:
        raise refusal
    return key


def _check_policy_name(request: _Request) -> None:
    if request.members.get("PolicyName", "default") != "default":
        raise KmsFault("NotFoundException", "No such policy exists")


def _authorise(key: KmsKey, request: _Request, context: Mapping[str, str]) -> None:
    action = f"kms:{request.operation}"
    decision = policies.evaluate(
        key.policy, policies.Access(request.caller, action, key.arn, context)
    )
    if decision is not policies.Decision.ALLOWED:
        reason = (
            "with an explicit deny in a resource-based policy"
            if decision is policies.Decision.DENIED
            else f"because no resource-based policy allows the {action} action"
        )
        raise _access_denied(request.caller, f"{action} on resource: {key.arn} {reason}")


def _require_iam(caller: Principal, operation: str) -> None:
    action = f"kms:{operation}"
    if not policies.iam_allows(caller, action):
        raise _access_denied(
            caller, f"{action} because no identity-based policy allows the {action} action"
        )


def _access_denied(caller: Principal, what: str) -> KmsFault:
    return KmsFault(
        "AccessDeniedException", f"User: {caller.arn} is not authorized to perform: {what}"
    )

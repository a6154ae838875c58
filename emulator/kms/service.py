"""KMS's operations: each is authorised first, then done by moto or, where moto lacks it, here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import botocore.session
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from emulator.clock import Clock
from emulator.cms import encrypt_for_recipient
from emulator.identity import Instance, Principal
from emulator.kms import keys, policy
from emulator.kms.errors import KmsError, malformed_policy, unsupported, validation_error
from emulator.kms.fields import Fields
from emulator.kms.recipient import Recipient, verify_recipient
from emulator.kms.store import KeyRecord, KeyStore
from foobar_instance.attestation import Verifier
from foobar_shared.encoding import to_base64

_MAX_KEY_ID: Final = 2048
_MAX_POLICY: Final = 131072
_MAX_PUBLIC_KEY: Final = 8192
_POLICY_NAME: Final = "default"


class KmsService:
    """KMS of one account in one region, apart from how it is reached."""

    def __init__(
        self, instance: Instance, store: KeyStore, verifier: Verifier, *, clock: Clock
    ) -> None:
        self._instance = instance
        self._store = store
        self._verifier = verifier
        self._clock = clock
        self._known_principals = {
            instance.account_id,
            instance.role_arn,
            instance.role_session().arn,
            instance.root().arn,
        }
        self._operation_names = frozenset(
            botocore.session.get_session().get_service_model("kms").operation_names
        )
        self._key_operations: dict[str, Callable[[KeyRecord, Fields], Mapping[str, object]]] = {
            "DescribeKey": self._describe_key,
            "GetPublicKey": self._get_public_key,
            "GetKeyPolicy": self._get_key_policy,
            "ScheduleKeyDeletion": self._schedule_key_deletion,
            "CancelKeyDeletion": self._cancel_key_deletion,
            "EnableKey": self._enable_key,
            "DisableKey": self._disable_key,
        }

    def perform(self, operation: str, fields: Fields, caller: Principal) -> Mapping[str, object]:
        """The answer to an operation.

        Raises:
            KmsError: KMS's refusal. What is not allowed is refused as such even where the emulator
                does not offer the operation.
        """
        if operation not in self._operation_names:
            raise KmsError("UnknownOperationException", "")
        if operation == "CreateKey":
            return self._create_key(fields, caller)
        if not fields.has("KeyId"):
            _require_iam(caller, f"kms:{operation}")
            raise unsupported(f"{operation} without a KeyId")
        key = self._find(fields.text("KeyId", maximum=_MAX_KEY_ID))
        if operation == "DeriveSharedSecret":
            return self._derive_shared_secret(key, fields, caller)
        _authorise(key, operation, caller, {})
        if fields.texts("GrantTokens"):
            raise _invalid_grant_token()
        if operation == "PutKeyPolicy":
            return self._put_key_policy(key, fields, caller)
        handler = self._key_operations.get(operation)
        if handler is None:
            raise unsupported(operation)
        return handler(key, fields)

    def _create_key(self, fields: Fields, caller: Principal) -> Mapping[str, object]:
        _require_iam(caller, "kms:CreateKey")
        tags = fields.items("Tags")
        if tags:
            _require_iam(caller, "kms:TagResource")
        spec, usage = keys.spec_and_usage(fields)
        keys.check_origin(fields)
        text = fields.optional_text("Policy", maximum=_MAX_POLICY)
        if text is not None:
            self._check_policy(text, fields, caller, resource="*")
        members: dict[str, object] = {
            "Policy": text,
            "KeySpec": spec,
            "KeyUsage": usage,
            "Description": fields.optional_text("Description", maximum=8192) or "",
            "MultiRegion": fields.flag("MultiRegion"),
            "Tags": tags,
        }
        return {"KeyMetadata": keys.with_algorithms(self._store.create(members))}

    def _put_key_policy(
        self, key: KeyRecord, fields: Fields, caller: Principal
    ) -> Mapping[str, object]:
        _check_policy_name(fields)
        text = fields.text("Policy", maximum=_MAX_POLICY)
        self._check_policy(text, fields, caller, resource=key.arn)
        return self._store.call(
            "PutKeyPolicy", {"KeyId": key.key_id, "PolicyName": _POLICY_NAME, "Policy": text}
        )

    def _check_policy(self, text: str, fields: Fields, caller: Principal, resource: str) -> None:
        policy.check_principals(text, self._known_principals)
        bypass = fields.flag("BypassPolicyLockoutSafetyCheck")
        if not bypass and not policy.leaves_policy_changeable(text, caller, resource):
            raise malformed_policy(
                "The new key policy will not allow you to update the key policy in the future."
            )

    def _describe_key(self, key: KeyRecord, _: Fields) -> Mapping[str, object]:
        metadata = self._store.call("DescribeKey", {"KeyId": key.key_id})["KeyMetadata"]
        if not isinstance(metadata, dict):
            raise TypeError("moto's DescribeKey answered no KeyMetadata")
        return {"KeyMetadata": keys.with_algorithms(metadata)}

    def _get_public_key(self, key: KeyRecord, _: Fields) -> Mapping[str, object]:
        if key.spec == "SYMMETRIC_DEFAULT":
            raise KmsError("UnsupportedOperationException", f"{key.arn} has no public key.")
        keys.check_enabled(key)
        answer = self._store.call("GetPublicKey", {"KeyId": key.key_id})
        return keys.with_algorithms(answer | {"KeyId": key.arn, "KeySpec": key.spec})

    def _get_key_policy(self, key: KeyRecord, fields: Fields) -> Mapping[str, object]:
        _check_policy_name(fields)
        return {"Policy": key.policy, "PolicyName": _POLICY_NAME}

    def _schedule_key_deletion(self, key: KeyRecord, fields: Fields) -> Mapping[str, object]:
        days = fields.integer("PendingWindowInDays", minimum=7, maximum=30, default=30)
        _require_not_pending(key)
        answer = self._store.call(
            "ScheduleKeyDeletion", {"KeyId": key.key_id, "PendingWindowInDays": days}
        )
        state = {"KeyState": "PendingDeletion", "PendingWindowInDays": days}
        return answer | {"KeyId": key.arn} | state

    def _cancel_key_deletion(self, key: KeyRecord, _: Fields) -> Mapping[str, object]:
        if key.state != "PendingDeletion":
            raise KmsError("KMSInvalidStateException", f"{key.arn} is not pending deletion.")
        self._store.call("CancelKeyDeletion", {"KeyId": key.key_id})
        return {"KeyId": key.arn}

    def _enable_key(self, key: KeyRecord, _: Fields) -> Mapping[str, object]:
        _require_not_pending(key)
        return self._store.call("EnableKey", {"KeyId": key.key_id})

    def _disable_key(self, key: KeyRecord, _: Fields) -> Mapping[str, object]:
        _require_not_pending(key)
        return self._store.call("DisableKey", {"KeyId": key.key_id})

    def _derive_shared_secret(
        self, key: KeyRecord, fields: Fields, caller: Principal
    ) -> Mapping[str, object]:
        fields.choice("KeyAgreementAlgorithm", {keys.ECDH})
        peer_der = fields.blob("PublicKey", maximum=_MAX_PUBLIC_KEY)
        recipient: Recipient | None = None
        if fields.has("Recipient"):
            recipient = verify_recipient(
                fields.nested("Recipient"), self._verifier, now=self._clock()
            )
        _authorise(key, "DeriveSharedSecret", caller, recipient.context if recipient else {})
        if fields.texts("GrantTokens"):
            raise _invalid_grant_token()
        keys.check_enabled(key)
        keys.check_key_agreement(key)
        private_key = self._store.elliptic_curve_key(key.key_id)
        peer = _peer_key(peer_der, private_key.curve)
        if fields.flag("DryRun"):
            raise KmsError(
                "DryRunOperationException",
                "The request would have succeeded, but the DryRun option is set.",
            )
        secret = private_key.exchange(ec.ECDH(), peer)
        return {
            "KeyId": key.arn,
            "KeyAgreementAlgorithm": keys.ECDH,
            "KeyOrigin": key.origin,
            **_sealed(secret, recipient),
        }

    def _find(self, key_id: str) -> KeyRecord:
        _, is_arn, resource = key_id.partition(":key/")
        key = self._store.find(resource if is_arn else key_id)
        if key is None or (is_arn and key_id != key.arn):
            raise KmsError("NotFoundException", f"Key '{self._arn(key_id)}' does not exist")
        return key

    def _arn(self, key_id: str) -> str:
        if key_id.startswith("arn:"):
            return key_id
        kind = "" if key_id.startswith("alias/") else "key/"
        return f"arn:aws:kms:{self._instance.region}:{self._instance.account_id}:{kind}{key_id}"


def _sealed(secret: bytes, recipient: Recipient | None) -> Mapping[str, object]:
    """The secret for the caller: in clear, or for the attested recipient's eyes alone."""
    if recipient is None:
        return {"SharedSecret": to_base64(secret)}
    enveloped = encrypt_for_recipient(secret, recipient.public_key)
    return {"SharedSecret": None, "CiphertextForRecipient": to_base64(enveloped)}


def _authorise(
    key: KeyRecord, operation: str, caller: Principal, context: Mapping[str, str]
) -> None:
    action = f"kms:{operation}"
    decision = policy.evaluate(
        key.policy,
        policy.Request(caller=caller, action=action, resource=key.arn, context=context),
    )
    if decision is policy.Decision.ALLOWED:
        return
    reason = (
        "with an explicit deny in a resource-based policy"
        if decision is policy.Decision.DENIED
        else f"because no resource-based policy allows the {action} action"
    )
    raise _access_denied(caller, f"{action} on resource: {key.arn} {reason}")


def _require_iam(caller: Principal, action: str) -> None:
    if not policy.iam_allows(caller, action):
        raise _access_denied(
            caller, f"{action} because no identity-based policy allows the {action} action"
        )


def _access_denied(caller: Principal, what: str) -> KmsError:
    return KmsError(
        "AccessDeniedException", f"User: {caller.arn} is not authorized to perform: {what}"
    )


def _invalid_grant_token() -> KmsError:
    """No grant token is valid: nobody can make a grant here."""
    return KmsError("InvalidGrantTokenException", "The grant token is not valid.")


def _require_not_pending(key: KeyRecord) -> None:
    if key.state == "PendingDeletion":
        raise KmsError("KMSInvalidStateException", f"{key.arn} is pending deletion.")


def _check_policy_name(fields: Fields) -> None:
    if fields.has("PolicyName") and fields.text("PolicyName", maximum=128) != _POLICY_NAME:
        raise KmsError("NotFoundException", "No such policy exists")


def _peer_key(der: bytes, curve: ec.EllipticCurve) -> ec.EllipticCurvePublicKey:
    refusal = validation_error("PublicKey is not a public key on the curve of the KMS key.")
    try:
        key = load_der_public_key(der)
    except Exception as error:  # the library does not bound what it raises
        raise refusal from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != curve.name:
        raise refusal
    return key

"""Who calls: the emulated account's principals, their access keys, and what IAM allows them."""

from __future__ import annotations

import secrets
import string
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from foobar_shared.key_policy import partition_of

SESSION_LIFETIME: Final = timedelta(hours=6)
"""What instance metadata hands out lives about six hours (EC2 user guide, IAM roles for EC2)."""

_KEY_ALPHABET: Final = string.ascii_uppercase + "234567"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who signs a request."""

    account_id: str
    arn: str
    principal_arns: frozenset[str] = frozenset()
    """Further ARNs by which a policy can name the caller: a session's role."""
    iam_actions: tuple[str, ...] = ()
    """Action patterns that identity policies allow on every resource."""


@dataclass(frozen=True, slots=True)
class Instance:
    """The emulated parent instance and the account it runs in."""

    region: str = "us-east-1"
    account_id: str = "123456789012"
    instance_id: str = "i-0123456789abcdef0"
    role: str = "aws-nitro-enclave-foobar-iam-role"

    @property
    def role_arn(self) -> str:
        """ARN of the instance role."""
        return self.iam_arn(f"role/{self.role}")

    def role_session(self) -> Principal:
        """Return the role as this instance assumes it; IAM lets it create KMS keys only."""
        session = f"assumed-role/{self.role}/{self.instance_id}"
        return Principal(
            account_id=self.account_id,
            arn=f"arn:{partition_of(self.region)}:sts::{self.account_id}:{session}",
            principal_arns=frozenset({self.role_arn}),
            iam_actions=("kms:CreateKey",),
        )

    def root(self) -> Principal:
        """Return the account's root user, to whom IAM allows everything."""
        return Principal(self.account_id, self.iam_arn("root"), iam_actions=("kms:*",))

    def iam_arn(self, resource: str) -> str:
        """Return the ARN of an IAM resource of the account."""
        return f"arn:{partition_of(self.region)}:iam::{self.account_id}:{resource}"


@dataclass(frozen=True, slots=True)
class AccessKey:
    """Credentials of a principal; `token` and `expires` are None for a long-term key."""

    principal: Principal
    access_key_id: str
    secret_access_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    expires: datetime | None = None


class CredentialStore:
    """Every access key of the emulated account."""

    def __init__(self) -> None:
        self._keys: dict[str, AccessKey] = {}

    def long_term_key(self, principal: Principal) -> AccessKey:
        """Return a new access key without session token and without end."""
        return self._add(principal, "AKIA")

    def session(self, principal: Principal, *, now: datetime) -> AccessKey:
        """Return new temporary credentials, valid for SESSION_LIFETIME from `now`."""
        token = secrets.token_urlsafe(192)
        return self._add(principal, "ASIA", token=token, expires=now + SESSION_LIFETIME)

    def find(self, access_key_id: str) -> AccessKey | None:
        """Return the access key of that id, or None."""
        return self._keys.get(access_key_id)

    def _add(
        self,
        principal: Principal,
        prefix: str,
        *,
        token: str | None = None,
        expires: datetime | None = None,
    ) -> AccessKey:
        # 20 characters, of which four say the kind (IAM user guide, unique identifiers).
        key_id = prefix + "".join(secrets.choice(_KEY_ALPHABET) for _ in range(16))
        secret = secrets.token_urlsafe(30)  # 40 characters, as AWS's are
        self._keys[key_id] = AccessKey(principal, key_id, secret, token, expires)
        return self._keys[key_id]

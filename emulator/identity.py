"""Who calls: the emulated account's principals, their access keys, and what IAM allows them."""

from __future__ import annotations

import secrets
import string
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from foobar_shared.key_policy import partition_of

SESSION_LIFETIME: Final = timedelta(hours=6)
"""What instance metadata hands out lives about six hours (EC2 user guide, IAM roles for EC2)."""

_RENEW_BEFORE: Final = timedelta(hours=1)
_KEY_ALPHABET: Final = string.ascii_uppercase + "234567"


@dataclass(frozen=True, slots=True)
class Instance:
    """The emulated parent instance and the account it runs in."""

    region: str = "us-east-1"
    account_id: str = "123456789012"
    instance_id: str = "i-0123456789abcdef0"
    role: str = "aws-nitro-enclave-foobar-iam-role"

    @property
    def availability_zone(self) -> str:
        """The zone, such as `us-east-1a`."""
        return f"{self.region}a"

    @property
    def role_arn(self) -> str:
        """ARN of the instance role."""
        return self._iam_arn(f"role/{self.role}")

    @property
    def instance_profile_arn(self) -> str:
        """ARN of the instance profile, which has the role's name as the console makes it."""
        return self._iam_arn(f"instance-profile/{self.role}")

    def role_session(self) -> Principal:
        """The role as this instance assumes it. IAM lets it create KMS keys, and nothing else."""
        partition = partition_of(self.region)
        return Principal(
            account_id=self.account_id,
            arn=f"arn:{partition}:sts::{self.account_id}:assumed-role/{self.role}/{self.instance_id}",
            principal_arns=frozenset({self.role_arn}),
            iam_actions=("kms:CreateKey",),
        )

    def root(self) -> Principal:
        """The account's root user, to whom IAM allows everything."""
        return Principal(
            account_id=self.account_id, arn=self._iam_arn("root"), iam_actions=("kms:*",)
        )

    def _iam_arn(self, resource: str) -> str:
        return f"arn:{partition_of(self.region)}:iam::{self.account_id}:{resource}"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who signs a request.

    Attributes:
        account_id: 12 digits.
        arn: the caller's own ARN, as error messages name it.
        principal_arns: further ARNs by which a policy can name the caller (a session's role).
        iam_actions: action patterns that identity policies allow on every resource.
    """

    account_id: str
    arn: str
    principal_arns: frozenset[str] = frozenset()
    iam_actions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AccessKey:
    """Credentials of a principal; `token` and `expires` are None for a long-term key."""

    principal: Principal
    access_key_id: str
    secret_access_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    issued: datetime | None = None
    expires: datetime | None = None


class CredentialStore:
    """Every access key of the emulated account; thread-safe."""

    def __init__(self) -> None:
        self._keys: dict[str, AccessKey] = {}
        self._current: dict[str, AccessKey] = {}
        self._lock = threading.Lock()

    def long_term_key(self, principal: Principal) -> AccessKey:
        """A new access key without session token and without end."""
        return self._add(AccessKey(principal, _key_id("AKIA"), _secret()))

    def session(self, principal: Principal, *, now: datetime) -> AccessKey:
        """The principal's temporary credentials, renewed an hour before they expire.

        Older ones stay valid until their own end, as they do on EC2.
        """
        with self._lock:
            current = self._current.get(principal.arn)
        if current and current.expires and now < current.expires - _RENEW_BEFORE:
            return current
        return self.new_session(principal, now=now)

    def new_session(
        self, principal: Principal, *, now: datetime, lifetime: timedelta = SESSION_LIFETIME
    ) -> AccessKey:
        """New temporary credentials, valid for `lifetime` from `now`."""
        key = AccessKey(
            principal,
            _key_id("ASIA"),
            _secret(),
            token=secrets.token_urlsafe(192),
            issued=now,
            expires=now + lifetime,
        )
        with self._lock:
            self._current[principal.arn] = key
        return self._add(key)

    def find(self, access_key_id: str) -> AccessKey | None:
        """The access key of that id."""
        with self._lock:
            return self._keys.get(access_key_id)

    def _add(self, key: AccessKey) -> AccessKey:
        with self._lock:
            self._keys[key.access_key_id] = key
        return key


def _key_id(prefix: str) -> str:
    """20 characters, the first four of which say the kind (IAM user guide, unique identifiers)."""
    return prefix + "".join(secrets.choice(_KEY_ALPHABET) for _ in range(16))


def _secret() -> str:
    return secrets.token_urlsafe(30)  # 40 characters, as AWS's are

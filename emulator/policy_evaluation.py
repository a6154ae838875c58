"""Key policies: what they allow whom, decided as KMS does and never more generously.

Denied by default, for the account's root user too; an explicit Deny wins. An Allow statement that
names the account leaves the choice to IAM for everyone but the root user (KMS developer guide,
"Key policies"; IAM user guide, "Policy evaluation logic"). What this evaluator does not know can
only take away: an element, condition operator or condition key beyond those below keeps an Allow
from applying, and does not keep a Deny from it.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from emulator.identity import Principal
from emulator.kms_fault import malformed_policy
from foobar_shared.encoding import parse_json_object, to_json
from foobar_shared.errors import MessageError

_VERSIONS: Final = ("2012-10-17", "2008-10-17")
_UNSUPPORTED: Final = {"NotPrincipal", "NotAction", "NotResource"}
_ELEMENTS: Final = {
    "Sid", "Effect", "Principal", "Action", "Resource", "Condition", *_UNSUPPORTED,
}  # fmt: skip
_ATTESTATION_KEY: Final = re.compile(
    r"kms:recipientattestation:(?:pcr[0-9]{1,2}|imagesha384)", re.ASCII
)


class Decision(enum.Enum):
    """What a policy says about one request."""

    ALLOWED = enum.auto()
    NOT_ALLOWED = enum.auto()
    DENIED = enum.auto()


@dataclass(frozen=True, slots=True)
class Access:
    """One request as a policy sees it.

    Attributes:
        caller: who asks.
        action: such as `kms:GetPublicKey`.
        resource: the key's ARN.
        context: condition keys in lower case and their values.
    """

    caller: Principal
    action: str
    resource: str
    context: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Statement:
    allow: bool
    principals: tuple[str, ...]  # ARNs, account ids or *
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: tuple[tuple[str, str, tuple[str, ...]], ...]  # operator, key, values
    understood: bool

    def allows(self, access: Access) -> bool:
        # A statement with NotPrincipal and the like names or covers nothing, and allows nothing.
        if not self._covers(access) or not all(self._holding(access.context)):
            return False
        by_iam = self._names_account(access.caller) and iam_allows(access.caller, access.action)
        return by_iam or self._names(access.caller)

    def denies(self, access: Access) -> bool:
        if not self.understood:
            return True
        named = self._names(access.caller) or self._names_account(access.caller)
        return named and self._covers(access) and False not in self._holding(access.context)

    def _holding(self, context: Mapping[str, str]) -> list[bool | None]:
        """Return for each condition whether it holds, None where it is not known here."""
        return [_holds(*condition, context) for condition in self.conditions]

    def _covers(self, access: Access) -> bool:
        return any(
            _matches(action.lower(), access.action.lower()) for action in self.actions
        ) and any(_matches(resource, access.resource) for resource in self.resources)

    def _names(self, caller: Principal) -> bool:
        return not {"*", caller.arn, *caller.principal_arns}.isdisjoint(self.principals)

    def _names_account(self, caller: Principal) -> bool:
        return any(
            name == caller.account_id or name.endswith(f":iam::{caller.account_id}:root")
            for name in self.principals
        )


def evaluate(policy: str, access: Access) -> Decision:
    """Return what the policy text says about the request.

    Raises:
        KmsFault: MalformedPolicyDocumentException.
    """
    statements = _parse(policy)
    if any(not statement.allow and statement.denies(access) for statement in statements):
        return Decision.DENIED
    if any(statement.allow and statement.allows(access) for statement in statements):
        return Decision.ALLOWED
    return Decision.NOT_ALLOWED


def iam_allows(caller: Principal, action: str) -> bool:
    """Return whether the caller's identity policies allow the action."""
    return any(_matches(pattern.lower(), action.lower()) for pattern in caller.iam_actions)


def leaves_policy_changeable(policy: str, caller: Principal, resource: str) -> bool:
    """Return whether `caller` could still call PutKeyPolicy: the lockout safety check.

    An Allow for the account counts, whatever IAM says today.
    """
    trusting = replace(caller, iam_actions=("kms:*",))
    access = Access(trusting, "kms:PutKeyPolicy", resource, {})
    return evaluate(policy, access) is Decision.ALLOWED


def check_principals(policy: str, known: Collection[str]) -> None:
    """Refuse a policy that names a principal outside `known` (KMS looks each of them up).

    Raises:
        KmsFault: MalformedPolicyDocumentException.
    """
    named = {name for statement in _parse(policy) for name in statement.principals}
    if not named <= {*known, "*"}:
        raise malformed_policy("Policy contains a statement with one or more invalid principals.")


def default_policy(root: Principal) -> str:
    """Return the policy of a key that is made without one: IAM decides."""
    statement = {"Effect": "Allow", "Principal": {"AWS": root.arn}, "Action": "kms:*"}
    document = {"Version": _VERSIONS[0], "Statement": [statement | {"Resource": "*"}]}
    return to_json(document).decode()


def _parse(text: str) -> tuple[_Statement, ...]:
    try:
        document = parse_json_object(text.encode())
    except MessageError as error:
        raise malformed_policy(f"The policy is {error}.") from None
    if document.get("Version", "2008-10-17") not in _VERSIONS:
        raise malformed_policy("The policy's Version is not known.")
    if document.keys() - {"Version", "Id", "Statement"}:
        raise malformed_policy("The policy has unknown elements.")
    statements = document.get("Statement")
    if isinstance(statements, dict):
        statements = [statements]
    if not isinstance(statements, list) or not statements:
        raise malformed_policy("The policy has no Statement.")
    return tuple(_statement(statement) for statement in statements)


def _statement(fields: object) -> _Statement:
    if not isinstance(fields, dict) or fields.keys() - _ELEMENTS:
        raise malformed_policy("A statement has unknown elements.")
    for name in ("Principal", "Action", "Resource"):
        if (name in fields) == (f"Not{name}" in fields):
            raise malformed_policy(f"A statement needs exactly one of {name} and Not{name}.")
    if fields.get("Effect") not in ("Allow", "Deny"):
        raise malformed_policy("A statement's Effect is neither Allow nor Deny.")
    principal = fields.get("Principal", {})
    if principal == "*":
        principal = {"AWS": "*"}
    condition = fields.get("Condition", {})
    if not isinstance(principal, dict) or not isinstance(condition, dict):
        raise malformed_policy("A statement's Principal or Condition is not an object.")
    if not all(isinstance(keys, dict) for keys in condition.values()):
        raise malformed_policy("A statement's Condition is not an object of objects.")
    return _Statement(
        allow=fields["Effect"] == "Allow",
        principals=_texts(principal.get("AWS", [])),  # services and federations do not call here
        actions=_texts(fields.get("Action", [])),
        resources=_texts(fields.get("Resource", [])),
        conditions=tuple(
            (operator, key.lower(), _texts(values))
            for operator, keys in condition.items()
            for key, values in keys.items()
        ),
        understood=not fields.keys() & _UNSUPPORTED,
    )


def _texts(value: object) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise malformed_policy("A statement has a value that is neither text nor a list of texts.")
    return tuple(values)


def _holds(
    operator: str, key: str, values: tuple[str, ...], context: Mapping[str, str]
) -> bool | None:
    compare = _OPERATORS.get(operator)
    if compare is None or not _ATTESTATION_KEY.fullmatch(key):
        return None
    actual = context.get(key)
    return actual is not None and any(compare(value, actual) for value in values)


def _matches(pattern: str, value: str) -> bool:
    """Return whether `value` matches; `*` is any text, `?` any character (StringLike)."""
    parts = {"*": ".*", "?": "."}
    expression = "".join(parts.get(character, re.escape(character)) for character in pattern)
    return re.fullmatch(expression, value, re.DOTALL) is not None


_OPERATORS: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "StringEquals": str.__eq__,
    "StringEqualsIgnoreCase": lambda expected, actual: expected.lower() == actual.lower(),
    "StringLike": _matches,
}

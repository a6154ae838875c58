"""Key policies: what they allow whom, decided as KMS does and never more generously.

Denied by default, for the account's root user too; an explicit Deny wins. An Allow statement that
names the account leaves the choice to IAM for everyone but the root user (KMS developer guide,
"Key policies", "Policy evaluation logic" in the IAM user guide). What this evaluator does not know
can only take away: an element, condition operator or condition key beyond those below keeps an
Allow from applying, and does not keep a Deny from it.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from emulator.identity import Principal
from emulator.kms.errors import malformed_policy
from foobar_shared.encoding import parse_json_object
from foobar_shared.errors import MessageError

_VERSIONS: Final = {"2012-10-17", "2008-10-17"}
_ELEMENTS: Final = {
    "Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource",
    "NotResource", "Condition",
}  # fmt: skip
_UNSUPPORTED: Final = {"NotPrincipal", "NotAction", "NotResource"}
_ATTESTATION_KEY: Final = re.compile(
    r"kms:recipientattestation:(?:pcr[0-9]{1,2}|imagesha384)", re.ASCII
)


class Decision(enum.Enum):
    """What a policy says about one request."""

    ALLOWED = enum.auto()
    NOT_ALLOWED = enum.auto()
    DENIED = enum.auto()


@dataclass(frozen=True, slots=True)
class Request:
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
class Statement:
    """One statement; `principals` are ARNs, account ids or `*`."""

    allow: bool
    principals: tuple[str, ...]
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: tuple[Condition, ...]
    understood: bool


@dataclass(frozen=True, slots=True)
class Condition:
    """One operator applied to one condition key; any of the values may match."""

    operator: str
    key: str
    values: tuple[str, ...]

    def holds(self, context: Mapping[str, str]) -> bool | None:
        """Whether it holds, or None where operator or key is not known here."""
        match = _OPERATORS.get(self.operator)
        if match is None or not _ATTESTATION_KEY.fullmatch(self.key):
            return None
        actual = context.get(self.key)
        return actual is not None and any(match(value, actual) for value in self.values)


def evaluate(policy: str, request: Request) -> Decision:
    """What the policy text says about the request."""
    statements = parse_policy(policy)
    if any(not statement.allow and _denies(statement, request) for statement in statements):
        return Decision.DENIED
    if any(statement.allow and _allows(statement, request) for statement in statements):
        return Decision.ALLOWED
    return Decision.NOT_ALLOWED


def iam_allows(caller: Principal, action: str) -> bool:
    """Whether the caller's identity policies allow the action."""
    return any(_matches(pattern, action, ignore_case=True) for pattern in caller.iam_actions)


def leaves_policy_changeable(policy: str, caller: Principal, resource: str) -> bool:
    """The lockout safety check: whether `caller` could still call PutKeyPolicy.

    An Allow for the account counts, whatever IAM says today.
    """
    trusting = Principal(
        caller.account_id, caller.arn, caller.principal_arns, iam_actions=("kms:*",)
    )
    request = Request(trusting, "kms:PutKeyPolicy", resource, {})
    return evaluate(policy, request) is Decision.ALLOWED


def check_principals(policy: str, known: Collection[str]) -> None:
    """Refuse a policy that names a principal outside `known` (KMS looks each of them up).

    Raises:
        KmsError: MalformedPolicyDocumentException.
    """
    named = {name for statement in parse_policy(policy) for name in statement.principals}
    if not named <= {*known, "*"}:
        raise malformed_policy("Policy contains a statement with one or more invalid principals.")


def parse_policy(text: str) -> tuple[Statement, ...]:
    """The statements of a policy text.

    Raises:
        KmsError: MalformedPolicyDocumentException.
    """
    try:
        document = parse_json_object(text.encode())
    except MessageError as error:
        raise malformed_policy(f"The policy is {error}.") from None
    if document.get("Version", "2008-10-17") not in _VERSIONS:
        raise malformed_policy("The policy's Version is not known.")
    if unknown := document.keys() - {"Version", "Id", "Statement"}:
        raise malformed_policy(f"The policy has unknown elements: {', '.join(sorted(unknown))}.")
    statements = document.get("Statement")
    if isinstance(statements, dict):
        statements = [statements]
    if not isinstance(statements, list) or not statements:
        raise malformed_policy("The policy has no Statement.")
    return tuple(_statement(statement) for statement in statements)


def _statement(fields: object) -> Statement:
    if not isinstance(fields, dict) or fields.keys() - _ELEMENTS:
        raise malformed_policy("A statement has unknown elements.")
    for name in ("Principal", "Action", "Resource"):
        if (name in fields) == (f"Not{name}" in fields):
            raise malformed_policy(f"A statement needs exactly one of {name} and Not{name}.")
    if fields.get("Effect") not in ("Allow", "Deny"):
        raise malformed_policy("A statement's Effect is neither Allow nor Deny.")
    return Statement(
        allow=fields["Effect"] == "Allow",
        principals=_principals(fields.get("Principal", {})),
        actions=_texts(fields.get("Action", [])),
        resources=_texts(fields.get("Resource", [])),
        conditions=_conditions(fields.get("Condition", {})),
        understood=not fields.keys() & _UNSUPPORTED,
    )


def _principals(value: object) -> tuple[str, ...]:
    if value == "*":
        return ("*",)
    if not isinstance(value, dict):
        raise malformed_policy("A statement's Principal is neither * nor an object.")
    # Service and federated principals are nobody who calls here.
    return _texts(value.get("AWS", []))


def _conditions(value: object) -> tuple[Condition, ...]:
    if not isinstance(value, dict) or not all(isinstance(keys, dict) for keys in value.values()):
        raise malformed_policy("A statement's Condition is not an object of objects.")
    return tuple(
        Condition(operator, key.lower(), _texts(values))
        for operator, keys in value.items()
        for key, values in keys.items()
    )


def _texts(value: object) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise malformed_policy("A statement has a value that is neither text nor a list of texts.")
    return tuple(values)


def _allows(statement: Statement, request: Request) -> bool:
    # A statement with NotPrincipal and the like names or covers nothing, and so allows nothing.
    if not _covers(statement, request):
        return False
    if not all(condition.holds(request.context) for condition in statement.conditions):
        return False
    if _names_caller(statement, request.caller):
        return True
    return _names_account(statement, request.caller) and iam_allows(request.caller, request.action)


def _denies(statement: Statement, request: Request) -> bool:
    if not statement.understood:
        return True
    named = _names_caller(statement, request.caller) or _names_account(statement, request.caller)
    failed = any(condition.holds(request.context) is False for condition in statement.conditions)
    return named and _covers(statement, request) and not failed


def _covers(statement: Statement, request: Request) -> bool:
    action = any(
        _matches(pattern, request.action, ignore_case=True) for pattern in statement.actions
    )
    return action and any(_matches(pattern, request.resource) for pattern in statement.resources)


def _names_caller(statement: Statement, caller: Principal) -> bool:
    return not {"*", caller.arn, *caller.principal_arns}.isdisjoint(statement.principals)


def _names_account(statement: Statement, caller: Principal) -> bool:
    return any(
        name == caller.account_id or name.endswith(f":iam::{caller.account_id}:root")
        for name in statement.principals
    )


def _matches(pattern: str, value: str, *, ignore_case: bool = False) -> bool:
    """`*` stands for any text and `?` for one character (IAM user guide, StringLike)."""
    if ignore_case:
        pattern, value = pattern.lower(), value.lower()
    # Every position that can be reached, so that many stars cost no more than other characters.
    rows = {0}
    for character in pattern:
        if character == "*":
            rows = set(range(min(rows), len(value) + 1)) if rows else rows
        else:
            rows = {row + 1 for row in rows if row < len(value) and character in ("?", value[row])}
    return len(value) in rows


def _equal(expected: str, actual: str) -> bool:
    return expected == actual


def _equal_ignoring_case(expected: str, actual: str) -> bool:
    return expected.lower() == actual.lower()


_OPERATORS: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "StringEquals": _equal,
    "StringEqualsIgnoreCase": _equal_ignoring_case,
    "StringLike": _matches,
}

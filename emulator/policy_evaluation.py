"""Decide what a key policy allows whom, as KMS does and never more generously.

Denied by default, for the account's root user too; an explicit Deny wins. An Allow statement that
names the account leaves the choice to IAM (KMS developer guide, "Key policies"; IAM user guide,
"Policy evaluation logic"). A policy with an element, condition operator or condition key that is
not known here is refused as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from emulator.identity import Principal
from emulator.kms_fault import malformed_policy, unsupported
from foobar_shared.encoding import parse_json_object, to_json
from foobar_shared.errors import MessageError

_VERSIONS: Final = ("2012-10-17", "2008-10-17")
_NEEDED: Final = {"Effect", "Principal", "Action", "Resource"}
_KNOWN: Final = {*_NEEDED, "Sid", "Condition"}
_CONDITION_KEY: Final = re.compile(
    r"kms:recipientattestation:(?:pcr[0-9]{1,2}|imagesha384)", re.ASCII
)


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

    def allows(self, access: Access) -> bool:
        by_iam = self._names_account(access.caller) and iam_allows(access.caller, access.action)
        return self.allow and self._covers(access) and (by_iam or self._names(access.caller))

    def denies(self, access: Access) -> bool:
        named = self._names(access.caller) or self._names_account(access.caller)
        return not self.allow and self._covers(access) and named

    def _covers(self, access: Access) -> bool:
        return (
            any(_matches(action.lower(), access.action.lower()) for action in self.actions)
            and any(_matches(resource, access.resource) for resource in self.resources)
            and all(_holds(*condition, access.context) for condition in self.conditions)
        )

    def _names(self, caller: Principal) -> bool:
        return not {"*", caller.arn, *caller.principal_arns}.isdisjoint(self.principals)

    def _names_account(self, caller: Principal) -> bool:
        return any(
            name == caller.account_id or name.endswith(f":iam::{caller.account_id}:root")
            for name in self.principals
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """A key policy: its text as it was given, and what that says."""

    text: str
    _statements: tuple[_Statement, ...]

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Parse a policy.

        Raises:
            KmsFault: MalformedPolicyDocumentException, or UnsupportedOperationException where it
                holds what this evaluator does not know.
        """
        try:
            document = parse_json_object(text.encode())
        except MessageError as error:
            raise malformed_policy(f"The policy is {error}.") from None
        if document.get("Version", "2008-10-17") not in _VERSIONS:
            raise malformed_policy("The policy's Version is not known.")
        if document.keys() - {"Version", "Id", "Statement"}:
            raise malformed_policy("The policy has unknown elements.")
        statements = document.get("Statement")
        if not isinstance(statements, list) or not statements:
            raise malformed_policy("The policy's Statement is not a list of statements.")
        return cls(text, tuple(_statement(statement) for statement in statements))

    @classmethod
    def default(cls, root: Principal) -> Policy:
        """Return the policy of a key that is made without one: IAM decides."""
        statement = {"Effect": "Allow", "Principal": {"AWS": root.arn}, "Action": "kms:*"}
        document = {"Version": _VERSIONS[0], "Statement": [statement | {"Resource": "*"}]}
        return cls.parse(to_json(document).decode())

    @property
    def principals(self) -> frozenset[str]:
        """Everyone that a statement names, but for `*`."""
        names = {name for statement in self._statements for name in statement.principals}
        return frozenset(names - {"*"})

    def allows(self, access: Access) -> bool:
        """Return whether a statement allows the request and none denies it."""
        if any(statement.denies(access) for statement in self._statements):
            return False
        return any(statement.allows(access) for statement in self._statements)


def iam_allows(caller: Principal, action: str) -> bool:
    """Return whether the caller's identity policies allow the action."""
    return any(_matches(pattern.lower(), action.lower()) for pattern in caller.iam_actions)


def _statement(fields: object) -> _Statement:
    if not isinstance(fields, dict):
        raise malformed_policy("A statement is not an object.")
    if fields.keys() - _KNOWN:
        raise unsupported("a statement with other elements than Sid, Condition and the usual four")
    if _NEEDED - fields.keys() or fields["Effect"] not in ("Allow", "Deny"):
        raise malformed_policy("A statement lacks Effect, Principal, Action or Resource.")
    principal = {"AWS": "*"} if fields["Principal"] == "*" else fields["Principal"]
    if not isinstance(principal, dict) or principal.keys() != {"AWS"}:
        raise malformed_policy("A statement's Principal is neither * nor an object with AWS.")
    return _Statement(
        allow=fields["Effect"] == "Allow",
        principals=_texts(principal["AWS"]),
        actions=_texts(fields["Action"]),
        resources=_texts(fields["Resource"]),
        conditions=_conditions(fields.get("Condition", {})),
    )


def _conditions(condition: object) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    if not isinstance(condition, dict) or not all(
        isinstance(keys, dict) for keys in condition.values()
    ):
        raise malformed_policy("A statement's Condition is not an object of objects.")
    conditions = tuple(
        (operator, key.lower(), _texts(values))
        for operator, keys in condition.items()
        for key, values in keys.items()
    )
    for operator, key, _ in conditions:
        if operator not in _OPERATORS or not _CONDITION_KEY.fullmatch(key):
            raise unsupported(f"the condition {operator} on {key}")
    return conditions


def _texts(value: object) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise malformed_policy("A statement has a value that is neither text nor a list of texts.")
    return tuple(values)


def _holds(operator: str, key: str, values: tuple[str, ...], context: Mapping[str, str]) -> bool:
    actual = context.get(key)
    return actual is not None and any(_OPERATORS[operator](value, actual) for value in values)


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

"""The forms of AWS regions, account ids and role names, checked before they reach a host or ARN."""

from __future__ import annotations

import re
from typing import Final

from foobar_shared.errors import NameFormatError

# One label of letters, digits and hyphens in one fixed order: no dot, slash, at-sign or colon can
# turn a region into part of another host name.
_REGION: Final = re.compile(r"[a-z]{2}(?:-[a-z]{2,16}){1,3}-[0-9]{1,2}", re.ASCII)
_ACCOUNT_ID: Final = re.compile(r"[0-9]{12}", re.ASCII)
_ROLE_NAME: Final = re.compile(r"[A-Za-z0-9_+=,.@-]{1,64}", re.ASCII)  # IAM's CreateRole


def check_region(region: str) -> str:
    """`region` itself.

    Raises:
        NameFormatError: not of the form of `us-east-1` or `us-gov-west-1`.
    """
    return _check(_REGION, region, "region", "us-east-1")


def check_account_id(account_id: str) -> str:
    """`account_id` itself.

    Raises:
        NameFormatError: not 12 decimal digits.
    """
    return _check(_ACCOUNT_ID, account_id, "account id", "123456789012")


def check_role_name(role: str) -> str:
    """`role` itself.

    Raises:
        NameFormatError: not 1 to 64 of the characters that IAM allows in a role's name.
    """
    return _check(_ROLE_NAME, role, "role name", "aws-nitro-enclave-foobar-iam-role")


def partition_of(region: str) -> str:
    """The partition of a region: `aws`, `aws-cn` or `aws-us-gov`.

    Raises:
        NameFormatError: see `check_region`.
    """
    check_region(region)
    if region.startswith("cn-"):
        return "aws-cn"
    if region.startswith("us-gov-"):
        return "aws-us-gov"
    return "aws"


def _check(form: re.Pattern[str], value: str, what: str, example: str) -> str:
    if not form.fullmatch(value):
        raise NameFormatError(f"not a valid AWS {what} (expected one like {example})")
    return value

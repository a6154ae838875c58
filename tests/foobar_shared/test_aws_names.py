"""Region, account id and role name: nothing but AWS's own forms."""

import pytest

from foobar_shared.aws_names import (
    check_account_id,
    check_region,
    check_role_name,
    partition_of,
)
from foobar_shared.errors import NameFormatError


@pytest.mark.parametrize(
    ("region", "partition"),
    [
        ("us-east-1", "aws"),
        ("ap-southeast-5", "aws"),
        ("mx-central-1", "aws"),
        ("cn-north-1", "aws-cn"),
        ("us-gov-west-1", "aws-us-gov"),
    ],
)
def test_regions(region: str, partition: str) -> None:
    assert check_region(region) == region
    assert partition_of(region) == partition


@pytest.mark.parametrize(
    "region",
    [
        "",
        "A",
        "us-east-1\n",
        "x.attacker.tld/",
        "us-east-1.attacker.tld",
        "us-east-1#",
        "us-east-1@attacker",
        "us-east-1:443",
        "US-EAST-1",
        "us-east-",
        "us--1",
        "us-east-\u0661",
        "zz-" + "a" * 64 + "-1",
    ],
)
def test_region_injection_is_refused(region: str) -> None:
    with pytest.raises(NameFormatError):
        check_region(region)
    with pytest.raises(NameFormatError):
        partition_of(region)


@pytest.mark.parametrize("account_id", ["", "12345678901", "1234567890123", "12345678901x", "*"])
def test_account_ids_refused(account_id: str) -> None:
    with pytest.raises(NameFormatError):
        check_account_id(account_id)


@pytest.mark.parametrize("role", ["", "a/b", "*", "role name", "é", "a" * 65, "a:b", 'a"b', "a\n"])
def test_role_names_refused(role: str) -> None:
    with pytest.raises(NameFormatError):
        check_role_name(role)


def test_valid_names() -> None:
    assert check_account_id("123456789012") == "123456789012"
    assert check_role_name("A-z_0+=,.@-") == "A-z_0+=,.@-"

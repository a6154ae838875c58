"""The key policy: what it allows, to whom, and nothing more; and the AWS names in it."""

import json

import botocore.session
import pytest
from botocore.loaders import Loader

from foobar_shared.errors import NameFormatError
from foobar_shared.key_policy import (
    PARTITIONS,
    check_account_id,
    check_region,
    check_role_name,
    key_policy,
    kms_host,
    partition_of,
)

PCR0 = bytes(range(48))


def policy(region: str = "us-east-1", role: str = "a-role") -> str:
    return key_policy(region=region, account_id="123456789012", role=role, pcr0=PCR0)


def test_three_statements_and_no_more() -> None:
    document = json.loads(policy())
    assert document["Version"] == "2012-10-17"
    assert [
        (s["Effect"], s["Principal"], s["Action"], s["Resource"], s.get("Condition"))
        for s in document["Statement"]
    ] == [
        (
            "Allow",
            {"AWS": "arn:aws:iam::123456789012:role/a-role"},
            "kms:GetPublicKey",
            "*",
            None,
        ),
        (
            "Allow",
            {"AWS": "arn:aws:iam::123456789012:role/a-role"},
            "kms:DeriveSharedSecret",
            "*",
            {"StringEqualsIgnoreCase": {"kms:RecipientAttestation:PCR0": PCR0.hex()}},
        ),
        (
            "Allow",
            {"AWS": "arn:aws:iam::123456789012:root"},
            ["kms:DescribeKey", "kms:GetKeyPolicy", "kms:ScheduleKeyDeletion"],
            "*",
            None,
        ),
    ]


@pytest.mark.parametrize(
    ("region", "partition"), [("cn-north-1", "aws-cn"), ("us-gov-east-1", "aws-us-gov")]
)
def test_partition_is_the_regions(region: str, partition: str) -> None:
    text = policy(region=region)
    assert text.count(f"arn:{partition}:iam::") == 3
    assert "arn:aws:iam" not in text


@pytest.mark.parametrize("pcr0", [b"", bytes(48), bytes(47) + b"\1" + b"\0" * 3, b"\1" * 32])
def test_debug_mode_or_malformed_pcr0_is_refused(pcr0: bytes) -> None:
    with pytest.raises(ValueError, match="PCR0"):
        key_policy(region="us-east-1", account_id="123456789012", role="r", pcr0=pcr0)


def test_names_are_checked_before_they_reach_an_arn() -> None:
    with pytest.raises(NameFormatError):
        policy(role='x","*')
    with pytest.raises(NameFormatError):
        policy(region="us-east-1/")


LOADER = Loader(extra_search_paths=[Loader.BUILTIN_DATA_PATH], include_default_search_paths=False)
SDK_PARTITIONS = LOADER.load_data("partitions")["partitions"]
SDK_ENDPOINTS = LOADER.load_data("endpoints")["partitions"]


def test_partitions_are_those_of_the_sdk() -> None:
    assert {
        one["id"]: (one["regionRegex"], one["outputs"]["dnsSuffix"]) for one in SDK_PARTITIONS
    } == PARTITIONS
    assert {
        one["partition"]: (one["regionRegex"], one["dnsSuffix"]) for one in SDK_ENDPOINTS
    } == PARTITIONS
    for one in SDK_PARTITIONS:
        for region in one["regions"]:
            if not region.endswith("-global"):
                assert partition_of(region) == one["id"]


@pytest.mark.parametrize("partition", PARTITIONS)
def test_kms_hosts_are_those_of_the_sdk(partition: str) -> None:
    session = botocore.session.Session()
    regions = session.get_available_regions("kms", partition)
    assert regions
    for region in regions:
        client = session.create_client(
            "kms", region_name=region, aws_access_key_id="x", aws_secret_access_key="x"
        )
        assert client.meta.endpoint_url == f"https://{kms_host(region)}"
        assert client.meta.partition == partition


def test_a_region_of_an_unknown_partition() -> None:
    assert partition_of("nz-north-1") == "aws"  # as the SDK has it
    for region in ("us-isox-east-1", "eusc-fr-west-1"):
        with pytest.raises(NameFormatError, match="partition that is not known"):
            partition_of(region)


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
@pytest.mark.threat("3")
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

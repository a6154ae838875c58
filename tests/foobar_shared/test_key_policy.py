"""The key policy: what it allows, to whom, and nothing more."""

import json

import pytest

from foobar_shared.errors import NameFormatError
from foobar_shared.key_policy import key_policy, policy_sha256

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


def test_text_is_a_pure_function_of_its_arguments() -> None:
    assert policy() == policy()
    assert policy_sha256(policy()) != policy_sha256(policy(role="other"))
    assert policy_sha256("").hex().startswith("e3b0c442")


@pytest.mark.parametrize("pcr0", [b"", bytes(48), bytes(47) + b"\1" + b"\0" * 3, b"\1" * 32])
def test_debug_mode_or_malformed_pcr0_is_refused(pcr0: bytes) -> None:
    with pytest.raises(ValueError, match="PCR0"):
        key_policy(region="us-east-1", account_id="123456789012", role="r", pcr0=pcr0)


def test_names_are_checked_before_they_reach_an_arn() -> None:
    with pytest.raises(NameFormatError):
        policy(role='x","*')
    with pytest.raises(NameFormatError):
        policy(region="us-east-1/")

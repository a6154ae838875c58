"""The key policy that locks a KMS key to one enclave image, and the AWS names that it holds."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from foobar_shared.encoding import to_json
from foobar_shared.errors import NameFormatError

PCR_BYTES: Final = 48
"""Length of a PCR: SHA-384."""

SANDBOX_PCR: Final = 17
"""Measures the workload of a confidential Nitro Sandbox (EKS user guide, "Run a pod in
confidential mode")."""

PARTITIONS: Final = {
    "aws": (r"^(us|eu|ap|sa|ca|me|af|il|mx)\-\w+\-\d+$", "amazonaws.com"),
    "aws-cn": (r"^cn\-\w+\-\d+$", "amazonaws.com.cn"),
    "aws-eusc": (r"^eusc\-(de)\-\w+\-\d+$", "amazonaws.eu"),
    "aws-iso": (r"^us\-iso\-\w+\-\d+$", "c2s.ic.gov"),
    "aws-iso-b": (r"^us\-isob\-\w+\-\d+$", "sc2s.sgov.gov"),
    "aws-iso-e": (r"^eu\-isoe\-\w+\-\d+$", "cloud.adc-e.uk"),
    "aws-iso-f": (r"^us\-isof\-\w+\-\d+$", "csp.hci.ic.gov"),
    "aws-us-gov": (r"^us\-gov\-\w+\-\d+$", "amazonaws.com"),
}
"""Pattern of the regions and DNS suffix of each partition, as in botocore's partitions.json."""

# The form of a region in a country that the patterns do not know yet.
_MAIN_PARTITION: Final = re.compile(r"[a-z]{2}-[a-z]+-[0-9]+", re.ASCII)

# One label of letters, digits and hyphens in a fixed order: no dot, slash, at-sign or colon can
# turn a region into part of another host name.
_REGION: Final = re.compile(r"(?:[a-z]{2}|eusc)(?:-[a-z]{2,16}){1,3}-[0-9]{1,2}", re.ASCII)
_ACCOUNT_ID: Final = re.compile(r"[0-9]{12}", re.ASCII)
_ROLE_NAME: Final = re.compile(r"[A-Za-z0-9_+=,.@-]{1,64}", re.ASCII)  # IAM's CreateRole


def is_debug_mode(pcr0: bytes) -> bool:
    """Return whether `pcr0` is all zero, as Nitro reports it for an enclave in debug mode."""
    return not any(pcr0)


def key_policy(*, region: str, account_id: str, role: str, pcr0: bytes) -> str:
    """Return the policy text of a key that only an enclave with `pcr0` can use.

    The instance role may read the public key, and may derive a shared secret only with an
    attestation document of that PCR0. The account may look at the key and delete it. Nobody may
    change the policy, create grants or use the key in any other way: KMS denies what no statement
    allows.

    The text depends on the arguments alone, so that whoever knows them can compute the hash that
    the enclave attests.

    Args:
        region: decides the partition of the ARNs.
        account_id: 12 digits.
        role: name of the instance role, without path.
        pcr0: 48 bytes, SHA-384 of the enclave image; not all zero (debug mode).

    Raises:
        NameFormatError: region, account id or role is not of AWS's form.
        ValueError: `pcr0` is not 48 bytes, or is all zero.
    """
    if len(pcr0) != PCR_BYTES or is_debug_mode(pcr0):
        raise ValueError("PCR0 must be 48 bytes and not all zero")
    iam = f"arn:{partition_of(region)}:iam::{check_account_id(account_id)}"
    instance_role = {"AWS": f"{iam}:role/{check_role_name(role)}"}
    statements = [
        {
            "Sid": "InstanceReadsPublicKey",
            "Effect": "Allow",
            "Principal": instance_role,
            "Action": "kms:GetPublicKey",
            "Resource": "*",
        },
        {
            "Sid": "OnlyThisEnclaveDerives",
            "Effect": "Allow",
            "Principal": instance_role,
            "Action": "kms:DeriveSharedSecret",
            "Resource": "*",
            "Condition": {
                "StringEqualsIgnoreCase": {"kms:RecipientAttestation:PCR0": pcr0.hex()},
            },
        },
        {
            "Sid": "OwnerLooksAndDeletes",
            "Effect": "Allow",
            "Principal": {"AWS": f"{iam}:root"},
            "Action": ["kms:DescribeKey", "kms:GetKeyPolicy", "kms:ScheduleKeyDeletion"],
            "Resource": "*",
        },
    ]
    return to_json({"Version": "2012-10-17", "Statement": statements}).decode("ascii")


def policy_sha256(policy: str) -> bytes:
    """Return SHA-256 (32 bytes) over the policy text as it is sent to KMS."""
    return hashlib.sha256(policy.encode()).digest()


def check_region(region: str) -> str:
    """Return `region`.

    Raises:
        NameFormatError: not of the form of `us-east-1` or `us-gov-west-1`.
    """
    return _check(_REGION, region, "region", "us-east-1")


def check_account_id(account_id: str) -> str:
    """Return `account_id`.

    Raises:
        NameFormatError: not 12 decimal digits.
    """
    return _check(_ACCOUNT_ID, account_id, "account id", "123456789012")


def check_role_name(role: str) -> str:
    """Return `role`.

    Raises:
        NameFormatError: not 1 to 64 of the characters that IAM allows in a role's name.
    """
    return _check(_ROLE_NAME, role, "role name", "aws-nitro-enclave-foobar-iam-role")


def partition_of(region: str) -> str:
    """Return the partition of a region, one of `PARTITIONS`.

    Raises:
        NameFormatError: see `check_region`, or a region of an unknown partition.
    """
    check_region(region)
    for partition, (pattern, _) in PARTITIONS.items():
        if re.match(pattern, region, re.ASCII):
            return partition
    if _MAIN_PARTITION.fullmatch(region):  # the AWS SDK assumes this too
        return "aws"
    raise NameFormatError("an AWS region of a partition that is not known here")


def kms_host(region: str) -> str:
    """Return the host name of KMS in a region.

    Raises:
        NameFormatError: see `partition_of`.
    """
    return f"kms.{region}.{PARTITIONS[partition_of(region)][1]}"


def _check(form: re.Pattern[str], value: str, what: str, example: str) -> str:
    if not form.fullmatch(value):
        raise NameFormatError(f"not a valid AWS {what} (expected one like {example})")
    return value

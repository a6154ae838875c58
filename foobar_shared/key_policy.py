"""The key policy that locks a KMS key to one enclave image: its text, byte for byte."""

from __future__ import annotations

import hashlib
from typing import Final

from foobar_shared.aws_names import check_account_id, check_role_name, partition_of
from foobar_shared.encoding import to_json

PCR_BYTES: Final = 48  # SHA-384


def key_policy(*, region: str, account_id: str, role: str, pcr0: bytes) -> str:
    """The policy text of a key that only an enclave with `pcr0` can use.

    The instance role may read the public key, and derive a shared secret only with an attestation
    document of that PCR0. The account may look at the key and delete it. Nobody may change the
    policy, grant the key on, or use it in any other way: what no statement allows, KMS denies.

    The text is a pure function of the arguments, so that whoever knows them can compute the hash
    that the enclave attests.

    Args:
        region: decides the partition of the ARNs.
        account_id: 12 digits.
        role: name of the instance role, without path.
        pcr0: 48 bytes, SHA-384 of the enclave image; not all zero (debug mode).

    Raises:
        NameFormatError: region, account id or role is not of AWS's form.
        ValueError: `pcr0` is not 48 bytes, or is all zero.
    """
    if len(pcr0) != PCR_BYTES or not any(pcr0):
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
    """SHA-256 (32 bytes) over the policy text as it is sent to KMS."""
    return hashlib.sha256(policy.encode()).digest()

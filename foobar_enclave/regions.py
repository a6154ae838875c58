"""Which regions have AWS KMS, and the one endpoint of each."""

from __future__ import annotations

from collections.abc import Callable, Collection

from foobar_enclave.errors import RegionError
from foobar_shared.key_policy import partition_of


def kms_endpoint(region: str, known_regions: Callable[[str], Collection[str]]) -> str:
    """The URL of KMS in `region`, without a path.

    Args:
        region: the requester's word, which is not to be trusted.
        known_regions: the regions with KMS in a partition (`aws`, `aws-cn`, `aws-us-gov`).

    Raises:
        NameFormatError: not of a region's form.
        RegionError: no region of its partition that has KMS.
    """
    partition = partition_of(region)
    if region not in known_regions(partition):
        raise RegionError(f"{region} is no region of partition {partition} with AWS KMS")
    return f"https://{_host(region, partition)}"


def _host(region: str, partition: str) -> str:
    suffix = "amazonaws.com.cn" if partition == "aws-cn" else "amazonaws.com"
    return f"kms.{region}.{suffix}"

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foobar_enclave.errors import RegionError
from foobar_enclave.kms_client import make_client
from foobar_enclave.regions import kms_endpoint
from foobar_shared.errors import NameFormatError
from tests.foobar_enclave.fakes import CREDENTIALS, no_connection

KNOWN = {
    "aws": ["us-east-1", "eu-central-1"],
    "aws-cn": ["cn-north-1"],
    "aws-us-gov": ["us-gov-west-1"],
}


@pytest.mark.parametrize(
    ("region", "url"),
    [
        ("us-east-1", "https://kms.us-east-1.amazonaws.com"),
        ("eu-central-1", "https://kms.eu-central-1.amazonaws.com"),
        ("cn-north-1", "https://kms.cn-north-1.amazonaws.com.cn"),
        ("us-gov-west-1", "https://kms.us-gov-west-1.amazonaws.com"),
    ],
)
def test_each_region_has_one_endpoint_and_the_sdk_agrees(region: str, url: str) -> None:
    assert kms_endpoint(region, lambda partition: KNOWN[partition]) == url
    client = make_client(
        region=region,
        credentials=CREDENTIALS,
        connect=no_connection,
        tls=None,  # type: ignore[arg-type]
    )
    assert client.meta.endpoint_url == url


@pytest.mark.parametrize(
    "region",
    ["zz-foo-9", "us-east-99", "us-iso-east-1", "us-isob-east-1", "cn-east-9", "aws-global-1"],
)
def test_a_region_that_the_sdk_does_not_know_is_refused(region: str) -> None:
    with pytest.raises((RegionError, NameFormatError)):
        make_client(
            region=region,
            credentials=CREDENTIALS,
            connect=no_connection,
            tls=None,  # type: ignore[arg-type]
        )
    with pytest.raises((RegionError, NameFormatError)):
        kms_endpoint(region, lambda partition: KNOWN[partition])


def test_a_region_of_another_partition_is_refused() -> None:
    with pytest.raises(RegionError, match="us-east-1 is no region of partition aws"):
        kms_endpoint("us-east-1", lambda partition: KNOWN["aws-cn"] if partition == "aws" else [])


INJECTIONS = [
    "x.attacker.example/", "us-east-1.attacker.example", "us-east-1/", "us-east-1#", "us-east-1?",
    "us-east-1@attacker.example", "attacker.example:443/us-east-1", "us-east-1\n", " us-east-1",
    "", "A", "US-EAST-1", "us-east-1\0", "us-east-\u0661", "..", "us-east-1-fips", "fips-us-east-1",
    "%2e", "us-east-1%2f",
]  # fmt: skip


@pytest.mark.parametrize("region", INJECTIONS)
def test_weakness_3_no_region_leads_to_another_host(region: str) -> None:
    with pytest.raises(NameFormatError):
        make_client(
            region=region,
            credentials=CREDENTIALS,
            connect=no_connection,
            tls=None,  # type: ignore[arg-type]
        )


@given(st.text(alphabet="abcus-east1.0/@:#\n%", max_size=24))
def test_a_text_is_a_known_region_or_refused(region: str) -> None:
    known = [name for names in KNOWN.values() for name in names]
    if region in known:
        return
    with pytest.raises((RegionError, NameFormatError)):
        kms_endpoint(region, lambda partition: KNOWN[partition])

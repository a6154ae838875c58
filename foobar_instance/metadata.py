"""EC2 instance metadata (IMDSv2): region, account, and the instance role's credentials."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from botocore.exceptions import BotoCoreError, MetadataRetrievalError
from botocore.session import Session
from botocore.utils import IMDSFetcher, InstanceMetadataFetcher, InstanceMetadataRegionFetcher

from foobar_instance.errors import MetadataError
from foobar_instance.terminal import one_line
from foobar_shared.encoding import Fields, parse_json_object
from foobar_shared.errors import NameFormatError
from foobar_shared.key_policy import partition_of
from foobar_shared.messages import Credentials
from foobar_shared.timeouts import METADATA

_SECONDS: Final = int(METADATA)  # the SDK's fetchers take no fractions
_ATTEMPTS: Final = 2
_IAM_INFO: Final = "/latest/meta-data/iam/info"
_PROFILE_ARN: Final = re.compile(r"arn:([a-z-]+):iam::([0-9]{12}):instance-profile/.+", re.ASCII)
_NO_SERVICE: Final = (
    "no instance metadata service answers: run this on the parent EC2 instance, with IMDSv2 enabled"
)


@dataclass(frozen=True, slots=True)
class InstanceIdentity:
    """The instance's region, account and role name, and the role's credentials."""

    region: str
    account_id: str
    role: str
    credentials: Credentials


class _Fetcher(IMDSFetcher):
    """botocore's fetcher, for the one document that its other fetchers do not read."""

    def instance_profile_arn(self) -> str:
        token = self._fetch_metadata_token()  # type: ignore[attr-defined] # not in the stubs
        response = self._get_request(  # type: ignore[attr-defined]
            url_path=_IAM_INFO, retry_func=lambda _: False, token=token
        )
        if response.status_code != 200:
            raise MetadataError(
                "this instance has no IAM role: attach an instance profile with the role"
            )
        return Fields("", parse_json_object(response.content)).text("InstanceProfileArn")


@contextmanager
def without_proxies() -> Iterator[None]:
    """Have the SDK's metadata fetchers ignore proxies; they choose one when they are made.

    A proxy would see the role's credentials in clear.
    """
    before = os.environ.get("no_proxy")
    os.environ["no_proxy"] = "*"  # outweighs NO_PROXY
    try:
        yield
    finally:
        if before is None:
            del os.environ["no_proxy"]
        else:
            os.environ["no_proxy"] = before


def read_identity(role: str) -> InstanceIdentity:
    """Read region, account and credentials of the instance's role, which must be `role`.

    Raises:
        MetadataError: no metadata service, no role, another role, no credentials, or the
            SDK's configuration is unusable.
    """
    try:
        config = _config(Session())
        with without_proxies():
            fetcher = _Fetcher(timeout=_SECONDS, num_attempts=_ATTEMPTS, config=config)
            regions = InstanceMetadataRegionFetcher(_SECONDS, _ATTEMPTS, config=config)
            credentials = InstanceMetadataFetcher(_SECONDS, _ATTEMPTS, config=config)
    except BotoCoreError as error:  # an unknown profile, a broken file, an endpoint that is none
        raise MetadataError(f"the AWS SDK can't be set up: {one_line(error)}") from error
    try:
        region = regions.retrieve_region()
        if not region:
            raise MetadataError(_NO_SERVICE)
        arn = fetcher.instance_profile_arn()
        found = credentials.retrieve_iam_role_credentials()
    except MetadataError:
        raise
    except MetadataRetrievalError as error:  # no token, and version 1 is not asked
        raise MetadataError(_NO_SERVICE) from error
    except Exception as error:  # the fetchers do not bound what they raise
        raise MetadataError(
            f"instance metadata can't be read ({type(error).__name__}): run this on the parent "
            "EC2 instance, with IMDSv2 enabled"
        ) from error
    return _identity(region, arn, found, role)


def _identity(region: str, arn: str, found: dict[str, str], role: str) -> InstanceIdentity:
    profile = _PROFILE_ARN.fullmatch(arn)
    if profile is None:
        raise MetadataError("instance metadata names no instance profile")
    if not found:
        raise MetadataError(
            f"the instance's role has no credentials: check that the role {role} exists, and that "
            "EC2 may assume it"
        )
    if found["role_name"] != role:
        raise MetadataError(
            f"the instance's role is {one_line(found['role_name'])}, not {role}: say so with --role"
        )
    try:
        partition = partition_of(region)
    except NameFormatError as error:
        raise MetadataError(f"instance metadata: {error}") from error
    if profile[1] != partition:
        raise MetadataError("instance metadata names a region of another partition than the role's")
    return InstanceIdentity(
        region=region,
        account_id=profile[2],
        role=role,
        credentials=Credentials(found["access_key"], found["secret_key"], found["token"]),
    )


def _config(session: Session) -> dict[str, object]:
    """Return the SDK's settings for the metadata service, with version 1 off."""
    names = ("ec2_metadata_service_endpoint", "ec2_metadata_service_endpoint_mode")
    settings = {name: session.get_config_variable(name) for name in names}
    return settings | {"ec2_metadata_v1_disabled": True}

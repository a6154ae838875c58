"""A boto3 client of KMS that knows no network, environment or file but what it is given.

Imported at the first use of KMS, because it loads the SDK.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

import boto3.session
import botocore.session
import urllib3
from botocore.config import Config
from botocore.configprovider import (
    BOTOCORE_DEFAUT_SESSION_VARIABLES,
    ConfigValueStore,
    ConstantProvider,
)
from botocore.credentials import CredentialResolver
from botocore.exceptions import ClientError
from botocore.loaders import Loader

from foobar_enclave.errors import KmsError, KmsRefusedError, KmsUnreachableError
from foobar_enclave.kms_transport import KmsTransport
from foobar_enclave.regions import kms_endpoint
from foobar_enclave.text import one_line
from foobar_shared.messages import Credentials

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

# At debug level the SDK logs what it signs, the session token included; at others, in its own form.
for _library in (boto3, botocore, urllib3):
    logging.getLogger(_library.__name__).setLevel(logging.CRITICAL)

_SERVER_ERROR: Final = 500  # the first status of the class (RFC 9110 section 15.6)

_CONFIG: Final = Config(  # type: ignore[call-arg]  # the stubs lack one option
    # CreateKey is not idempotent: a second one would make a second key.
    retries={"total_max_attempts": 1, "mode": "standard"},
    ignore_configured_endpoint_urls=True,
    user_agent="foobar-enclave",
)


def make_client(
    *,
    region: str,
    credentials: Credentials,
    connect: Callable[[], socket.socket],
    tls: ssl.SSLContext,
) -> KMSClient:
    """A client whose every request goes to KMS in `region` over a socket from `connect`.

    Raises:
        NameFormatError: `region` is not of a region's form.
        RegionError: the region has no KMS.
        KmsError: the SDK would ask another endpoint than the region's.
    """
    session = _isolated_session()
    endpoint = kms_endpoint(
        region, lambda partition: session.get_available_regions("kms", partition)
    )
    client: KMSClient = boto3.session.Session(botocore_session=session).client(
        "kms",
        region_name=region,
        aws_access_key_id=credentials.access_key_id,
        aws_secret_access_key=credentials.secret_access_key,
        aws_session_token=credentials.token,
        config=_CONFIG,
    )
    if client.meta.endpoint_url != endpoint:
        raise KmsError(f"the SDK's endpoint of KMS in {region} is not {endpoint}")
    transport = KmsTransport(endpoint, connect=connect, tls=tls)
    # What a handler of this event returns takes the place of the SDK's own network.
    client.meta.events.register("before-send.kms", cast("Callable[..., None]", transport.send))
    return client


def translated(operation: str, error: Exception, credentials: Credentials) -> KmsError:
    """This package's error for one of the SDK; KMS's own words, cleaned of what is secret."""
    secrets = (credentials.access_key_id, credentials.secret_access_key, credentials.token)
    if not isinstance(error, ClientError):
        # The SDK could not read the answer, or failed by itself; its text may quote anything.
        return KmsUnreachableError(operation, f"the SDK fails ({type(error).__name__})", sent=True)
    answer = error.response.get("Error", {})
    code = one_line(answer.get("Code", "no error code"), secrets=secrets)
    message = one_line(answer.get("Message", "no message"), secrets=secrets)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return KmsRefusedError(operation, code, message, failed=status >= _SERVER_ERROR)


def _isolated_session() -> botocore.session.Session:
    """A session that looks up no variable, profile, file or credential.

    Every variable that the SDK would read from the environment or a configuration file has its
    built-in value, and service models come from the SDK's own folder only.
    """
    session = botocore.session.Session()
    constants = {
        name: ConstantProvider(value=default)
        for name, (_, _, default, _) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()
    }
    constants |= {
        name: ConstantProvider(value=None) for name in ("config_file", "credentials_file")
    }
    session.register_component("config_store", ConfigValueStore(mapping=constants))
    session.register_component(
        "data_loader",
        Loader(extra_search_paths=[Loader.BUILTIN_DATA_PATH], include_default_search_paths=False),
    )
    session.register_component("credential_provider", CredentialResolver(providers=[]))
    return session

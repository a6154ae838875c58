import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.utils import InstanceMetadataFetcher
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from emulator.identity import Instance
from emulator.virtual_nsm import EmulatedNsm
from foobar_enclave.nsm import NsmDevice
from foobar_shared.key_policy import key_policy
from tests.vm.authorities import Authorities, create
from tests.vm.guest.services import READY

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

INSTANCE = Instance()
MODULE = "i-0123456789abcdef0-enc0123456789abcdef"
PCR0 = bytes(range(48))
SPKI = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def authorities() -> Authorities:
    return create(datetime.now(UTC))


@pytest.fixture(scope="module")
def folder(authorities: Authorities, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authorities")
    for name in ("nitro_root", "tls_ca", "tls_key_and_certificate"):
        (folder / f"{name}.pem").write_bytes(getattr(authorities, name))
    return folder


@pytest.fixture(scope="module")
def process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    loopback = "127.0.0.1:0"
    arguments = ["--authorities", str(folder), "--kms", loopback, "--imds", loopback]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.vm.guest.services", *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


@pytest.fixture(scope="module")
def endpoints(process: subprocess.Popen[str]) -> tuple[str, str]:
    assert process.stdout is not None
    words = process.stdout.readline().split()
    assert words[0] == f"{READY}:"
    return f"https://localhost:{words[4].rstrip(',')}", words[-1]


@pytest.fixture
def kms(endpoints: tuple[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> "KMSClient":
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    credentials: Mapping[str, str] = InstanceMetadataFetcher(
        base_url=endpoints[1], config={"ec2_metadata_v1_disabled": True}
    ).retrieve_iam_role_credentials()
    return boto3.client(
        "kms",
        region_name=INSTANCE.region,
        endpoint_url=endpoints[0],
        verify=str(folder / "tls_ca.pem"),
        aws_access_key_id=credentials["access_key"],
        aws_secret_access_key=credentials["secret_key"],
        aws_session_token=credentials["token"],
        config=Config(retries={"total_max_attempts": 1}),
    )


def derive(kms: "KMSClient", authorities: Authorities, *, pcr0: bytes) -> bytes:
    policy = key_policy(
        region=INSTANCE.region, account_id=INSTANCE.account_id, role=INSTANCE.role, pcr0=PCR0
    )
    assert json.loads(policy)["Statement"]
    created = kms.create_key(
        Policy=policy,
        KeySpec="ECC_NIST_P256",
        KeyUsage="KEY_AGREEMENT",
        BypassPolicyLockoutSafetyCheck=True,
    )
    nsm = EmulatedNsm(authorities.pki, module_id=MODULE, pcrs={0: pcr0})
    document = NsmDevice(transport=nsm).attest(public_key=RSA_KEY.public_key().public_bytes(*SPKI))
    answer = kms.derive_shared_secret(
        KeyId=created["KeyMetadata"]["KeyId"],
        KeyAgreementAlgorithm="ECDH",
        PublicKey=ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(*SPKI),
        Recipient={
            "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
            "AttestationDocument": document,
        },
    )
    return answer["CiphertextForRecipient"]


def test_the_metadatas_credentials_reach_kms_that_holds_to_pcr0(
    kms: "KMSClient", authorities: Authorities
) -> None:
    assert derive(kms, authorities, pcr0=PCR0)
    with pytest.raises(ClientError, match="AccessDeniedException"):
        derive(kms, authorities, pcr0=bytes(reversed(PCR0)))


def test_kms_takes_no_document_of_another_hierarchy(kms: "KMSClient") -> None:
    with pytest.raises(ClientError) as refused:
        derive(kms, create(datetime.now(UTC)), pcr0=PCR0)
    assert refused.value.response["Error"]["Code"] == "ValidationException"


def test_it_ends_where_its_address_is_in_use(folder: Path, endpoints: tuple[str, str]) -> None:
    port = endpoints[1].rpartition(":")[2]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.vm.guest.services", "--authorities", str(folder)),
            *("--kms", "127.0.0.1:0", "--imds", f"127.0.0.1:{port}"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ,
    )
    assert done.returncode == 1
    assert READY not in done.stdout
    assert "Address already in use" in done.stderr

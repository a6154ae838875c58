"""The whole emulator: KMS, instance metadata and enclaves, in one directory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Self

import boto3
from botocore.config import Config
from cryptography.hazmat.primitives.serialization import Encoding

from emulator.clock import Clock, utc_now
from emulator.errors import EnclaveFailedError, StateDirectoryError
from emulator.hypervisor import EnclaveHost, RunningEnclave
from emulator.identity import AccessKey, CredentialStore, Instance
from emulator.imds import ImdsServer
from emulator.kms_server import KmsServer
from emulator.kms_service import KmsService
from emulator.pki import NitroPki
from emulator.sigv4 import Authenticator
from emulator.state import Environment, StateDirectory, default_directory
from emulator.tls import create_server_identity
from foobar_instance.attestation import Verifier

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

_LOOPBACK: Final = "localhost,127.0.0.1"
# What would lead the AWS SDK or the CLI elsewhere.
_UNSET: Final = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN",
    "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_EC2_METADATA_DISABLED", "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
    "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "FOOBAR_ATTESTATION_PATH", "FOOBAR_ROLE", "FOOBAR_PCR0", "FOOBAR_PCR",
)  # fmt: skip


class Emulator:
    """A machine with a Nitro enclave, its AWS account and KMS, while the context lasts.

    Attributes:
        instance: region, account, role and instance id.
        credentials: every access key that KMS knows; add keys of other principals here.
        pki: the Nitro certificate hierarchy, for documents of one's own making.
        enclave: the first enclave that the environment points at.
    """

    pki: NitroPki
    enclave: RunningEnclave
    _environment: Environment

    def __init__(
        self,
        directory: Path | None = None,
        *,
        debug_mode: bool = False,
        enclaves: int = 1,
        console: IO[bytes] | None = None,
    ) -> None:
        """Prepare an emulator; entering the context starts it.

        Args:
            directory: for its sockets and files; the user's own by default. Made if need be.
            debug_mode: whether the enclaves run in debug mode.
            enclaves: how many enclaves of the same image to start.
            console: where enclaves write their logs; standard error by default.
        """
        self.instance = Instance()
        self.credentials = CredentialStore()
        self._state = StateDirectory(directory or default_directory())
        self._debug_mode = debug_mode
        self._count = enclaves
        if enclaves > 1 and len(str(self._state.path).split()) > 1:
            raise StateDirectoryError(
                f"{self._state.path} holds white space, which separates the addresses of several "
                "enclaves: choose another directory"
            )
        self._console = console
        self._enclaves: dict[str, RunningEnclave] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._state)
            self.pki = NitroPki.create(now=utc_now(), region=self.instance.region)
            root = self.pki.root.public_bytes(Encoding.PEM).decode()
            self._state.write("nitro-root.pem", root)
            kms = stack.enter_context(self._kms())
            imds = stack.enter_context(ImdsServer(self.instance, self.credentials))
            stack.callback(self._stop_enclaves)
            names = ["enclave", *(str(number) for number in range(2, self._count + 1))]
            enclaves = [self.start_enclave(name, debug=self._debug_mode) for name in names]
            self.enclave = enclaves[0]
            self._environment = self._point_at(kms, imds, enclaves)
            self._state.publish(self._environment)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def directory(self) -> Path:
        """Return where its sockets and files are."""
        return self._state.path

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that point `foobar-instance` and AWS SDKs at this emulator."""
        return dict(self._environment.variables)

    @property
    def ca_file(self) -> Path:
        """Return the PEM file of the CA that signs KMS's TLS certificate."""
        return self.directory / "kms-ca.pem"

    @property
    def root_path(self) -> Path:
        """Return the PEM file of the Nitro root certificate."""
        return self.directory / "nitro-root.pem"

    def process_environment(self, base: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Return a whole environment for a process: `base`, pointed at this emulator."""
        return self._environment.applied_to(base)

    def start_enclave(
        self,
        name: str,
        *,
        measured: bytes = b"",
        debug: bool = False,
        clock: Clock = utc_now,
    ) -> RunningEnclave:
        """Start a further enclave of the same instance, and wait until it answers.

        Args:
            name: lower-case letters, digits and hyphens, not in use.
            measured: any bytes give another PCR0.
            debug: whether PCR0 to PCR2 are zero.
            clock: the time in its documents.

        Raises:
            EnclaveFailedError: it did not start.
            StateDirectoryError: the name will not do.
        """
        if name in self._enclaves:
            raise EnclaveFailedError(f"an enclave of the name {name} is running")
        relay = self._state.socket("relay")
        enclave = RunningEnclave(
            EnclaveHost(self.instance, self.pki, relay, self.ca_file, self._console),
            address=self._state.socket(name if name == "enclave" else f"enclave-{name}"),
            name=name,
            measured=measured,
            debug=debug,
            clock=clock,
        )
        self._enclaves[name] = enclave
        enclave.wait_until_ready()
        return enclave

    def stop_enclave(self, name: str) -> int:
        """End an enclave; return its exit code, 0 where it ended cleanly."""
        return self._enclaves.pop(name).stop()

    def measurements_path(self, name: str = "enclave") -> Path:
        """Write a file of an enclave's measurements, as `nitro-cli build-enclave` prints them."""
        text = self._enclaves[name].measurements.as_nitro_cli_json()
        file_name = "" if name == "enclave" else f"enclave-{name}-"
        return self._state.write(f"{file_name}measurements.json", text)

    def kms_client(self, key: AccessKey | None = None) -> KMSClient:
        """Return a boto3 client of this KMS, as the instance role or with another access key."""
        key = key or self.credentials.session(self.instance.role_session(), now=utc_now())
        return boto3.client(
            "kms",
            region_name=self.instance.region,
            endpoint_url=self._environment.variables["AWS_ENDPOINT_URL_KMS"],
            verify=str(self.ca_file),
            aws_access_key_id=key.access_key_id,
            aws_secret_access_key=key.secret_access_key,
            aws_session_token=key.token,
            config=Config(retries={"total_max_attempts": 1}, proxies={}),
        )

    def check(self) -> None:
        """Raise EnclaveFailedError if an enclave has ended by itself."""
        for name, enclave in self._enclaves.items():
            if enclave.exit_code is not None:
                raise EnclaveFailedError(
                    f"enclave {name!r} has ended by itself, with exit code {enclave.exit_code}"
                )

    def _kms(self) -> KmsServer:
        region = self.instance.region
        identity = create_server_identity(host_names=[f"kms.{region}.amazonaws.com"], now=utc_now())
        self._state.write("kms-ca.pem", identity.ca_certificate.decode())
        service = KmsService(self.instance, Verifier(root=self.pki.root), clock=utc_now)
        return KmsServer(
            Authenticator(self.credentials, region=region, clock=utc_now),
            service.perform,
            tls=identity.server_context(self._state.path),
        )

    def _point_at(
        self, kms: KmsServer, imds: ImdsServer, enclaves: list[RunningEnclave]
    ) -> Environment:
        return Environment(
            variables={
                "FOOBAR_ENCLAVE": " ".join(str(enclave.address) for enclave in enclaves),
                "FOOBAR_PROXY_LISTEN": str(self._state.socket("relay")),
                "FOOBAR_ROOT_PATH": str(self.root_path),
                "FOOBAR_MEASUREMENTS": str(self.measurements_path()),
                "AWS_ENDPOINT_URL_KMS": kms.endpoint,
                "AWS_CA_BUNDLE": str(self.ca_file),
                "AWS_EC2_METADATA_SERVICE_ENDPOINT": imds.endpoint,
                "AWS_CONFIG_FILE": os.devnull,
                "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
                "NO_PROXY": _LOOPBACK,
                "no_proxy": _LOOPBACK,
            },
            unset=_UNSET,
        )

    def _stop_enclaves(self) -> None:
        while self._enclaves:
            self.stop_enclave(next(iter(self._enclaves)))

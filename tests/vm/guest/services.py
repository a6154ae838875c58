"""KMS and instance metadata for the parent machine: the emulator's, at AWS's own addresses.

KMS takes attestation documents under the lab's Nitro root. Its key material is gone with the
process; so are the access keys that the metadata hands out.
"""

import argparse
import signal
import ssl
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from cryptography import x509

from emulator.clock import utc_now
from emulator.identity import CredentialStore, Instance
from emulator.imds import ImdsServer
from emulator.kms_server import KmsServer
from emulator.kms_service import KmsService
from emulator.loopback import SocketAddress
from emulator.sigv4 import Authenticator
from foobar_instance.attestation import Verifier

AUTHORITIES: Final = Path("/lab/authorities")
KMS: Final[SocketAddress] = ("127.0.0.1", 443)  # /etc/hosts leads KMS's name here
# Amazon EC2 user guide, "Access instance metadata": the address on every instance.
IMDS: Final[SocketAddress] = ("169.254.169.254", 80)
READY: Final = "ready"


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; prints READY, and where, once both are served."""
    options = _options(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with ExitStack() as stack:
        instance, credentials = Instance(), CredentialStore()
        root = x509.load_pem_x509_certificate((options.authorities / "nitro_root.pem").read_bytes())
        service = KmsService(instance, Verifier(root=root), clock=utc_now)
        kms = stack.enter_context(
            KmsServer(
                Authenticator(credentials, region=instance.region, clock=utc_now),
                service.perform,
                tls=_server_context(options.authorities / "tls_key_and_certificate.pem"),
                address=options.kms,
            )
        )
        imds = stack.enter_context(ImdsServer(instance, credentials, address=options.imds))
        print(f"{READY}: KMS on port {kms.port}, metadata at {imds.endpoint}", flush=True)  # noqa: T201
        stop.wait()


def _server_context(path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(path)
    return context


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.vm.guest.services", description=__doc__)
    parser.add_argument("--authorities", type=Path, default=AUTHORITIES, help="folder of PEM files")
    parser.add_argument("--kms", type=_address, default=KMS, metavar="IP:PORT")
    parser.add_argument("--imds", type=_address, default=IMDS, metavar="IP:PORT")
    return parser.parse_args(arguments)


def _address(text: str) -> SocketAddress:
    host, _, port = text.rpartition(":")
    return host, int(port)


if __name__ == "__main__":
    main()

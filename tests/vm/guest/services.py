"""KMS and instance metadata for the parent machine: the emulator's, at AWS's own addresses.

KMS takes attestation documents under the lab's Nitro root. Its key material is gone with the
process; so are the access keys that the metadata hands out.
"""

import signal
import ssl
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


def main() -> None:
    """Serve until the machine ends; prints READY once both are served."""
    with ExitStack() as stack:
        instance, credentials = Instance(), CredentialStore()
        root = x509.load_pem_x509_certificate((AUTHORITIES / "nitro_root.pem").read_bytes())
        service = KmsService(instance, Verifier(root=root), clock=utc_now)
        authenticator = Authenticator(credentials, region=instance.region, clock=utc_now)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(AUTHORITIES / "tls_key_and_certificate.pem")
        stack.enter_context(KmsServer(authenticator, service.perform, tls=tls, address=KMS))
        stack.enter_context(ImdsServer(instance, credentials, address=IMDS))
        print(READY, flush=True)  # noqa: T201
        signal.pause()


if __name__ == "__main__":
    main()

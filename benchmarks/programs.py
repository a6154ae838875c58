"""The emulator with one key, and `foobar-instance` as whole processes that are pointed at it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from emulator import Emulator
from foobar_instance.attestation import parse_attestation
from foobar_instance.enclave_client import EnclaveClient
from foobar_shared import hpke
from foobar_shared.addresses import Address, parse_address
from foobar_shared.claims import KeyClaims, parse_key_claims
from foobar_shared.messages import GetAttestationRequest

PROGRAM: Final = "from foobar_instance.cli import main; main()"  # what the installed script does
PROJECT: Final = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Place:
    """A running emulator, the environment of programs, and one attested key."""

    emulator: Emulator
    environment: Mapping[str, str]
    attestation: Path
    key: KeyClaims

    @property
    def address(self) -> Address:
        """Return where the enclave serves."""
        return parse_address(self.emulator.environment["FOOBAR_ENCLAVE"])

    def message(self) -> tuple[hpke.SealedMessage, Callable[[], bytes]]:
        """Return a message, and the function that asks KMS for its shared secret."""
        message = hpke.parse(hpke.seal(b"attack at dawn", self.key.public_key, self.key.key_arn))
        assert message is not None  # noqa: S101 - it is of format 2
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), message.enc)
        public_key = point.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        client = self.emulator.kms_client()
        with EnclaveClient(self.address) as enclave:
            document = enclave.ask(GetAttestationRequest())
        return message, lambda: client.derive_shared_secret(
            KeyId=self.key.key_arn,
            KeyAgreementAlgorithm="ECDH",
            PublicKey=public_key,
            Recipient={
                "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
                "AttestationDocument": document,
            },
        )["CiphertextForRecipient"]


@contextmanager
def place() -> Iterator[Place]:
    """Start an emulator and create a key; both last as long as the context."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name, Path(os.devnull).open("wb") as console:
        folder = Path(name)
        with Emulator(folder / "e", console=console) as emulator:
            environment = {
                **emulator.process_environment(),
                "PYTHONPYCACHEPREFIX": f"{folder}/compiled",  # else the compiler is measured
            }
            environment.pop("PYTHONDONTWRITEBYTECODE", None)
            path = folder / "attestation.out"
            python(environment, PROGRAM, "create-key", "-q", f"--attestation-path={path}")
            claims = parse_attestation(path.read_bytes()).user_data
            yield Place(emulator, environment, path, parse_key_claims(claims))


def output(command: Sequence[str], environment: Mapping[str, str], stdin: str = "") -> str:
    """Run a command in the project's folder and return what it prints.

    Raises:
        RuntimeError: it failed; the text is its last line on stderr.
    """
    done = subprocess.run(
        command,
        env=environment, cwd=PROJECT, input=stdin, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it failed"])[-1])
    return done.stdout


def python(environment: Mapping[str, str], code: str, *arguments: str, stdin: str = "") -> str:
    """Do as `output` with code in a new process of this interpreter."""
    return output([sys.executable, "-c", code, *arguments], environment, stdin)


def timed(environment: Mapping[str, str], code: str, *arguments: str, stdin: str = "") -> float:
    """Return the wall-clock seconds of one whole process."""
    began = time.perf_counter()
    python(environment, code, *arguments, stdin=stdin)
    return time.perf_counter() - began

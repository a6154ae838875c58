"""The emulator with one key, and `foobar-instance` as whole processes that are pointed at it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from emulator import Emulator
from foobar_instance.attestation import parse_attestation
from foobar_shared.claims import KeyClaims, parse_key_claims

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

PROGRAM: Final = "from foobar_instance.cli import main; main()"  # what the installed script does
_PROJECT: Final = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Place:
    """A running emulator, the environment of programs, and one attested key."""

    emulator: Emulator
    environment: Mapping[str, str]
    attestation: Path
    key: KeyClaims

    def derive(self, client: KMSClient, enc: bytes, document: bytes) -> bytes:
        """Ask KMS for a message's shared secret, for the enclave that `document` attests."""
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), enc)
        return client.derive_shared_secret(
            KeyId=self.key.key_arn,
            KeyAgreementAlgorithm="ECDH",
            PublicKey=point.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
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
            claims = parse_attestation(path.read_bytes()).user_data or b""
            yield Place(emulator, environment, path, parse_key_claims(claims))


def python(environment: Mapping[str, str], code: str, *arguments: str, stdin: str = "") -> str:
    """Run code in a new process and return what it prints.

    Raises:
        RuntimeError: it failed; the text is its last line on stderr.
    """
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment, cwd=_PROJECT, input=stdin, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it failed"])[-1])
    return done.stdout


def timed(environment: Mapping[str, str], code: str, *arguments: str, stdin: str = "") -> float:
    """Return the wall-clock seconds of one whole process."""
    began = time.perf_counter()
    python(environment, code, *arguments, stdin=stdin)
    return time.perf_counter() - began

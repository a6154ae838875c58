"""`foobar-instance decrypt` as a whole process, beside making a KMS client and being answered."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from botocore.utils import InstanceMetadataFetcher

from benchmarks.processes import PROGRAM, interpreter
from benchmarks.report import Measurement, Section, ratio_of
from benchmarks.rounds import Contestant, take
from emulator import Emulator
from foobar_instance.attestation import parse_attestation
from foobar_instance.enclave_client import EnclaveClient
from foobar_shared.addresses import parse_address
from foobar_shared.claims import parse_key_claims
from foobar_shared.envelope import Message, parse_message
from foobar_shared.messages import NONCE_BYTES, DecryptRequest, GetAttestationRequest

_CLIENT: Final = (
    "import boto3; from botocore.config import Config; "
    "boto3.client('kms', region_name='us-east-1', config=Config(retries={'mode': 'standard'}))"
)
_MINE: Final = "foobar-instance decrypt"
_PEER: Final = "import boto3, make a KMS client"
_ANSWERS: Final = "the emulator's answers"
_TOGETHER: Final = f"{_PEER}, plus {_ANSWERS}"


def run(rounds: int) -> Section:
    """Milliseconds from before the process starts to after it has ended."""
    with tempfile.TemporaryDirectory() as name, open(os.devnull, "wb") as console:  # noqa: PTH123
        folder = Path(name)
        with Emulator(folder / "e", console=console) as emulator:
            environment = emulator.process_environment()
            with interpreter(environment) as python:
                message = _encrypted(folder, environment)
                decrypt = [
                    "decrypt",
                    f"--attestation-path={folder}/attestation.out",
                    f"--ciphertext={message}",
                ]
                document = (folder / "attestation.out").read_bytes()
                answers = _Answers(emulator, _key_arn(document), parse_message(message))
                measured = take(
                    [
                        python.contestant(_PEER, _CLIENT),
                        python.contestant(_MINE, PROGRAM, *decrypt),
                        Contestant(_ANSWERS, answers.milliseconds),
                    ],
                    rounds=rounds * 2,
                    unit="ms",
                )
    peer, waits = measured[_PEER], measured[_ANSWERS]
    together = Measurement(
        _TOGETHER, "ms", tuple(a + b for a, b in zip(peer.samples, waits.samples, strict=True))
    )
    return Section(
        name="cli-decrypt",
        work="One whole process of the same interpreter, modules compiled and files cached. The "
        "emulator's answers are asked for by a process that is running: two by the enclave, one "
        "by KMS over a new TLS connection, and three by instance metadata for credentials.",
        measurements=(*measured.values(), together),
        ratios=(
            ratio_of(measured[_MINE], together, bound=1.35, better="lower"),
            ratio_of(measured[_MINE], peer),
        ),
    )


@dataclass(frozen=True, slots=True)
class _Answers:
    """Asks the emulator what the program asks it, one after the other."""

    emulator: Emulator
    key_arn: str
    message: Message

    def milliseconds(self) -> float:
        """All answers together, with the client's work for them but without making a client."""
        address = parse_address(self.emulator.environment["FOOBAR_ENCLAVE"])
        client = self.emulator.kms_client()
        metadata = InstanceMetadataFetcher(
            base_url=self.emulator.environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"]
        )
        began = time.perf_counter()
        with EnclaveClient(address) as enclave:
            attestation = enclave.ask(GetAttestationRequest(secrets.token_bytes(NONCE_BYTES)))
            if not metadata.retrieve_iam_role_credentials():
                raise RuntimeError("instance metadata gave no credentials")
            enveloped = client.derive_shared_secret(
                KeyId=self.key_arn,
                KeyAgreementAlgorithm="ECDH",
                PublicKey=self.message.ephemeral_key,
                Recipient={
                    "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
                    "AttestationDocument": attestation,
                },
            )["CiphertextForRecipient"]
            message = self.message
            challenge = secrets.token_bytes(NONCE_BYTES)
            enclave.ask(DecryptRequest(enveloped, message.nonce, message.ciphertext, challenge))
        return (time.perf_counter() - began) * 1000


def _encrypted(folder: Path, environment: Mapping[str, str]) -> str:
    """A message to a key that is made for it; its attestation is left in `folder`."""
    _program(environment, "create-key", "-q", f"--attestation-path={folder}/attestation.out")
    return _program(
        environment,
        "encrypt",
        "-q",
        f"--attestation-path={folder}/attestation.out",
        "--plaintext=attack at dawn",
    ).strip()


def _program(environment: Mapping[str, str], *arguments: str) -> str:
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True
    )
    return done.stdout.decode()


def _key_arn(document: bytes) -> str:
    return parse_key_claims(parse_attestation(document).user_data or b"").key_arn

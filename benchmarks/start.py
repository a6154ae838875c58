"""`encrypt` and `decrypt` of one message as whole processes, beside what they have to import."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from benchmarks.programs import PROGRAM, place, python, timed
from benchmarks.report import Section, ratio_of, take

_IMPORTS: Final = "import click, cbor2, cryptography.x509, pycose.messages"
_SDK: Final = f"{_IMPORTS}, boto3; boto3.client('kms', region_name='us-east-1')"


def run(rounds: int, *, small: bool = False) -> Section:
    """Measure milliseconds from before the process starts to after it has ended."""
    del small  # it has one size
    with place() as here:
        path = f"--attestation-path={here.attestation}"
        encrypt = ("encrypt", "-q", path, "--plaintext=attack at dawn")
        message = python(here.environment, PROGRAM, *encrypt).strip()
        decrypt = ("decrypt", "-q", path, f"--ciphertext={message}")

        def sampler(code: str, *arguments: str) -> Callable[[], float]:
            return lambda: timed(here.environment, code, *arguments) * 1000

        measured = take(
            {
                "python -c pass": sampler("pass"),
                "foobar-instance --help": sampler(PROGRAM, "--help"),
                "imports": sampler(_IMPORTS),
                "encrypt": sampler(PROGRAM, *encrypt),
                "imports and a KMS client": sampler(_SDK),
                "decrypt": sampler(PROGRAM, *decrypt),
            },
            rounds=rounds * 2,  # a process is short, and a noisy machine's median needs many
            unit="ms",
        )
    _, _, imports, encrypts, sdk, decrypts = measured.values()
    return Section(
        "start",
        "One whole process of the same interpreter, modules compiled and files cached. The imports "
        "are click, cbor2, cryptography.x509 and pycose. decrypt waits for two answers of the "
        "enclave, one of KMS and three of instance metadata, all emulated.",
        tuple(measured.values()),
        (
            ratio_of(encrypts, imports, 1.3, at_most=True),
            ratio_of(decrypts, sdk, 1.5, at_most=True),
        ),
    )

"""`foobar-instance encrypt` as a whole process, beside the imports that it is made of."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from benchmarks.processes import PROGRAM, interpreter
from benchmarks.report import Section, ratio_of
from benchmarks.rounds import take
from emulator.documents import attestation_document
from emulator.pki import NitroPki
from foobar_shared.claims import KeyClaims

_MODULE: Final = "i-0123456789abcdef0-enc0123456789abcdef"
_PCR0: Final = bytes(range(48))
_KEY_ID: Final = "0f6b2f3e-43ae-4d8c-9a4c-2f4d1c7f4a11"
_IMPORTS: Final = "import click, cbor2, cryptography.x509, pycose.messages"
_WITHOUT_PYCOSE: Final = "import click, cbor2, cryptography.x509"


def run(rounds: int) -> Section:
    """Milliseconds from before the process starts to after it has ended."""
    with tempfile.TemporaryDirectory() as name, interpreter() as python:
        measured = take(
            [
                python.contestant("python -c pass", "pass"),
                python.contestant(_IMPORTS, _IMPORTS),
                python.contestant(_WITHOUT_PYCOSE, _WITHOUT_PYCOSE),
                python.contestant("foobar-instance encrypt", PROGRAM, *_encrypt(Path(name))),
            ],
            rounds=rounds * 3,  # a process is short, and a noisy machine's median needs many
            unit="ms",
        )
    mine = measured["foobar-instance encrypt"]
    return Section(
        name="cli-encrypt",
        work="One whole process of the same interpreter, modules compiled and files cached; "
        "encrypt verifies the key's attestation, all of its chain, and prints the message.",
        measurements=tuple(measured.values()),
        ratios=(
            ratio_of(mine, measured[_IMPORTS], bound=1.1, better="lower"),
            ratio_of(mine, measured[_WITHOUT_PYCOSE]),
            ratio_of(mine, measured["python -c pass"]),
        ),
    )


def _encrypt(folder: Path) -> list[str]:
    """The arguments, with a key's attestation and its root in `folder`."""
    now = datetime.now(UTC)
    pki = NitroPki.create(now=now)
    claims = KeyClaims(
        key_id=_KEY_ID,
        key_arn=f"arn:aws:kms:us-east-1:123456789012:key/{_KEY_ID}",
        public_key=ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        region="us-east-1",
        policy_sha256=bytes(32),
    )
    document = attestation_document(
        pki.issue(_MODULE, now=now),
        module_id=_MODULE,
        pcrs={0: _PCR0},
        timestamp=now,
        user_data=claims.encode(),
    )
    (folder / "attestation.out").write_bytes(document)
    (folder / "root.pem").write_bytes(pki.root.public_bytes(Encoding.PEM))
    return [
        "encrypt",
        "--quiet",
        f"--root-path={folder}/root.pem",
        f"--pcr0={_PCR0.hex()}",
        f"--attestation-path={folder}/attestation.out",
        "--plaintext=attack at dawn",
    ]

"""Documents verified a second, in one thread, beside the Rust peer and bare signature checks."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.programs import output, place
from benchmarks.report import Contestant, Section, rate, ratio_of, take
from foobar_instance.attestation import Attestation, Verifier
from foobar_instance.attestation._document import parse_message

_VECTORS: Final = Path(
    os.environ.get("FOOBAR_VECTORS") or Path(__file__).parents[2] / "shared/vectors"
)
# One of those whose lengths the peer accepts.
_GENUINE: Final = _VECTORS / "attestation/2024-11-30_us-east-1_prod_def_69d51f98.cbor"

# The peer also asks for the certificate of a TLS server, which the document does not name: it
# verifies the document first, and then refuses it for that reason.
_PEER: Final = """
import sys
from pathlib import Path
from benchmarks.report import rate
from evervault_attestation_bindings import attest_enclave

document, leaf = Path(sys.argv[1]).read_bytes(), bytes.fromhex(sys.argv[2])

def verify():
    try:
        return str(attest_enclave(leaf, [], document))
    except ValueError as error:
        return str(error)

if "ser data was not set" not in verify():
    sys.exit(f"it does not verify the document: {verify()}")
print(rate(verify, seconds=float(sys.argv[3])))
"""


def run(rounds: int, *, small: bool = False) -> Section:
    """Measure documents a second."""
    seconds = 0.01 if small else 0.7
    raw, root = _document()
    kept = Verifier(root)
    message, attestation = parse_message(raw)
    key = x509.load_der_x509_certificate(attestation.certificate).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)  # noqa: S101 - every leaf's is
    measured = take(
        {
            "evervault-attestation-bindings": _peer(attestation, seconds),
            "kept Verifier": lambda: rate(lambda: kept.verify(raw), seconds=seconds),
            "new Verifier": lambda: rate(lambda: Verifier(root).verify(raw), seconds=seconds),
            "one bare P-384 verification": lambda: rate(
                lambda: message.verify_signature(key), seconds=seconds
            ),
        },
        rounds=rounds,
        unit="documents/s",
    )
    peer, warm, *_ = measured.values()
    return Section(
        "verify",
        "The same document again and again: by a kept Verifier, which remembers the chain, and by "
        "a new one for each document, which checks four certificates more.",
        tuple(measured.values()),
        (ratio_of(warm, peer, 3),),
    )


def _document() -> tuple[bytes, x509.Certificate | None]:
    """Return a genuine document, or an emulated one and its root where there are no vectors."""
    if _GENUINE.is_file():
        return _GENUINE.read_bytes(), None
    with place() as here:
        root = Path(here.environment["FOOBAR_ROOT_PATH"]).read_bytes()
        return here.attestation.read_bytes(), x509.load_pem_x509_certificate(root)


def _peer(attestation: Attestation, seconds: float) -> Contestant:
    """Return the peer in a process at the document's time: it knows no clock but the machine's."""
    if not _GENUINE.is_file():
        return "it takes documents under AWS's root alone, and none is here"
    if not shutil.which("faketime"):
        return "Debian's package faketime is not installed"
    command = ("faketime", f"{attestation.timestamp:%F %T}", sys.executable, "-c", _PEER)
    arguments = (str(_GENUINE), attestation.certificate.hex(), str(seconds))
    # What measures is not to be faked.
    environment = {**os.environ, "TZ": "UTC", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}

    def sample() -> float:
        return float(output([*command, *arguments], environment))

    try:
        sample()
    except RuntimeError as error:
        return str(error)
    return sample

"""Documents verified a second, in one thread, beside the Rust peer and bare signature checks.

`python -m benchmarks.verify` prints the peer's rate: it runs as a process of its own, at the
document's time, because the peer judges certificates by the machine's clock alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks.report import Section, ratio_of
from benchmarks.rounds import Contestant, rate, take
from emulator.documents import attestation_document
from emulator.pki import NitroPki
from foobar_instance.attestation import Verifier
from foobar_instance.attestation._document import parse_message

PEER: Final = "evervault-attestation-bindings"
_PROJECT: Final = Path(__file__).parents[1]
_VECTORS: Final = Path(os.environ.get("FOOBAR_VECTORS") or _PROJECT.parent / "shared/vectors")
# One of those whose lengths the peer accepts.
_GENUINE: Final = _VECTORS / "attestation/2024-11-30_us-east-1_prod_def_69d51f98.cbor"
_GENUINE_TIME: Final = "2024-11-30 16:22:49"


def run(rounds: int, *, small: bool = False) -> Section:
    """Measure documents a second."""
    seconds = 0.01 if small else 0.7
    raw, root = _document()
    kept = Verifier(root)
    message, attestation = parse_message(raw)
    key = x509.load_der_x509_certificate(attestation.certificate).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)  # noqa: S101 - every leaf's is
    contestants = [
        _peer(seconds),
        Contestant("kept Verifier", lambda: rate(lambda: kept.verify(raw), seconds=seconds)),
        Contestant(
            "new Verifier", lambda: rate(lambda: Verifier(root).verify(raw), seconds=seconds)
        ),
        Contestant(
            "one bare P-384 verification",
            lambda: rate(lambda: message.verify_signature(key), seconds=seconds),
        ),
    ]
    measured = take(contestants, rounds=rounds, unit="documents/s")
    peer, warm, cold, bare = measured.values()
    return Section(
        "verify",
        "The same document again and again: by a kept Verifier, which remembers the chain, and by "
        "a new one for each document, which checks four certificates more.",
        (peer, warm, cold, bare),
        (
            ratio_of(warm, peer, bound=3),
            ratio_of(cold, peer),
            ratio_of(warm, bare),
            ratio_of(cold, bare),
        ),
    )


def _document() -> tuple[bytes, x509.Certificate | None]:
    """Return a genuine document, or one under a development root where there are no vectors."""
    if _GENUINE.is_file():
        return _GENUINE.read_bytes(), None
    now = datetime.now(UTC)
    pki = NitroPki.create(now=now)
    module_id = "i-0123456789abcdef0-enc0123456789abcdef"
    leaf = pki.issue(module_id, now=now)
    pcrs = {index: bytes([index + 1]) * 48 for index in range(16)}
    return attestation_document(leaf, module_id=module_id, pcrs=pcrs, timestamp=now), pki.root


def _peer(seconds: float) -> Contestant:
    faketime = shutil.which("faketime")
    if faketime is None:
        return Contestant(PEER, absent="Debian's package faketime is not installed")
    command = [faketime, _GENUINE_TIME, sys.executable, "-m", "benchmarks.verify", str(seconds)]
    # What measures is not to be faked.
    environment = {**os.environ, "TZ": "UTC", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}

    def sample() -> float:
        done = subprocess.run(
            command, cwd=_PROJECT, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["it failed"])[-1])
        return float(done.stdout)

    try:
        sample()
    except RuntimeError as error:
        return Contestant(PEER, absent=str(error))
    return Contestant(PEER, sample)


def _measure_peer(seconds: float) -> None:
    try:
        from evervault_attestation_bindings import attest_enclave
    except ImportError:
        sys.exit(f"{PEER} is not installed")
    if not _GENUINE.is_file():
        sys.exit("it takes documents under AWS's root alone, and none is here")
    raw = _GENUINE.read_bytes()
    # It asks for a TLS server's certificate too, which the document does not name: the document
    # is verified first, and then refused for that reason.
    certificate = _some_certificate()

    def verify() -> str:
        try:
            return str(attest_enclave(certificate, [], raw))
        except ValueError as error:
            return str(error)

    if "ser data was not set" not in verify():
        sys.exit(f"it does not verify the document: {verify()}")
    print(rate(verify, seconds=seconds))


def _some_certificate() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "peer")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


if __name__ == "__main__":
    _measure_peer(float(sys.argv[1]))

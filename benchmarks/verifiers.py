"""`python -m benchmarks.verifiers CONTESTANT SECONDS`: one contestant's documents a second.

Each contestant has a process of its own, as a peer may need another clock than the machine's. All
of them verify the one document of `benchmarks.documents`, again and again, in one thread.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks.documents import document
from benchmarks.rounds import Contestant, rate
from foobar_instance.attestation import Verifier
from foobar_instance.attestation._document import parse_message

SECONDS: Final = 0.7
EVERVAULT: Final = "evervault-attestation-bindings"  # the peer
ABSENT: Final = 77
PROJECT: Final = Path(__file__).parents[1]

Work = Callable[[], object]


def contestant(who: str, kind: str, *, share: int = 1) -> Contestant:
    """One of `KINDS`, measured in a process of its own, in documents a second.

    `share` is how often its work has to be done for a document.
    """
    try:
        _sample(kind, 0.01)
    except _AbsentError as error:
        return Contestant(who, absent=str(error))
    return Contestant(who, lambda: _sample(kind, SECONDS) / share)


class _AbsentError(Exception):
    """What this contestant needs is not here."""


def _sample(kind: str, seconds: float) -> float:
    command = [sys.executable, "-m", "benchmarks.verifiers", kind, f"{seconds}"]
    environment = dict(os.environ)
    if kind == "evervault":
        command, environment = _at_the_documents_time(command, environment)
    done = subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode == ABSENT:
        raise _AbsentError(done.stderr.strip())
    done.check_returncode()
    return float(done.stdout)


def _at_the_documents_time(
    command: list[str], environment: dict[str, str]
) -> tuple[list[str], dict[str, str]]:
    """The command under faketime(1), as the peer judges by the machine's clock alone."""
    faketime = shutil.which("faketime")
    if faketime is None:
        raise _AbsentError("Debian's package faketime is not installed")
    moment = f"{document().at:%Y-%m-%d %H:%M:%S}"
    # What measures is not to be faked.
    more = {"TZ": "UTC", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    return [faketime, moment, *command], {**environment, **more}


def _evervault() -> Work:
    try:
        from evervault_attestation_bindings import attest_enclave
    except ImportError:
        raise _AbsentError(f"{EVERVAULT} is not installed") from None
    given = document()
    if not given.is_genuine:
        raise _AbsentError("it takes documents under AWS's root alone, and none is here")
    # It asks for the certificate of a TLS server too, which no genuine document of ours is about:
    # the document is verified first, and then refused for that reason.
    certificate = _some_certificate()

    def verify() -> str:
        try:
            return str(attest_enclave(certificate, [], given.raw))
        except ValueError as error:
            return str(error)

    if "ser data was not set" not in verify():
        raise _AbsentError(f"it does not verify the document: {verify()}")
    return verify


def _some_certificate() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "peer")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


def _root() -> x509.Certificate | None:
    pem = document().root
    return x509.load_pem_x509_certificate(pem) if pem else None


def _warm() -> Work:
    verifier, raw = Verifier(_root()), document().raw
    verifier.verify(raw)
    return lambda: verifier.verify(raw)


def _cold() -> Work:
    """As for another enclave each time: no chain is remembered."""
    root, raw = _root(), document().raw
    return lambda: Verifier(root).verify(raw)


def _bare() -> Work:
    """One signature's verification, with the key at hand."""
    message, attestation = parse_message(document().raw)
    key = _leaf_key(attestation.certificate)
    return lambda: message.verify_signature(key)


def _new_key() -> Work:
    """One signature's verification, by a key that is read from its certificate first."""
    message, attestation = parse_message(document().raw)
    return lambda: message.verify_signature(_leaf_key(attestation.certificate))


def _leaf_key(der: bytes) -> ec.EllipticCurvePublicKey:
    key = x509.load_der_x509_certificate(der).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)  # noqa: S101 - every leaf's is
    return key


KINDS: Final[dict[str, Callable[[], Work]]] = {
    "warm": _warm,
    "cold": _cold,
    "new-key": _new_key,
    "bare": _bare,
    "evervault": _evervault,
}


def main() -> None:
    """Print the rate of the contestant that the command line names."""
    kind, seconds = sys.argv[1:]
    try:
        work = KINDS[kind]()
    except _AbsentError as error:
        print(error, file=sys.stderr)
        sys.exit(ABSENT)
    work()
    print(rate(work, seconds=float(seconds)))


if __name__ == "__main__":
    main()

"""`python -m benchmarks.verifiers CONTESTANT SECONDS`: one contestant's documents a second.

Each contestant has a process of its own, as a peer may need another clock than the machine's. All
of them verify the one document of `benchmarks.documents`, again and again, in one thread.
"""

from __future__ import annotations

import hashlib
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
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks.documents import document
from benchmarks.rounds import Contestant, rate
from foobar_instance.attestation import Verifier, es384
from foobar_instance.attestation._document import parse_message
from foobar_instance.attestation.es384 import CryptographyKey

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


def _warm(*, accelerated: bool) -> Work:
    _choose(accelerated=accelerated)
    verifier, raw = Verifier(_root()), document().raw
    for _ in range(2):
        verifier.verify(raw)
    return lambda: verifier.verify(raw)


def _cold(*, accelerated: bool, neighbours: bool = False) -> Work:
    """As for another enclave each time: the root is known, and no chain is remembered.

    The authorities are, where the enclaves are `neighbours` on one instance.
    """
    _choose(accelerated=accelerated)
    verifier, raw = Verifier(_root()), document().raw
    for _ in range(2):
        verifier.verify(raw)
    chains = verifier._chains  # noqa: SLF001 - to forget them
    paths = chains._paths()  # noqa: SLF001
    assert paths is not None  # noqa: S101 - every root that documents are under has AWS's form

    def verify() -> object:
        chains._chains.clear()  # noqa: SLF001
        if not neighbours:
            paths._authority.cache_clear()  # noqa: SLF001
        return verifier.verify(raw)

    verify()
    return verify


def _bare(*, accelerated: bool) -> Work:
    """One signature's verification, with the key and the bytes at hand."""
    _choose(accelerated=accelerated)
    message, attestation = parse_message(document().raw)
    certificate = x509.load_der_x509_certificate(attestation.certificate)
    public_key = certificate.public_key()
    assert isinstance(public_key, ec.EllipticCurvePublicKey)  # noqa: S101 - every leaf's is
    signed, signature = message.to_be_signed(), message.signature
    der = encode_dss_signature(*(int.from_bytes(part) for part in _halves(signature)))
    fast = CryptographyKey(public_key).for_many()
    if isinstance(fast, es384.AwsLcKey):
        key, digest = fast.key, hashlib.sha384(signed).digest()
        return lambda: key.verify(digest, der)
    algorithm = ec.ECDSA(SHA384())
    return lambda: public_key.verify(der, signed, algorithm)


def _new_key() -> Work:
    """One signature's verification, by a key that is read from its certificate first."""
    _choose(accelerated=False)
    message, attestation = parse_message(document().raw)
    signed, signature = message.to_be_signed(), message.signature

    def verify() -> None:
        key = x509.load_der_x509_certificate(attestation.certificate).public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)  # noqa: S101 - every leaf's is
        assert CryptographyKey(key).verify(signed, signature)  # noqa: S101 - it is genuine

    return verify


def _halves(signature: bytes) -> tuple[bytes, bytes]:
    middle = len(signature) // 2
    return signature[:middle], signature[middle:]


def _choose(*, accelerated: bool) -> None:
    if accelerated and es384._aws_lc() is None:  # noqa: SLF001 - to measure either
        raise _AbsentError("awscrt is not installed: pip install .[fast]")
    if not accelerated:
        es384._aws_lc = lambda: None  # type: ignore[assignment] # noqa: SLF001


KINDS: Final[dict[str, Callable[[], Work]]] = {
    "warm": lambda: _warm(accelerated=False),
    "warm-aws-lc": lambda: _warm(accelerated=True),
    "cold": lambda: _cold(accelerated=False),
    "cold-aws-lc": lambda: _cold(accelerated=True),
    "neighbours": lambda: _cold(accelerated=False, neighbours=True),
    "neighbours-aws-lc": lambda: _cold(accelerated=True, neighbours=True),
    "new-key": _new_key,
    "bare": lambda: _bare(accelerated=False),
    "bare-aws-lc": lambda: _bare(accelerated=True),
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

"""Fuzz the attestation library with atheris, for as long as it is let; docs/verification.md.

Not collected by pytest: atheris is not among the project's dependencies. Arguments are libFuzzer's.
"""

from __future__ import annotations

import sys
import tempfile
from importlib import import_module
from pathlib import Path

atheris = import_module("atheris")  # not installed for the suite, so that types are not known

with atheris.instrument_imports(include=["foobar_instance.attestation"]):
    from emulator.documents import sign_document
    from foobar_instance.attestation import (
        Attestation,
        AttestationError,
        Verifier,
        parse_attestation,
    )
    from foobar_instance.attestation._rules import MAX_CERTIFICATE, MAX_PAYLOAD
    from tests.support.forge import chain, document, fields, root
    from tests.support.vectors import DIRECTORY

ORIGINAL = document(nonce=b"nonce", user_data=b"user data")
CONTENT = parse_attestation(ORIGINAL)
VERIFIER = Verifier(root())


def check(data: bytes) -> None:
    """Try bytes as a document, as a signed payload, and as a certificate of a signed document."""
    if outcome(data) not in (None, CONTENT):
        raise AssertionError("a document verifies that says something else than the signed one")
    outcome(sign_document(data[:MAX_PAYLOAD], chain().key))
    altered = outcome(sign_document(fields(certificate=data[:MAX_CERTIFICATE]), chain().key))
    if altered is not None and altered.certificate != chain().certificate:
        raise AssertionError("a certificate that nobody issued is trusted")


def outcome(raw: bytes) -> Attestation | None:
    """Return what a document verifies as; any other exception is a finding."""
    try:
        return VERIFIER.verify(raw, allow_debug=True)
    except AttestationError:
        return None


def seeds(directory: Path) -> None:
    """Write what the fuzzer starts from: forged and, where they are, genuine documents."""
    genuine = [path.read_bytes() for path in sorted(DIRECTORY.glob("*/*.cbor"))]
    for number, raw in enumerate([ORIGINAL, chain().certificate, *chain().cabundle, *genuine]):
        (directory / str(number)).write_bytes(raw)


def main() -> None:
    """Fuzz from seeds in a temporary directory beside those that are given."""
    with tempfile.TemporaryDirectory() as directory:
        seeds(Path(directory))
        atheris.Setup([*sys.argv, directory], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

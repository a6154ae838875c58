"""Certificates that `cryptography` parses with odd exceptions or warnings, or not at all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from foobar_instance.attestation import (
    AttestationError,
    MalformedAttestation,
    UntrustedCertificate,
    parse_attestation,
    verify_attestation,
)
from tests.support.forge import (
    bit_string_name,
    chain,
    document,
    long_country,
    negative_serial_number,
    root,
    year_0,
)
from tests.support.issued import (
    LEAF,
    NOW,
    POSITIONS,
    ca,
    issue,
    one_with,
)

ROOT = Path(__file__).parents[3]


def test_certificates_of_the_largest_size_are_well_formed() -> None:
    found = parse_attestation(document(certificate=bytes(1024), cabundle=[bytes(1024), b"x"]))
    assert (found.certificate, found.cabundle) == (bytes(1024), (bytes(1024), b"x"))


def test_a_name_that_is_a_bit_string() -> None:
    with pytest.raises(MalformedAttestation, match="its subject does not parse") as caught:
        verify_attestation(bit_string_name(), root=root())
    assert caught.value.rule == "certificate"


@pytest.mark.parametrize("position", POSITIONS[1:])
@pytest.mark.parametrize("name", ["not_before", "not_after"])
def test_a_year_that_no_calendar_holds(position: str, name: str) -> None:
    with pytest.raises(MalformedAttestation, match="does not parse") as caught:
        verify_attestation(year_0(position, name), root=root())
    assert caught.value.rule == ("certificate" if position == "leaf" else "cabundle")


@pytest.mark.parametrize("make", [long_country, negative_serial_number])
def test_what_cryptography_warns_of_is_not_printed(
    make: Callable[[], bytes], tmp_path: Path
) -> None:
    (tmp_path / "document").write_bytes(make())
    (tmp_path / "root").write_bytes(root().public_bytes(Encoding.DER))
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from cryptography import x509\n"
        "from foobar_instance.attestation import AttestationError, verify_attestation\n"
        "raw, root = (Path(name).read_bytes() for name in sys.argv[1:])\n"
        "try:\n"
        "    verify_attestation(raw, root=x509.load_der_x509_certificate(root))\n"
        "except AttestationError as error:\n"
        "    print(error.rule)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "document", tmp_path / "root"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout.strip()


def test_cas_that_certify_each_other_are_not_followed_for_long() -> None:
    """Under one name and key, every order of them is a path to try: 6^7 signatures and more."""
    key = ec.generate_private_key(ec.SECP384R1())
    issued = issue(*[replace(ca("x"), key=key)] * 7, replace(LEAF, key=key))
    bundle = (chain().cabundle[0], *issued.chain.cabundle[1:])
    with pytest.raises(UntrustedCertificate, match="maximum signature check limit") as caught:
        verify_attestation(document(replace(issued.chain, cabundle=bundle)), root=root())
    assert caught.value.rule == "chain-path"


@settings(max_examples=300)
@given(st.sampled_from(POSITIONS[1:]), st.integers(0, 2000), st.binary(min_size=1, max_size=4))
def test_only_attestation_errors_leave_for_what_an_issuer_signs(
    position: str, offset: int, piece: bytes
) -> None:
    """The signatures verify, so that nothing but the content can be refused."""
    issued = one_with(position, overwritten=(offset, piece))
    raw = document(issued.chain)
    with suppress(AttestationError):
        assert verify_attestation(raw, root=issued.root, at=NOW) == parse_attestation(raw)

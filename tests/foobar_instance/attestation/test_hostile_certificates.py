"""Certificates that `cryptography` parses with odd exceptions or warnings, or not at all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from foobar_instance.attestation import (
    AttestationError,
    MalformedAttestation,
    UntrustedCertificate,
    Verifier,
    parse_attestation,
    verify_attestation,
)
from tests.foobar_instance.attestation import forge
from tests.foobar_instance.attestation.forge import (
    INSTANCE,
    LEAF,
    MODULE_ID,
    NOW,
    _issue,
    chain,
    document,
    kept,
    root,
)
from tests.foobar_instance.attestation.issued import line

ROOT = Path(__file__).parents[3]
COMMON_NAME = bytes.fromhex("0603550403")
COUNTRY = bytes.fromhex("0603550406")
UTF8_STRING, BIT_STRING = b"\x0c", b"\x03"


def leaf_with(old: bytes, new: bytes) -> bytes:
    """A document whose leaf has some bytes replaced by as many others, wherever they occur."""
    leaf = chain().certificate
    assert old in leaf
    assert len(old) == len(new)
    return document(certificate=leaf.replace(old, new))


def bit_string_name() -> bytes:
    """The leaf's common name as a BIT STRING, whose first byte counts unused bits."""
    head = COMMON_NAME + UTF8_STRING + bytes([len(f"{MODULE_ID}.us-east-1.aws")])
    return leaf_with(head + b"i", COMMON_NAME + BIT_STRING + head[-1:] + b"\0")


def long_country() -> bytes:
    """The leaf's common name as a country, of which `cryptography` warns: it has 2 letters."""
    return leaf_with(COMMON_NAME + UTF8_STRING, COUNTRY + UTF8_STRING)


def negative_serial_number() -> bytes:
    """Of which `cryptography` warns as well (RFC 5280 section 4.1.2.2: positive)."""
    leaf = chain().certificate
    at = leaf.index(bytes.fromhex("a003020102") + b"\x02") + 7  # version 3, then the serial number
    return document(certificate=leaf[:at] + b"\xff" + leaf[at + 1 :])


def year_0(which: int = 3, name: str = "not_before") -> bytes:
    """A document with a time that `datetime` cannot hold in one of its certificates."""
    return document(line().but(which, **{name: b"\x18\x0f00000101000000Z"}).chain())


@pytest.mark.parametrize("der", [b"", bytes(1025)])
@pytest.mark.parametrize("name", ["certificate", "cabundle"])
def test_the_size_of_certificates_is_judged_before_they_are_parsed(name: str, der: bytes) -> None:
    value = der if name == "certificate" else [*chain().cabundle, der]
    with pytest.raises(MalformedAttestation) as caught:
        parse_attestation(document(**{name: value}))
    assert caught.value.rule == name


def test_certificates_of_the_largest_size_are_well_formed() -> None:
    found = parse_attestation(document(certificate=bytes(1024), cabundle=[bytes(1024), b"x"]))
    assert (found.certificate, found.cabundle) == (bytes(1024), (bytes(1024), b"x"))


def test_the_number_of_pcrs_is_judged_before_each_of_them() -> None:
    with pytest.raises(MalformedAttestation, match="it is a map of 33"):
        parse_attestation(document(pcrs=dict.fromkeys(range(33), b"\1" * 48)))


def test_a_name_that_is_a_bit_string() -> None:
    with pytest.raises(MalformedAttestation, match="its subject does not parse") as caught:
        verify_attestation(bit_string_name(), root=root())
    assert caught.value.rule == "certificate"


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("name", ["not_before", "not_after"])
def test_a_year_that_no_calendar_holds(which: int, name: str) -> None:
    for verifier in (Verifier(root()), kept(root())):
        with pytest.raises(MalformedAttestation, match="does not parse") as caught:
            verifier.verify(year_0(which, name))
        assert caught.value.rule == ("certificate" if which == 3 else "cabundle")


@pytest.mark.parametrize("make", [long_country, negative_serial_number])
def test_what_cryptography_warns_of_is_refused_where_warnings_are_errors(
    make: Callable[[], bytes],
) -> None:
    with pytest.raises(AttestationError):
        verify_attestation(make(), root=root())


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


def test_an_authority_s_key_usage_has_to_be_critical(monkeypatch: pytest.MonkeyPatch) -> None:
    extensions = forge._extensions

    def lax(link: forge.Link) -> Iterator[tuple[x509.ExtensionType, bool]]:
        for extension, critical in extensions(link):
            yield extension, critical and not isinstance(extension, x509.KeyUsage)

    monkeypatch.setattr(forge, "_extensions", lax)
    given = forge.usual()
    with pytest.raises(UntrustedCertificate, match="incorrect criticality") as caught:
        verify_attestation(document(given.chain), root=given.root)
    assert caught.value.rule == "chain-path"


def test_authorities_that_certify_each_other_are_not_followed_for_long() -> None:
    """Under one name and key, every order of them is a path to try: 6^7 signatures and more."""
    key = ec.generate_private_key(ec.SECP384R1())
    authority = replace(INSTANCE, name="x", path_length=None)
    loop = [_issue(authority, key, "x", key, unnamed=False) for _ in range(6)]
    leaf = _issue(LEAF, key, "x", key, unnamed=False)
    ders = [certificate.public_bytes(Encoding.DER) for certificate in (*loop, leaf)]
    raw = document(certificate=ders[-1], cabundle=[chain().cabundle[0], *ders[:-1]])
    with pytest.raises(UntrustedCertificate, match="maximum signature check limit") as caught:
        verify_attestation(raw, root=root())
    assert caught.value.rule == "chain-path"


@pytest.mark.parametrize(
    "end", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
)
def test_the_ends_of_time(end: datetime) -> None:
    with pytest.raises(UntrustedCertificate) as caught:
        verify_attestation(document(), root=root(), at=end)
    assert caught.value.rule == "chain-validity"


BYTES = st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=4))


def overwritten(original: bytes, position: int, piece: bytes) -> bytes:
    start = position % len(original)
    return (original[:start] + piece + original[start + len(piece) :])[: len(original)]


@given(BYTES)
def test_only_attestation_errors_leave_for_any_leaf(change: tuple[int, bytes]) -> None:
    leaf = overwritten(chain().certificate, *change)
    raw = document(certificate=leaf)
    if leaf == chain().certificate:
        assert verify_attestation(raw, root=root()).certificate == leaf
        return
    with pytest.raises(AttestationError):
        verify_attestation(raw, root=root())


@given(st.integers(0, 3), BYTES)
def test_only_attestation_errors_leave_for_any_authority(
    which: int, change: tuple[int, bytes]
) -> None:
    bundle = list(chain().cabundle)
    bundle[which] = overwritten(bundle[which], *change)
    raw = document(cabundle=bundle)
    if tuple(bundle) == chain().cabundle:
        assert verify_attestation(raw, root=root()).cabundle == tuple(bundle)
        return
    with pytest.raises(AttestationError):
        verify_attestation(raw, root=root())


def test_the_zone_of_the_moment_does_not_matter() -> None:
    moment = NOW.astimezone(timezone(timedelta(hours=9)))
    assert verify_attestation(document(), root=root(), at=moment).timestamp == NOW
    with pytest.raises(UntrustedCertificate):
        verify_attestation(document(), root=root(), at=moment.replace(tzinfo=UTC))

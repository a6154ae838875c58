"""The development hierarchy has the shapes of AWS's: extensions, order of names, lifetimes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from emulator.documents import attestation_document
from emulator.pki import NitroChain, NitroPki
from foobar_instance.attestation import parse_attestation, verify_attestation
from tests.support.vectors import vectors

NOW = datetime(2026, 3, 1, 12, 0, 0, 700_000, tzinfo=UTC)
MODULE_ID = "i-0123456789abcdef0-enc0123456789abcdef"
LEVELS = ("root", "regional", "zonal", "instance", "leaf")
LIFETIMES = {
    "regional": timedelta(hours=481),
    "zonal": timedelta(hours=144),
    "instance": timedelta(hours=24),
    "leaf": timedelta(seconds=10803),
}


@pytest.fixture(scope="module")
def pki() -> NitroPki:
    return NitroPki.create(now=NOW, region="eu-west-2")


@pytest.fixture(scope="module")
def issued(pki: NitroPki) -> NitroChain:
    return pki.issue(MODULE_ID, now=NOW)


def certificates(bundle: tuple[bytes, ...], leaf: bytes) -> dict[str, x509.Certificate]:
    loaded = [x509.load_der_x509_certificate(der) for der in (*bundle, leaf)]
    return dict(zip(LEVELS, loaded, strict=True))


def shape(certificate: x509.Certificate) -> dict[str, object]:
    """What all certificates of one level have in common."""
    extensions = {
        extension.oid: (extension.critical, extension.value)
        for extension in certificate.extensions
        if extension.oid in {ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE}
    }
    return {
        "extensions": extensions,
        "others": {(extension.oid.dotted_string) for extension in certificate.extensions},
        "names": [attribute.oid.dotted_string for attribute in certificate.subject],
        "signature": certificate.signature_algorithm_oid,
        "key": certificate.public_key_algorithm_oid,
        "version": certificate.version,
    }


@pytest.mark.parametrize("level", LEVELS)
def test_the_shape_is_that_of_a_genuine_certificate(issued: NitroChain, level: str) -> None:
    latest = max(
        (entry for entry in vectors("attestation") if entry.text("kind") == "enclave"),
        key=lambda entry: entry.moment("timestamp"),
    )
    genuine = parse_attestation(latest.read())
    ours = certificates(issued.cabundle, issued.certificate)[level]
    assert shape(ours) == shape(certificates(genuine.cabundle, genuine.certificate)[level])


def test_each_certificate_issues_the_next(issued: NitroChain, pki: NitroPki) -> None:
    chain = list(certificates(issued.cabundle, issued.certificate).values())
    assert chain[0] == pki.root
    for issuer, subject in zip([chain[0], *chain], chain, strict=False):
        subject.verify_directly_issued_by(issuer)
    assert issued.key.public_key() == chain[-1].public_key()


def test_lifetimes(issued: NitroChain) -> None:
    found = certificates(issued.cabundle, issued.certificate)
    leaf = found["leaf"]
    assert leaf.not_valid_before_utc == NOW.replace(microsecond=0) - timedelta(seconds=3)
    for level, lifetime in LIFETIMES.items():
        certificate = found[level]
        assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == lifetime
        assert certificate.not_valid_before_utc <= leaf.not_valid_before_utc


def test_names(issued: NitroChain) -> None:
    found = certificates(issued.cabundle, issued.certificate)
    assert "CN=aws.nitro-enclaves" in found["root"].subject.rfc4514_string()
    assert ".eu-west-2.aws.nitro-enclaves" in found["regional"].subject.rfc4514_string()
    assert ".zonal.eu-west-2.aws.nitro-enclaves" in found["zonal"].subject.rfc4514_string()
    instance = found["instance"].subject.rfc4514_string()
    assert "CN=i-0123456789abcdef0.eu-west-2.aws.nitro-enclaves" in instance
    assert f"CN={MODULE_ID}.eu-west-2.aws" in found["leaf"].subject.rfc4514_string()


def test_no_leaf_key_is_used_twice(issued: NitroChain, pki: NitroPki) -> None:
    again = pki.issue(MODULE_ID, now=NOW)
    other = NitroPki.create(now=NOW)
    chains = (issued, again, other.issue(MODULE_ID, now=NOW))
    assert len({chain.key.private_numbers().private_value for chain in chains}) == 3
    assert len({chain.certificate for chain in chains}) == 3
    assert other.root.public_key() != pki.root.public_key()


@pytest.mark.parametrize("later", [timedelta(), timedelta(seconds=10799)])
def test_what_it_certifies_verifies_for_three_hours(
    pki: NitroPki, issued: NitroChain, later: timedelta
) -> None:
    raw = attestation_document(
        issued, module_id=MODULE_ID, pcrs={0: b"\1" * 48}, timestamp=NOW + later
    )
    assert verify_attestation(raw, root=pki.root, at=NOW + later).module_id == MODULE_ID

"""Documents that AWS has signed, and bad ones found in the wild or made of genuine ones."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache

import pytest

from foobar_instance.attestation import (
    AttestationError,
    MalformedAttestation,
    UntrustedCertificate,
    Verifier,
    packaged_root,
    parse_attestation,
    verify_attestation,
)
from tests.support.forge import root
from tests.support.vectors import Vector, vector, vectors

SECOND = timedelta(seconds=1)
# What breaks first, where the manifest names several faults.
KNOWN_BAD = {
    "bad_signature_5f42eb91.cbor": "signature",
    "tampered_leaf_certificate_der_bfd95b4b.cbor": "cabundle",  # byte 2891 is in a CA's
    "mock_garbage_certificate_808da3f0.cbor": "cose-algorithm",
    "corrupted_payload_truncated_base64_f8a9f1dc.cbor": "cose-signature",
    "selfsigned_synthetic_unordered_pcrs_e388022c.cbor": "cose-unprotected",
}
DERIVED = {
    "tagged_18.cbor": None,
    "wrong_tag_98.cbor": "cose-tag",
    "trailing_byte.cbor": "cbor",
    "payload_bit_flip.cbor": "signature",
    "alg_es256_protected.cbor": "cose-algorithm",
    "alg_only_unprotected.cbor": "cose-algorithm",
    "signature_der.cbor": "cose-signature",
    "signature_zero.cbor": "signature",
    "signature_r_n.cbor": "signature",
    "signature_97_bytes.cbor": "cose-signature",
    "payload_nil_detached.cbor": "cose-payload",
    "array_of_3.cbor": "cose-array",
    "truncated_half.cbor": "cbor",
}


def enclaves() -> list[Vector]:
    return [entry for entry in vectors("attestation") if entry.text("kind") == "enclave"]


@cache
def window(entry_name: str) -> tuple[datetime, datetime]:
    entry = vector("attestation", entry_name)
    return entry.moment("chain_valid_from"), entry.moment("chain_valid_until")


def test_all_are_there() -> None:
    assert len(enclaves()) == 39
    assert len(vectors("attestation")) == 41


@pytest.mark.parametrize("kept", [True, False], ids=["one verifier for all", "a fresh one each"])
def test_every_genuine_document_verifies_within_its_window_only(kept: bool) -> None:
    verifier = Verifier()
    for entry in enclaves():
        begin, end = window(entry.path.name)
        raw = entry.read()
        for at in (None, entry.moment("timestamp"), begin, end):
            checker = verifier if kept else Verifier()
            attestation = checker.verify(raw, at=at, allow_debug=True)
            assert attestation.module_id == entry.text("module_id")
        for at in (begin - SECOND, end + SECOND):
            checker = verifier if kept else Verifier()
            with pytest.raises(UntrustedCertificate) as caught:
                checker.verify(raw, at=at, allow_debug=True)
            assert caught.value.rule == "chain-validity", entry.path.name


def test_debug_documents_are_refused_unless_allowed() -> None:
    verifier = Verifier()
    seen = set()
    for entry in enclaves():
        raw, debug = entry.read(), entry.facts["debug"]
        seen.add(debug)
        assert parse_attestation(raw).is_debug is debug
        if debug:
            with pytest.raises(AttestationError) as caught:
                verifier.verify(raw)
            assert caught.value.rule == "debug-mode"
        else:
            verifier.verify(raw)
    assert seen == {True, False}


def test_what_documents_say_is_what_the_manifest_says() -> None:
    for entry in enclaves():
        attestation = parse_attestation(entry.read())
        assert attestation.timestamp == entry.moment("timestamp")
        assert attestation.digest == entry.facts["digest"]
        for name in ("public_key", "user_data", "nonce"):
            value = getattr(attestation, name)
            assert (None if value is None else value.hex()) == entry.facts[name], name
        assert [len(der) for der in attestation.cabundle] == entry.facts["cabundle_sizes"]


def test_nitrotpm_documents_are_refused_by_name() -> None:
    others = [entry for entry in vectors("attestation") if entry.text("kind") != "enclave"]
    assert len(others) == 2
    for entry in others:
        with pytest.raises(MalformedAttestation, match="NitroTPM") as caught:
            verify_attestation(entry.read(), allow_debug=True)
        assert caught.value.rule == "nitro-tpm"


def test_other_roots_trust_no_genuine_document() -> None:
    for entry in enclaves():
        for other in (root(), packaged_root("aws-us-gov")):
            with pytest.raises(UntrustedCertificate) as caught:
                verify_attestation(entry.read(), root=other, allow_debug=True)
            assert caught.value.rule == "chain-order"


@pytest.mark.parametrize("directory", ["known_bad", "derived"])
def test_bad_documents_are_refused_for_their_reason(directory: str) -> None:
    expected = KNOWN_BAD if directory == "known_bad" else DERIVED
    entries = [entry for entry in vectors(directory) if entry.path.suffix == ".cbor"]
    assert {entry.path.name for entry in entries} == expected.keys()
    for entry in entries:
        rule = expected[entry.path.name]
        assert entry.text("expected").startswith("ACCEPT" if rule is None else "REJECT")
        if rule is None:
            verify_attestation(entry.read(), allow_debug=True)
            continue
        with pytest.raises(AttestationError) as caught:
            verify_attestation(entry.read(), allow_debug=True)
        assert caught.value.rule == rule, entry.path.name

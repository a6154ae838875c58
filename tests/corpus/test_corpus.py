"""The corpus is reproducible, consistent, and what this project's own verifier says."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest
from cryptography import x509

from corpus.case import FLAGS
from corpus.generate import FILE, corpus
from foobar_instance.attestation import AttestationError, Measurements, Verifier
from tests.support.forge import RULES

CORPUS: Mapping[str, Any] = json.loads(FILE.read_text())
CASES = CORPUS["cases"]
VERIFIER = Verifier(x509.load_pem_x509_certificate(CORPUS["root"].encode()))

# Of the documents that may be either, this project accepts these, and refuses the others.
ACCEPTED = {
    *("cose-array/array-length", "cose-array/indefinite-array", "cose-payload/16384-bytes"),
    *("cose-signature/chunks", "payload-cbor/unknown-key", "payload-cbor/sorted-keys"),
    *("payload-cbor/long-key-length", "payload-cbor/chunked-key", "timestamp/seconds"),
    *("timestamp/before-leaf", "timestamp/after-leaf", "pcrs/5-pcrs", "leaf-subject/ca-s"),
    *("optional-fields/1025-bytes-nonce", "optional-fields/empty-public-key"),
    *("chain-path/short-chain", "chain-path/leaf-extension"),
}
# The library that validates paths refuses these.
ODD_CERTIFICATES = {"certificate/negative-serial", "chain-validity/generalized-time"}


def test_the_generator_writes_the_same_bytes_again() -> None:
    assert corpus() == FILE.read_text()


def test_every_rule_but_age_has_cases_and_every_case_is_explained() -> None:
    assert len(CASES) == CORPUS["numberOfCases"] >= 200
    assert len({case["id"] for case in CASES}) == len(CASES)
    # No case has a time-out.
    assert {expected_rule(case) for case in CASES} - {None} == RULES.keys() - {"age"}
    assert {flag for case in CASES for flag in case["flags"]} == FLAGS.keys()


def test_the_readme_counts_the_cases() -> None:
    counts = Counter(case["verdict"] for case in CASES)
    text = " ".join(FILE.with_name("README.md").read_text().split())
    assert text.startswith(f"# A corpus of hostile attestation documents {len(CASES)} cases")
    assert f"{counts['valid']} documents that must be accepted, {counts['invalid']} that" in text
    assert f"and {counts['acceptable']} that may be either" in text


def expected_rule(case: Mapping[str, Any]) -> str | None:
    """Return the rule for which this project refuses a case, if it does."""
    if case["verdict"] == "valid" or case["id"] in ACCEPTED:
        return None
    return "chain-path" if case["id"] in ODD_CERTIFICATES else case["rule"]


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
@pytest.mark.filterwarnings("ignore::UserWarning")  # as where the command line runs
@pytest.mark.threat("G")
def test_our_verifier_says_what_the_corpus_says(case: Mapping[str, Any]) -> None:
    expected = expected_rule(case)
    if expected is None:
        verify(case)
        return
    with pytest.raises(AttestationError) as caught:
        verify(case)
    text = str(caught.value)
    assert (caught.value.rule, type(caught.value)) == (expected, RULES[expected].error)
    assert text.startswith(f"{RULES[expected].demand}, but ")
    assert text.isprintable()
    assert len(text) < 600


def verify(case: Mapping[str, Any]) -> None:
    pcrs = {int(index): bytes.fromhex(pcr) for index, pcr in case.get("pcrs", {}).items()}
    VERIFIER.verify(
        base64.b64decode(case["document"]),
        at=datetime.fromisoformat(case["time"]),
        measurements=Measurements(pcrs) if pcrs else None,
        nonce=base64.b64decode(case["nonce"]) if "nonce" in case else None,
    )

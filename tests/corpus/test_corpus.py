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


def test_the_generator_writes_the_same_bytes_again() -> None:
    assert corpus() == FILE.read_text()


def test_every_rule_but_age_has_cases_and_every_case_is_explained() -> None:
    assert len(CASES) == CORPUS["numberOfCases"] >= 200
    assert len({case["id"] for case in CASES}) == len(CASES)
    assert {case["rule"] for case in CASES if case["verdict"] == "invalid"} >= (
        # No time-out is given; AWS demands no subject and no PCR17.
        RULES.keys() - {"age", "leaf-subject", "sandbox-pcr17"}
    )
    assert {flag for case in CASES for flag in case["flags"]} == FLAGS.keys()


def test_the_readme_counts_the_cases() -> None:
    counts = Counter(case["verdict"] for case in CASES)
    text = " ".join(FILE.with_name("README.md").read_text().split())
    assert text.startswith(f"# A corpus of hostile attestation documents {len(CASES)} cases")
    assert f"{counts['valid']} documents that must be accepted, {counts['invalid']} that" in text
    assert f"and {counts['acceptable']} that may be either" in text


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_our_verifier_says_what_the_corpus_says(case: Mapping[str, Any]) -> None:
    pcrs = {int(index): bytes.fromhex(pcr) for index, pcr in case.get("pcrs", {}).items()}
    broken = None
    try:
        VERIFIER.verify(
            base64.b64decode(case["document"]),
            at=datetime.fromisoformat(case["time"]),
            measurements=Measurements(pcrs) if pcrs else None,
            nonce=base64.b64decode(case["nonce"]) if "nonce" in case else None,
        )
    except AttestationError as error:
        broken = error.rule
    if case["verdict"] == "valid":
        assert broken is None
    elif case["verdict"] == "invalid":
        assert broken == case["rule"]

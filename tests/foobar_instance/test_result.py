"""A result as it is printed: a line, a text, and JSON."""

import hashlib
import json
from datetime import timedelta

import pytest

from foobar_instance.result import Result, as_json_text, as_line, as_text
from tests.support.documents import CLAIMS, KEY_ARN, MODULE_ID, NOW, PCR0, Signer

REQUEST = b'{"decrypt":{}}'


@pytest.fixture
def result(sign: Signer) -> Result:
    document = sign(timestamp=NOW + timedelta(milliseconds=7))
    attestation = sign.trust().saved(document, "the result's attestation")
    return Result(4, CLAIMS, attestation, b"key", REQUEST, document)


def test_a_line(result: Result) -> None:
    assert as_line(result) == "Count 'a': 4"


def test_a_text(result: Result) -> None:
    assert as_text(result).splitlines() == [
        "Count 'a': 4",
        "computed:  2026-03-01 12:00:00 UTC",
        f"by PCR0:   {PCR0.hex()}",
        f"key:       {KEY_ARN}",
    ]


def test_json(result: Result) -> None:
    text = as_json_text(result)
    assert text.startswith('{\n  "count": 4,\n')
    assert json.loads(text) == {
        "count": 4,
        "keyArn": KEY_ARN,
        "pcr0": PCR0.hex(),
        "moduleId": MODULE_ID,
        "timestamp": "2026-03-01T12:00:00.007+00:00",
        "requestSha256": hashlib.sha256(REQUEST).hexdigest(),
    }


def test_json_keeps_its_form_at_a_full_second(sign: Signer) -> None:
    attestation = sign.trust().saved(sign(), "the result's attestation")
    result = Result(0, CLAIMS, attestation, b"key", REQUEST, b"result")
    assert json.loads(as_json_text(result))["timestamp"] == "2026-03-01T12:00:00.000+00:00"

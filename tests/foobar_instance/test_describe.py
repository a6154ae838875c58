"""`describe`: any document, in every input form, for people and for programs."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from emulator.documents import attestation_document, document_fields, sign_document
from emulator.pki import NitroPki
from foobar_instance.attestation import packaged_root, verify_attestation
from foobar_instance.cli import run
from foobar_instance.describe import (
    MAX_INPUT,
    as_json,
    as_text,
    decode_input,
    describe,
)
from foobar_instance.errors import NotVerifiedError
from foobar_shared.encoding import to_base64
from tests.support.forge import (
    bit_string_name,
    long_country,
    negative_serial_number,
    year_0,
)
from tests.support.vectors import vector_path

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MODULE_ID = "i-0123456789abcdef0-enc0123456789abcdef"
PKI = NitroPki.create(now=NOW)
CHAIN = PKI.issue(MODULE_ID, now=NOW)


def made(**changes: object) -> bytes:
    fields = {
        "pcrs": {index: bytes([index]) * 48 for index in range(1, 16)} | {0: b"\xaa" * 48},
        "timestamp": NOW,
    } | changes
    return attestation_document(CHAIN, module_id=MODULE_ID, **fields)  # type: ignore[arg-type]


def text_of(document: bytes, *, later: timedelta = timedelta(minutes=90)) -> str:
    return as_text(describe(document, PKI.root, "a root", now=NOW + later))


def test_what_a_person_reads() -> None:
    text = text_of(made(user_data=b'{"count":4}', nonce=b"\xff\0", public_key=b""))
    for line in (
        f"  module      {MODULE_ID}",
        "  region      us-east-1",
        "  signed      2026-01-02 03:04:05.000 UTC (1 hour 30 minutes ago)",
        "  mode        production",
        f"  PCR0   enclave image    {'aa' * 24}",
        "  public key  empty",
        "  nonce       ff00",
        '  user data   {\n                "count": 4',
        "VERIFIED under a root, at its own signed time",
    ):
        assert f"\n{line}\n" in f"{text}\n", line


def test_debug_mode_is_said_twice() -> None:
    text = text_of(made(pcrs={index: bytes(48) for index in range(16)}))
    assert "mode        DEBUG" in text
    assert "zero   PCR0-15" in text
    assert "debug mode proves nothing" in text


def test_instance_id_that_pcr4_does_not_confirm() -> None:
    assert "PCR4 DOES NOT AGREE" in text_of(made())


@pytest.mark.threat("F")
@pytest.mark.parametrize("root", [PKI.root, packaged_root()])
def test_a_hostile_file_name_forges_no_verdict(root: x509.Certificate) -> None:
    text = as_text(describe(made(), root, "r\x1b[31m\nVERIFIED", now=NOW))
    assert "VERIFIED under r\\x1b[31m\\nVERIFIED" in text


def test_verdict_names_the_broken_rule() -> None:
    description = describe(made(), packaged_root(), "AWS's root", now=NOW)
    assert "NOT VERIFIED under AWS's root: rule chain-order" in as_text(description)
    facts = json.loads(as_json(description))
    assert (facts["verified"], facts["rule"]) == (False, "chain-order")


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (timedelta(), "0 seconds ago"),
        (timedelta(seconds=1), "1 second ago"),
        (timedelta(days=800, hours=5), "2 years 70 days ago"),
        (timedelta(seconds=-1), "in the future"),
    ],
)
def test_age(age: timedelta, words: str) -> None:
    assert f"({words})" in text_of(made(), later=age)


def test_hostile_text_reaches_no_terminal() -> None:
    text = text_of(made(user_data="\x1b[2J\u202eevil".encode(), nonce=b'{"\\u001b[2J": 1}'))
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_long_fields_are_cut() -> None:
    text = text_of(made(user_data=b"\xff" * 1024, nonce=b"word " * 200))
    assert text.count("lines more (1,0") == 2
    assert max(map(len, text.splitlines())) <= 80


@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=300))
def test_any_content_fits_80_printable_columns(
    user_data: bytes, nonce: bytes, public_key: bytes
) -> None:
    text = text_of(made(user_data=user_data, nonce=nonce, public_key=public_key))
    assert all(len(line) <= 80 and line.isprintable() for line in text.splitlines())


def test_a_certificate_that_does_not_parse_is_described_as_such() -> None:
    pcrs = {0: b"\1" * 48}
    fields = document_fields(CHAIN, module_id=MODULE_ID, pcrs=pcrs, timestamp=NOW)
    text = text_of(sign_document(fields | {"certificate": b"junk"}, CHAIN.key))
    assert "(one that does not parse)" in text
    assert "NOT VERIFIED under a root: rule certificate" in text


@pytest.mark.parametrize("make", [bit_string_name, long_country, negative_serial_number, year_0])
def test_hostile_certificates_are_described_without_a_warning(
    make: Callable[[], bytes], tmp_path: Path
) -> None:
    (tmp_path / "document").write_bytes(make())
    done = subprocess.run(
        [sys.executable, "-m", "foobar_instance", "describe", tmp_path / "document"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 3
    assert "NOT VERIFIED" in done.stdout


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({}, "enclave", "Nitro Enclave"),
        ({"pcrs": {0: b"\1" * 48, 17: b"\2" * 48}}, "sandbox", "PCR17 tells what it runs"),
    ],
)
def test_kinds_of_documents(changes: dict[str, object], kind: str, words: str) -> None:
    description = describe(made(**changes), PKI.root, "a root", now=NOW)
    assert json.loads(as_json(description))["kind"] == kind
    assert words in as_text(description)
    assert description.error is None


def test_another_module_id_is_of_no_known_kind() -> None:
    module_id = "i-0123456789abcdef0-box0123456789abcdef"
    chain = PKI.issue(module_id, now=NOW)
    raw = attestation_document(chain, module_id=module_id, pcrs={0: b"\1" * 48}, timestamp=NOW)
    description = describe(raw, PKI.root, "a root", now=NOW)
    assert (description.kind, description.error) == ("unknown", None)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_lacks_are_no_json(number: str) -> None:
    description = describe(made(user_data=b"[" + number.encode() + b"]"), PKI.root, "a", now=NOW)
    facts = json.loads(as_json(description), parse_constant=pytest.fail)
    assert facts["userDataDecoded"] == f"[{number}]"
    assert f"user data   [{number}]" in as_text(description)


@pytest.mark.parametrize(
    "encode",
    [
        lambda raw: raw,
        base64.b64encode,
        base64.urlsafe_b64encode,
        base64.encodebytes,
        lambda raw: base64.b64encode(raw).rstrip(b"="),
        lambda raw: raw.hex().encode(),
        lambda raw: raw.hex().upper().encode() + b"\n",
        lambda raw: b"0x" + raw.hex().encode(),
        lambda raw: b"data:application/cbor;base64," + base64.b64encode(raw),
        lambda raw: json.dumps(list(raw), indent=2).encode(),
        lambda raw: json.dumps(raw.hex()).encode(),
        lambda raw: json.dumps({"document": list(raw), "n": 1}).encode(),
        lambda raw: json.dumps({"attestation_doc": "0x" + raw.hex()}).encode(),
        lambda raw: json.dumps({"x": {"attestationDocument": to_base64(raw)}}).encode(),
        lambda raw: json.dumps({"decrypt": {"attestation": to_base64(raw), "a": {}}}).encode(),
    ],
)
def test_input_forms(encode: object) -> None:
    assert callable(encode)
    for document in (made(), made(nonce=b"\xfb" * 3), made(nonce=b"\xfb" * 4)):
        assert decode_input(encode(document)) == document


@pytest.mark.parametrize(
    "data",
    [
        b"not a document!",
        b"\0" * (MAX_INPUT + 1),
        b"\xff\xfe",
        b"data:,00",
        b"{}",
        b"[256]",
        b"[true]",
        b"[" * 100_000,
        b'"\\u00e9"',
        b'{"attestation": 1}',
        b'{"attestation": "00", "document": "00"}',
        b'{"a": {"document": "00"}, "b": {"document": "00"}}',
        b'{"a": {"b": {"document": "00"}}}',
        b'{"document": {"document": {"document": "00"}}}',
    ],
)
def test_other_input_is_refused(data: bytes) -> None:
    with pytest.raises(NotVerifiedError, match="no attestation document"):
        decode_input(data)


@given(st.binary(max_size=200))
def test_any_input_is_described_or_refused(data: bytes) -> None:
    with pytest.raises(NotVerifiedError):
        describe(decode_input(data), PKI.root, "a root", now=NOW)


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "document"
    path.write_bytes(made())
    assert run(["describe", str(path)]) == 3
    assert "NOT VERIFIED" in capsys.readouterr().out
    path.write_bytes(b"junk")
    assert run(["describe", str(path)]) == 3
    assert capsys.readouterr().err.startswith("error: ")
    assert run(["describe", str(tmp_path / "none")]) == 1


def test_genuine_documents(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    paths = sorted(vector_path("attestation").glob("*.cbor"))
    genuine = [path for path in paths if "_tpm_" not in path.name]
    assert len(genuine) == 39
    for path in genuine:
        check_genuine(path.read_bytes(), capsys, tmp_path / path.name)


def check_genuine(document: bytes, capsys: pytest.CaptureFixture[str], path: Path) -> None:
    path.write_bytes(base64.b64encode(document))
    assert run(["describe", str(path)]) == 0
    text = capsys.readouterr().out
    attestation = verify_attestation(document, allow_debug=True)
    assert "\nVERIFIED under AWS's root for the partition aws" in text
    assert "(PCR4 agrees)" in text
    assert all(len(line) <= 80 for line in text.splitlines())
    assert run(["describe", "--json", str(path)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["moduleId"] == attestation.module_id
    assert facts["verified"] is True
    assert facts["debug"] is attestation.is_debug
    assert facts["pcrs"] == {str(i): value.hex() for i, value in attestation.pcrs.items()}

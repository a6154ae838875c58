"""Expected measurements: their forms, and their comparison with a document's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foobar_instance.attestation import (
    MeasurementMismatch,
    Measurements,
    MeasurementsError,
    parse_attestation,
)
from tests.support.forge import PCRS, document

ONE, TWO = "01" * 48, "02" * 48
ATTESTATION = parse_attestation(document())


def write(path: Path, value: object) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def printed(**pcrs: object) -> dict[str, object]:
    """What `nitro-cli build-enclave` prints."""
    return {"Measurements": {"HashAlgorithm": "Sha384 { ... }", **pcrs}}


def test_every_mismatch_is_named_at_once() -> None:
    expected = Measurements({0: b"\xaa" * 48, 1: PCRS[1], 8: b"\xbb" * 48, 31: b"\xcc" * 48})
    with pytest.raises(MeasurementMismatch) as caught:
        expected.check(ATTESTATION)
    text = str(caught.value)
    assert f"PCR0 is {PCRS[0].hex()}, not {'aa' * 48}" in text
    assert f"PCR8 is {PCRS[8].hex()}, not {'bb' * 48}" in text
    assert f"PCR31 is missing, not {'cc' * 48}" in text
    assert "PCR1 " not in text


def test_hexadecimal_in_either_case() -> None:
    mapping = {8: "ab" * 48, 0: "AB" * 48}
    assert Measurements.from_mapping(mapping).pcrs == {0: b"\xab" * 48, 8: b"\xab" * 48}
    assert list(Measurements.from_mapping(mapping).pcrs) == [0, 8]


@pytest.mark.parametrize(
    ("pcrs", "words"),
    [
        ({}, "no PCR to expect"),
        ({32: ONE}, "PCR32: there are only"),
        ({-1: ONE}, "PCR-1: there are only"),
        ({True: ONE}, "there are only"),
        ({"0": ONE}, "there are only"),
        ({0: ONE[:-2]}, "PCR0: not 96 hexadecimal digits"),
        ({0: "g" * 96}, "PCR0: not 96"),
        ({0: " " + ONE[1:]}, "PCR0: not 96"),
        ({0: ONE + "\n"}, "PCR0: not 96"),
        ({0: "\uff10" * 96}, "PCR0: not 96"),
        ({0: None}, "PCR0: not 96"),
    ],
)
def test_a_malformed_mapping(pcrs: dict[int, str], words: str) -> None:
    with pytest.raises(MeasurementsError, match=words):
        Measurements.from_mapping(pcrs)


@pytest.mark.parametrize("value", [bytes(47), bytes(49)])
def test_raw_values_have_48_bytes(value: bytes) -> None:
    with pytest.raises(MeasurementsError, match="PCR0: not 48 bytes"):
        Measurements({0: value})


def test_what_is_expected_cannot_be_changed() -> None:
    given = {0: bytes(48)}
    measurements = Measurements(given)
    given[0] = b"\1" * 48
    assert measurements.pcrs == {0: bytes(48)}
    with pytest.raises(TypeError):
        measurements.pcrs[0] = b"\1" * 48  # type: ignore[index]


@pytest.mark.parametrize(
    "value",
    [
        printed(PCR0=ONE, PCR8=TWO),
        printed(PCR0=ONE, PCR8=TWO)
        | {"EifVersion": 4, "IsSigned": True, "CheckCRC": True, "SignatureCheck": True},
        [{"EnclaveID": "i-0-enc1", "Flags": "NONE"} | printed(PCR0=ONE, PCR8=TWO)],
    ],
    ids=["build-enclave", "describe-eif", "describe-enclaves"],
)
def test_what_nitro_cli_prints(tmp_path: Path, value: object) -> None:
    path = write(tmp_path / "m.json", value)
    measurements = Measurements.from_nitro_cli_json(str(path))
    assert measurements.pcrs == {0: b"\1" * 48, 8: b"\2" * 48}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{", "not valid JSON"),
        (f'{{"Measurements": {{"PCR0": "{ONE}", "PCR0": "{TWO}"}}}}', "twice"),
        ([], "0 enclaves in it"),
        ([printed(PCR0=ONE)] * 2, "2 enclaves in it"),
        ([[printed(PCR0=ONE)]], "not what nitro-cli"),
        (printed(PCR0=ONE) | {"CheckCRC": False}, "CheckCRC is not true"),
        (printed(PCR0=ONE) | {"SignatureCheck": False}, "SignatureCheck is not true"),
        ({}, "not what nitro-cli"),
        (None, "not what nitro-cli"),
        ({"Measurements": [ONE]}, "not what nitro-cli"),
        (printed(PCR1=ONE), "no PCR0"),
        (printed(PCR0=ONE, PCR32=ONE), "'PCR32' is not the name of a PCR"),
        (printed(PCR0=ONE, PCR00=TWO), "'PCR00' is not the name of a PCR"),
        (printed(PCR0=ONE, pcr8=TWO), "'pcr8' is not the name of a PCR"),
        (printed(PCR0=ONE, PCR٨=TWO), "is not the name of a PCR"),
        (printed(PCR0=1), "PCR0: not 96"),
        (printed(PCR0="00" * 48), "PCR0 is all zero"),
        (printed(PCR0=ONE, padding="x" * 70_000), "longer than 65536 bytes"),
    ],
)
def test_a_malformed_file(tmp_path: Path, value: object, words: str) -> None:
    path = write(tmp_path / "m.json", value)
    with pytest.raises(MeasurementsError, match=words) as caught:
        Measurements.from_nitro_cli_json(path)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).isprintable()


def test_zeros_are_no_image_s_but_can_be_expected_on_purpose(tmp_path: Path) -> None:
    path = write(tmp_path / "m.json", printed(PCR0=ONE, PCR3="00" * 48))
    assert Measurements.from_nitro_cli_json(path).pcrs[3] == bytes(48)
    assert Measurements.from_mapping({0: "00" * 48}).pcrs == {0: bytes(48)}


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(MeasurementsError, match="No such file"):
        Measurements.from_nitro_cli_json(tmp_path / "missing.json")
    with pytest.raises(MeasurementsError, match="Is a directory"):
        Measurements.from_nitro_cli_json(tmp_path)

"""What the options make a command trust, and what they are refused for."""

import json
import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from foobar_instance.attestation import packaged_root
from foobar_instance.errors import FileError, UsageError
from foobar_instance.pinning import (
    DEFAULT_MEASUREMENTS,
    TrustOptions,
    load_root,
    make_trust,
)
from tests.foobar_instance.conftest import Told
from tests.support.documents import Signer

ZERO = "00" * 48
ONE = "11" * 48
TWO = "22" * 48


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def options(
    *,
    root_path: Path | None = None,
    measurements: Path | None = None,
    pcr0: str | None = None,
    pcrs: Sequence[str] = (),
    trust_any_enclave: bool = False,
    allow_debug: bool = False,
) -> TrustOptions:
    return TrustOptions(root_path, "aws", measurements, pcr0, pcrs, trust_any_enclave, allow_debug)


def expected(given: TrustOptions, told: Told) -> dict[int, str] | None:
    measurements = make_trust(given, told).measurements
    if measurements is None:
        return None
    return {index: value.hex() for index, value in measurements.pcrs.items()}


def write_measurements(path: Path, **pcrs: str) -> Path:
    algorithm = {"HashAlgorithm": "Sha384 { ... }"}
    path.write_text(json.dumps({"Measurements": algorithm | pcrs}))
    return path


def test_pcr0_alone(told: Told) -> None:
    assert expected(options(pcr0=ONE), told) == {0: ONE}
    assert told.warnings == []


def test_upper_case_is_the_same_measurement(told: Told) -> None:
    assert expected(options(pcr0="AB" * 48), told) == {0: "ab" * 48}


def test_further_registers_add_up(told: Told) -> None:
    given = options(pcr0=ONE, pcrs=[f"8={TWO}", f"1={ONE}"])
    assert expected(given, told) == {0: ONE, 1: ONE, 8: TWO}


def test_a_register_without_pcr0(told: Told) -> None:
    assert expected(options(pcrs=[f"8={TWO}"]), told) == {8: TWO}
    assert told.warnings == []


@pytest.mark.parametrize("pcrs", [[f"3={ONE}"], [f"4={ONE}", f"16={TWO}"]])
def test_registers_that_do_not_measure_the_code_are_not_enough(
    pcrs: Sequence[str], told: Told
) -> None:
    make_trust(options(pcrs=pcrs), told)
    (warning,) = told.warnings
    assert warning.startswith("the expected registers say nothing about the enclave's code")


def test_a_measurements_file(folder: Path, told: Told) -> None:
    path = write_measurements(folder / "m.json", PCR0=ONE, PCR1=TWO, PCR2=ONE)
    assert expected(options(measurements=path), told) == {0: ONE, 1: TWO, 2: ONE}


def test_a_measurements_file_and_more(folder: Path, told: Told) -> None:
    path = write_measurements(folder / "m.json", PCR0=ONE, PCR1=TWO)
    given = options(measurements=path, pcr0=ONE, pcrs=[f"8={TWO}"])
    assert expected(given, told) == {0: ONE, 1: TWO, 8: TWO}


def test_the_default_file(told: Told) -> None:
    write_measurements(DEFAULT_MEASUREMENTS, PCR0=ONE)
    assert expected(options(), told) == {0: ONE}


@pytest.mark.parametrize(
    "given", [options(pcr0=TWO), options(pcrs=[f"0={TWO}"]), options(pcr0=TWO, pcrs=[f"0={TWO}"])]
)
def test_the_default_file_is_not_read_where_an_option_pins(given: TrustOptions, told: Told) -> None:
    write_measurements(DEFAULT_MEASUREMENTS, PCR0=ONE)
    assert expected(given, told) == {0: TWO}


def test_any_enclave_is_trusted_with_a_warning(told: Told) -> None:
    write_measurements(DEFAULT_MEASUREMENTS, PCR0=ONE)
    assert expected(options(trust_any_enclave=True), told) is None
    assert told.warnings == [
        "any enclave is trusted, whatever its code: no measurement is compared"
    ]


def test_debug_mode_is_allowed_with_a_warning(told: Told) -> None:
    assert make_trust(options(pcr0=ONE, allow_debug=True), told).allow_debug
    assert told.warnings == [
        "debug-mode enclaves are accepted: they prove nothing about their code"
    ]
    assert not make_trust(options(pcr0=ONE), told).allow_debug


def refused(given: TrustOptions, told: Told, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        make_trust(given, told)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_nothing_pinned_is_refused_with_what_to_do(told: Told) -> None:
    refused(options(), told, "no measurement pins the enclave: give --measurements")


@pytest.mark.parametrize("given", [{"pcr0": ONE}, {"pcrs": [f"8={ONE}"]}])
def test_any_enclave_and_a_measurement_contradict(given: dict[str, str], told: Told) -> None:
    refused(options(trust_any_enclave=True, **given), told, "contradicts")  # type: ignore[arg-type]


def test_any_enclave_and_a_file_contradict(folder: Path, told: Told) -> None:
    path = write_measurements(folder / "m.json", PCR0=ONE)
    refused(options(trust_any_enclave=True, measurements=path), told, "contradicts")


def test_two_values_for_one_register_are_refused(folder: Path, told: Told) -> None:
    path = write_measurements(folder / "m.json", PCR0=ONE, PCR1=TWO)
    refused(options(measurements=path, pcr0=TWO), told, "PCR0 is given twice")
    refused(options(pcr0=ONE, pcrs=[f"0={TWO}"]), told, "PCR0 is given twice")
    refused(options(measurements=path, pcrs=[f"1={ONE}"]), told, "PCR1 is given twice")


@pytest.mark.parametrize("pcr0", ["", "00", ONE[:-1], ONE + "00", "gg" * 48, f" {ONE}", f"{ONE}\n"])
def test_a_malformed_pcr0(pcr0: str, told: Told) -> None:
    refused(options(pcr0=pcr0), told, "PCR0: not 96 hexadecimal digits")


@pytest.mark.parametrize(
    "pcr", ["", ONE, f"={ONE}", f"PCR1={ONE}", f"-1={ONE}", f"1:{ONE}", f"1= {ONE}", "1=", "1=\x1b"]
)
def test_a_malformed_register(pcr: str, told: Told) -> None:
    refused(options(pcrs=[pcr]), told, "--pcr takes N=HEX")


def test_a_register_that_does_not_exist(told: Told) -> None:
    refused(options(pcrs=[f"32={ONE}"]), told, "PCR32: there are only PCR0 to PCR31")


def test_a_register_that_is_too_short(told: Told) -> None:
    refused(options(pcrs=["3=00"]), told, "PCR3: not 96 hexadecimal digits")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[]", "not what nitro-cli"),
        ('{"Measurements": 1}', "not what nitro-cli"),
        ('{"PCR0": "00"}', "not what nitro-cli"),
        ('{"Measurements": {}}', "no PCR0"),
        (f'{{"Measurements": {{"PCR1": "{ONE}"}}}}', "no PCR0"),
        ('{"Measurements": {"PCR0": 1}}', "PCR0: not 96 hexadecimal digits"),
        (f'{{"Measurements": {{"PCR0": "{ONE}", "PCR0": "{TWO}"}}}}', "given twice"),
        (" " * 70000, "longer than"),
    ],
)
def test_a_malformed_measurements_file(folder: Path, told: Told, text: str, words: str) -> None:
    path = folder / "m.json"
    path.write_text(text)
    refused(options(measurements=path), told, words)


def test_a_measurements_file_that_is_not_there(folder: Path, told: Told) -> None:
    refused(options(measurements=folder / "m.json"), told, "m.json: No such file")


def test_the_packaged_root_is_the_default(told: Told) -> None:
    assert load_root(None, "aws", told) == packaged_root("aws")
    assert load_root(None, "aws-us-gov", told) == packaged_root("aws-us-gov")
    assert told.warnings == []


def test_another_root_is_said_every_time(folder: Path, told: Told, sign: Signer) -> None:
    path = folder / "root.pem"
    path.write_bytes(sign.root_pem)
    for count in (1, 2):
        assert load_root(path, "aws", told) == sign.root
        assert told.warnings == [f"trusting the root in {path} instead of AWS's"] * count


def test_the_packaged_root_in_a_file_is_no_other(folder: Path, told: Told) -> None:
    path = folder / "root.pem"
    path.write_bytes(packaged_root("aws").public_bytes(Encoding.PEM))
    assert load_root(path, "aws", told) == packaged_root("aws")
    assert told.warnings == []


def test_the_root_of_another_partition_is_said(folder: Path, told: Told) -> None:
    path = folder / "root.pem"
    path.write_bytes(packaged_root("aws-us-gov").public_bytes(Encoding.PEM))
    load_root(path, "aws", told)
    assert len(told.warnings) == 1


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\n"])
def test_a_root_that_is_no_certificate(folder: Path, told: Told, content: bytes) -> None:
    path = folder / "root.pem"
    path.write_bytes(content)
    refused(options(root_path=path, pcr0=ONE), told, "root.pem holds no certificate in PEM")


def test_a_root_in_der_is_refused(folder: Path, told: Told, sign: Signer) -> None:
    path = folder / "root.der"
    path.write_bytes(sign.root.public_bytes(Encoding.DER))
    refused(options(root_path=path, pcr0=ONE), told, "holds no certificate in PEM")


def test_a_root_that_is_not_there(folder: Path, told: Told) -> None:
    with pytest.raises(FileError, match=r"cannot read .*root\.pem: No such file") as caught:
        load_root(folder / "root.pem", "aws", told)
    assert caught.value.exit_code == 1


def test_a_root_file_that_is_too_long(folder: Path, told: Told) -> None:
    path = folder / "root.pem"
    path.write_bytes(b"\n" * 70000)
    with pytest.raises(FileError, match="longer than"):
        load_root(path, "aws", told)


def test_a_root_of_an_unknown_version(folder: Path, told: Told, sign: Signer) -> None:
    path = folder / "root.pem"
    version_3, unknown = bytes.fromhex("a003020102"), bytes.fromhex("a003020107")
    der = sign.root.public_bytes(Encoding.DER)
    assert version_3 in der
    path.write_text(ssl.DER_cert_to_PEM_cert(der.replace(version_3, unknown, 1)))
    refused(options(root_path=path, pcr0=ONE), told, "holds no certificate in PEM")

"""What the options make a command trust, and which documents are refused."""

import json
import ssl
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from foobar_instance.attestation import AttestationError, Verifier, packaged_root
from foobar_instance.errors import NotVerifiedError, UsageError
from foobar_instance.trust import (
    DEFAULT_MEASUREMENTS,
    MAX_AGE,
    Trust,
    TrustOptions,
    key_claims,
    load_root,
    make_trust,
    refusal,
)
from foobar_shared.claims import ResultClaims
from tests.foobar_instance.conftest import Told
from tests.support.documents import (
    ACCOUNT,
    DEBUG_PCR0,
    KEY_ARN,
    KEY_ID,
    NOW,
    OTHER_PCR0,
    PCR0,
    RESULT,
    Signer,
)

ONE = "11" * 48
TWO = "22" * 48
ZERO = "00" * 48
NONCE = b"n" * 32
WHAT = "the key's attestation"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_measurements(path: Path, **pcrs: str) -> Path:
    algorithm = {"HashAlgorithm": "Sha384 { ... }"}
    path.write_text(json.dumps({"Measurements": algorithm | pcrs}))
    return path


def pinned(told: Told, **options: object) -> dict[int, str]:
    measurements = make_trust(TrustOptions(**options), told).measurements  # type: ignore[arg-type]
    assert measurements is not None
    return {index: value.hex() for index, value in measurements.pcrs.items()}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"pcr0": ONE}, {0: ONE}),
        ({"pcr0": "AB" * 48}, {0: "ab" * 48}),
        ({"pcrs": [f"8={TWO}"]}, {8: TWO}),
        ({"pcr0": ONE, "pcrs": [f"8={TWO}", f"1={ONE}"]}, {0: ONE, 1: ONE, 8: TWO}),
        ({"measurements": Path("m.json")}, {0: ONE, 1: TWO}),
        (
            {"measurements": Path("m.json"), "pcr0": ONE, "pcrs": [f"8={TWO}"]},
            {0: ONE, 1: TWO, 8: TWO},
        ),
    ],
)
def test_pins_add_up_and_options_need_no_note(
    told: Told, directory: Path, options: dict[str, object], expected: dict[int, str]
) -> None:
    write_measurements(directory / "m.json", PCR0=ONE, PCR1=TWO)
    assert pinned(told, **options) == expected
    assert told.warnings == told.notes == []


@pytest.mark.parametrize(
    "pcrs", [[f"3={ONE}"], [f"4={ONE}", f"16={TWO}"], [f"1={ONE}"], [f"8={ZERO}", f"3={ONE}"]]
)
def test_pcrs_that_do_not_measure_the_code_are_not_enough(pcrs: list[str], told: Told) -> None:
    pinned(told, pcrs=pcrs)
    (warning,) = told.warnings
    assert warning.startswith("the expected PCRs say nothing about the enclave's code")


@pytest.mark.parametrize("options", [{"pcr0": TWO}, {"pcrs": [f"0={TWO}"]}])
def test_the_default_file_is_not_read_where_an_option_pins(
    options: dict[str, object], told: Told
) -> None:
    write_measurements(DEFAULT_MEASUREMENTS, PCR0=ONE)
    assert pinned(told, default_file=DEFAULT_MEASUREMENTS, **options) == {0: TWO}
    assert told.notes == []


def test_what_the_environment_pins_is_said(told: Told, directory: Path) -> None:
    write_measurements(directory / "m.json", PCR0=ONE)
    names = frozenset({"measurements", "pcrs"})
    options = TrustOptions(
        measurements=Path("m.json"), pcr0=ONE, pcrs=[f"1={TWO}"], from_environment=names
    )
    sources = ("FOOBAR_MEASUREMENTS m.json", "--pcr0", "FOOBAR_PCR")
    assert make_trust(options, told).pinned_by == sources
    assert told.notes == [
        f"pinned by FOOBAR_MEASUREMENTS m.json: PCR0 {ONE}",
        f"pinned by FOOBAR_PCR: PCR1 {TWO}",
    ]


def test_debug_mode_is_allowed_with_a_warning(told: Told) -> None:
    assert make_trust(TrustOptions(pcr0=ONE, allow_debug=True), told).allow_debug
    assert told.warnings == [
        "debug-mode enclaves are accepted: they prove nothing about their code"
    ]
    assert not make_trust(TrustOptions(pcr0=ONE), told).allow_debug


def refused_options(told: Told, words: str, **options: object) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        pinned(told, **options)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


@pytest.mark.threat("1")
def test_nothing_pinned_is_refused_with_what_to_do(told: Told) -> None:
    refused_options(told, "no measurement pins the enclave: give --measurements")
    write_measurements(DEFAULT_MEASUREMENTS, PCR0=ONE)
    refused_options(told, "no measurement pins the enclave", default_file=None)


M_JSON = Path("m.json")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"trust_any_enclave": True, "pcr0": ONE}, "contradicts"),
        ({"trust_any_enclave": True, "pcrs": [f"8={ONE}"]}, "contradicts"),
        ({"trust_any_enclave": True, "measurements": M_JSON}, "contradicts"),
        ({"measurements": M_JSON, "pcr0": TWO}, "PCR0 is given twice"),
        ({"pcr0": ONE, "pcrs": [f"0={TWO}"]}, "PCR0 is given twice"),
        ({"measurements": M_JSON, "pcrs": [f"1={ONE}"]}, "PCR1 is given twice"),
        ({"pcr0": ""}, "PCR0: not 96 hexadecimal digits"),
        ({"pcr0": f"{ONE}\n"}, "PCR0: not 96 hexadecimal digits"),
        ({"pcrs": ["3=00"]}, "PCR3: not 96 hexadecimal digits"),
        ({"pcrs": [f"32={ONE}"]}, "PCR32: there are only PCR0 to PCR31"),
        ({"measurements": Path("missing.json")}, "missing.json: No such file"),
    ],
)
def test_options_that_are_refused(
    directory: Path, told: Told, options: dict[str, object], words: str
) -> None:
    write_measurements(directory / "m.json", PCR0=ONE, PCR1=TWO)
    refused_options(told, words, **options)


@pytest.mark.parametrize(
    "pcr", ["", ONE, f"={ONE}", f"PCR1={ONE}", f"-1={ONE}", f"1:{ONE}", f"1= {ONE}", "1=", "1=\x1b"]
)
def test_a_malformed_pcr(pcr: str, told: Told) -> None:
    refused_options(told, "--pcr takes N=HEX", pcrs=[pcr])


@pytest.mark.threat("12")
def test_the_packaged_root_is_the_default(told: Told) -> None:
    for partition in ("aws", "aws-us-gov"):
        options = TrustOptions(pcr0=ONE, partition=partition)
        assert make_trust(options, told).root == f"AWS's root for the partition {partition}"
        assert load_root(None, options.partition, told) == packaged_root(options.partition)
    assert told.warnings == []


def test_the_root_must_be_of_the_regions_partition(
    directory: Path, told: Told, sign: Signer
) -> None:
    packaged = make_trust(TrustOptions(pcr0=ONE), told)
    packaged.check_partition("eu-west-1")
    with pytest.raises(UsageError, match=r"give --partition aws-us-gov$"):
        packaged.check_partition("us-gov-west-1")
    for region in ("cn-north-1", "eusc-de-east-1", "us-iso-east-1"):
        with pytest.raises(UsageError, match=r"root is not packaged: .*--root-path$"):
            packaged.check_partition(region)
    path = directory / "root.pem"
    path.write_bytes(sign.root_pem)
    make_trust(TrustOptions(root_path=path, pcr0=ONE), told).check_partition("cn-north-1")


@pytest.mark.threat("12")
def test_another_root_is_said_every_time(directory: Path, told: Told, sign: Signer) -> None:
    path = directory / "root.pem"
    path.write_bytes(sign.root_pem)
    for count in (1, 2):
        trust = make_trust(TrustOptions(root_path=path, pcr0=ONE), told)
        assert trust.root == f"the root with SHA-256 {sign.root.fingerprint(SHA256()).hex()}"
        assert told.warnings == [f"trusting the root in {path} instead of AWS's"] * count


def test_a_packaged_root_in_a_file_is_another_only_for_the_other_partition(
    directory: Path, told: Told
) -> None:
    path = directory / "root.pem"
    path.write_bytes(packaged_root("aws-us-gov").public_bytes(Encoding.PEM))
    assert load_root(path, "aws-us-gov", told) == packaged_root("aws-us-gov")
    assert told.warnings == []
    load_root(path, "aws", told)
    assert len(told.warnings) == 1


def test_a_root_that_is_no_certificate(directory: Path, told: Told, sign: Signer) -> None:
    version_3, unknown = bytes.fromhex("a003020102"), bytes.fromhex("a003020107")
    der = sign.root.public_bytes(Encoding.DER)
    assert version_3 in der
    other_version = ssl.DER_cert_to_PEM_cert(der.replace(version_3, unknown, 1)).encode()
    path = directory / "root.pem"
    for content in (b"", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\n", der, other_version):
        path.write_bytes(content)
        words = "root.pem holds no certificate in PEM"
        refused_options(told, words, root_path=path, pcr0=ONE)


def refused(document: bytes, trust: Trust, *, after: timedelta | None = None) -> str:
    """The refusal of a saved document, or of a fresh one where `after` says how old it is."""
    if after is None:
        with pytest.raises(NotVerifiedError) as caught:
            trust.verify_saved(document, WHAT)
    else:
        with pytest.raises(NotVerifiedError) as caught:
            trust.verify_fresh(document, WHAT, nonce=NONCE, now=NOW + after)
    assert caught.value.exit_code == 3
    text = str(caught.value)
    assert text.isprintable()
    assert text.startswith(f"{WHAT} does not verify: ")
    return text


JUST_NOW = timedelta(0)


@pytest.mark.threat("11")
def test_a_saved_document_has_no_age(sign: Signer) -> None:
    attestation = sign.trust().verify_saved(sign(b"data", nonce=NONCE), WHAT)
    assert (attestation.user_data, attestation.pcrs[0]) == (b"data", PCR0)


def test_another_root(sign: Signer) -> None:
    assert "another root: of AWS's other partition" in refused(sign(), Trust(Verifier(), None))


def test_another_pcr0(sign: Signer) -> None:
    text = refused(sign(), sign.trust(OTHER_PCR0))
    assert "is this the enclave that you built?" in text
    assert PCR0.hex() in text
    assert "PCR0" in refused(sign(nonce=NONCE), sign.trust(OTHER_PCR0), after=JUST_NOW)


def test_debug_mode_and_the_hint_that_works(sign: Signer, told: Told, directory: Path) -> None:
    document = sign(nonce=NONCE, pcr0=DEBUG_PCR0)
    (directory / "root.pem").write_bytes(sign.root_pem)
    for after in (None, JUST_NOW):
        text = refused(document, sign.trust(), after=after)
        assert "for a test, give --allow-debug --trust-any-enclave instead of" in text
    options = TrustOptions(
        root_path=directory / "root.pem",
        pcr0=ONE,
        from_environment=frozenset({"pcr0"}),
        allow_debug=True,
        trust_any_enclave=True,
    )
    attestation = make_trust(options, told).verify_saved(document, WHAT)
    assert attestation.pcrs[0] == DEBUG_PCR0


@pytest.mark.parametrize("nonce", [None, b"", b"m" * 32, NONCE + b"n"])
def test_another_nonce(sign: Signer, nonce: bytes | None) -> None:
    text = refused(sign(nonce=nonce), sign.trust(), after=JUST_NOW)
    assert ("somebody replays old answers" if nonce else "from the original's enclave") in text


@pytest.mark.parametrize(
    "after", [MAX_AGE + timedelta(milliseconds=1), timedelta(minutes=-6), timedelta(days=1)]
)
@pytest.mark.threat("11")
def test_too_old(sign: Signer, after: timedelta) -> None:
    text = refused(sign(nonce=NONCE), sign.trust(), after=after)
    assert "check the clock of this machine" in text


def test_a_rule_without_a_hint() -> None:
    text = str(refusal(WHAT, AttestationError("some-rule", "it is broken")))
    assert text == f"{WHAT} does not verify: it is broken (rule some-rule)"


def refused_claims(sign: Signer, document: bytes) -> str:
    attestation = sign.trust().verify_saved(document, WHAT)
    with pytest.raises(NotVerifiedError, match=f"^{WHAT} does not attest a key: ") as caught:
        key_claims(attestation)
    return str(caught.value)


@pytest.mark.parametrize(
    "user_data",
    [None, b"", b"{}", b"hello", b"[" * 1000, ResultClaims(bytes(32), RESULT).encode()],
)
def test_claims_of_another_type(sign: Signer, user_data: bytes | None) -> None:
    text = refused_claims(sign, sign(user_data))
    assert text.endswith("another program: make a key with this one's create-key")


@pytest.mark.parametrize(
    "changes",
    [
        {"key_arn": KEY_ARN.replace("us-east-1", "us-west-2")},
        {"key_arn": KEY_ARN.replace("arn:aws:", "arn:aws-cn:")},
        {"key_arn": KEY_ARN.replace(KEY_ID, KEY_ID[:-1] + "6")},
        {"region": "us-west-2"},
    ],
)
@pytest.mark.threat("4")
def test_an_arn_that_contradicts_the_claims(sign: Signer, changes: dict[str, Any]) -> None:
    assert "claims contradict each other" in refused_claims(sign, sign.key(**changes))


@pytest.mark.parametrize(
    "arn",
    [
        KEY_ID,
        KEY_ARN.replace(":kms:", ":s3:"),
        KEY_ARN.replace("arn:", "nra:"),
        KEY_ARN.replace(":key/", ":alias/"),
        KEY_ARN.replace(ACCOUNT, "12345678901x"),
        f"{KEY_ARN}:more",
    ],
)
def test_an_arn_of_no_key(sign: Signer, arn: str) -> None:
    assert "keyArn is not the ARN of a KMS key" in refused_claims(sign, sign.key(key_arn=arn))


@pytest.mark.parametrize("region", ["evil.example.com/", "us-east-1.evil", "US-EAST-1"])
def test_a_region_that_is_none(sign: Signer, region: str) -> None:
    assert "not a valid AWS region" in refused_claims(sign, sign.key(region=region))


def test_a_public_key_that_is_none(sign: Signer) -> None:
    assert "not a DER public key" in refused_claims(sign, sign.key(public_key=b"hello"))
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert "not a P-256 public key" in refused_claims(sign, sign.key(public_key=der))

"""Documents are judged by the pinned root and measurements, and refused in one line each."""

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from foobar_instance.attestation import AttestationError, Verifier
from foobar_instance.errors import NotVerifiedError
from foobar_instance.trust import MAX_AGE, Trust, key_claims, refusal
from foobar_shared.claims import ResultClaims
from tests.support.documents import (
    ACCOUNT,
    CLAIMS,
    DEBUG_PCR0,
    KEY_ARN,
    KEY_ID,
    NOW,
    OTHER_PCR0,
    PCR0,
    Signer,
)

NONCE = b"n" * 32
WHAT = "the key's attestation"


def text_of(caught: pytest.ExceptionInfo[NotVerifiedError]) -> str:
    assert caught.value.exit_code == 3
    text = str(caught.value)
    assert text.isprintable()
    assert text.startswith(f"{WHAT} does not ")
    return text


def refused_fresh(
    trust: Trust, document: bytes, *, after: timedelta = timedelta(0), nonce: bytes = NONCE
) -> str:
    with pytest.raises(NotVerifiedError) as caught:
        trust.fresh(document, WHAT, nonce=nonce, now=NOW + after)
    return text_of(caught)


def refused_saved(trust: Trust, document: bytes) -> str:
    with pytest.raises(NotVerifiedError) as caught:
        trust.saved(document, WHAT)
    return text_of(caught)


def refused_claims(sign: Signer, document: bytes) -> str:
    attestation = sign.trust().saved(document, WHAT)
    with pytest.raises(NotVerifiedError) as caught:
        key_claims(attestation, WHAT)
    return text_of(caught)


def test_a_saved_document_has_no_age(sign: Signer) -> None:
    attestation = sign.trust().saved(sign(b"data", nonce=NONCE), WHAT)
    assert attestation.user_data == b"data"
    assert attestation.pcrs[0] == PCR0


def test_a_fresh_document(sign: Signer) -> None:
    for after in (timedelta(0), MAX_AGE):
        document = sign(nonce=NONCE)
        assert sign.trust().fresh(document, WHAT, nonce=NONCE, now=NOW + after).nonce == NONCE


def test_another_root(sign: Signer) -> None:
    text = refused_saved(Trust(Verifier(), None), sign())
    assert "another root: AWS's other partition, or an emulator's" in text


def test_another_pcr0(sign: Signer) -> None:
    text = refused_saved(sign.trust(OTHER_PCR0), sign())
    assert "is this the enclave that you built?" in text
    assert PCR0.hex() in text
    assert "PCR0" in refused_fresh(sign.trust(OTHER_PCR0), sign(nonce=NONCE))


def test_debug_mode(sign: Signer) -> None:
    document = sign(nonce=NONCE, pcr0=DEBUG_PCR0)
    assert "without --debug-mode, or pass --allow-debug" in refused_saved(
        sign.trust(None), document
    )
    assert "debug" in refused_fresh(sign.trust(None), document)
    allowing = sign.trust(None, allow_debug=True)
    assert allowing.saved(document, WHAT).pcrs[0] == DEBUG_PCR0
    assert allowing.fresh(document, WHAT, nonce=NONCE, now=NOW).pcrs[0] == DEBUG_PCR0


@pytest.mark.parametrize("nonce", [None, b"", b"m" * 32, NONCE + b"n"])
def test_another_nonce(sign: Signer, nonce: bytes | None) -> None:
    text = refused_fresh(sign.trust(), sign(nonce=nonce))
    assert "somebody replays old answers" in text


def test_too_old(sign: Signer) -> None:
    text = refused_fresh(sign.trust(), sign(nonce=NONCE), after=MAX_AGE + timedelta(milliseconds=1))
    assert "check the clock of this machine" in text


def test_just_now_is_five_minutes(sign: Signer) -> None:
    now = NOW + timedelta(minutes=5)
    assert sign.trust().fresh(sign(nonce=NONCE), WHAT, nonce=NONCE, now=now).pcrs[0] == PCR0


def test_from_the_future(sign: Signer) -> None:
    assert "clock" in refused_fresh(sign.trust(), sign(nonce=NONCE), after=timedelta(minutes=-6))


def test_long_after_the_certificate(sign: Signer) -> None:
    assert "clock" in refused_fresh(sign.trust(), sign(nonce=NONCE), after=timedelta(days=1))


@pytest.mark.parametrize("document", [b"", b"hello", b"\xff" * 100, b"\x84" * 10000])
def test_no_document(sign: Signer, document: bytes) -> None:
    assert "(rule " in refused_saved(sign.trust(), document)


def test_a_rule_without_a_hint() -> None:
    text = str(refusal(WHAT, AttestationError("some-rule", "it is broken")))
    assert text == f"{WHAT} does not verify: it is broken (rule some-rule)"


def test_the_attested_key(sign: Signer) -> None:
    assert key_claims(sign.trust().saved(sign.key(), WHAT), WHAT) == CLAIMS


@pytest.mark.parametrize(
    "user_data", [None, b"", b"{}", b"hello", b"[" * 1000, ResultClaims(bytes(32), 4).encode()]
)
def test_claims_of_another_type(sign: Signer, user_data: bytes | None) -> None:
    assert "attest a key: " in refused_claims(sign, sign(user_data))


@pytest.mark.parametrize(
    "arn",
    [
        KEY_ARN.replace("us-east-1", "us-west-2"),
        KEY_ARN.replace("arn:aws:", "arn:aws-cn:"),
        KEY_ARN.replace(KEY_ID, KEY_ID[:-1] + "6"),
    ],
)
def test_an_arn_that_contradicts_the_claims(sign: Signer, arn: str) -> None:
    assert "claims contradict each other" in refused_claims(sign, sign.key(key_arn=arn))


@pytest.mark.parametrize(
    "arn",
    [
        KEY_ID,
        KEY_ARN.replace(":kms:", ":s3:"),
        KEY_ARN.replace("arn:", "nra:"),
        KEY_ARN.replace(":key/", ":alias/"),
        f"{KEY_ARN}:more",
    ],
)
def test_an_arn_of_no_key(sign: Signer, arn: str) -> None:
    assert "keyArn is not the ARN of a KMS key" in refused_claims(sign, sign.key(key_arn=arn))


def test_an_arn_without_an_account(sign: Signer) -> None:
    arn = KEY_ARN.replace(ACCOUNT, "12345678901x")
    assert "account id" in refused_claims(sign, sign.key(key_arn=arn))


@pytest.mark.parametrize("region", ["evil.example.com/", "us-east-1.evil", "US-EAST-1"])
def test_a_region_that_is_none(sign: Signer, region: str) -> None:
    assert "region" in refused_claims(sign, sign.key(region=region))


def test_a_region_that_is_not_the_keys(sign: Signer) -> None:
    text = refused_claims(sign, sign.key(region="us-west-2"))
    assert "claims contradict each other" in text


def test_a_public_key_that_is_none(sign: Signer) -> None:
    assert "not a DER public key" in refused_claims(sign, sign.key(public_key=b"hello"))


def test_a_public_key_on_another_curve(sign: Signer) -> None:
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert "not a P-256 public key" in refused_claims(sign, sign.key(public_key=der))

from __future__ import annotations

import dataclasses
import hashlib

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from foobar_enclave.create_key import create_key
from foobar_enclave.errors import (
    DebugModeError,
    KmsError,
    NsmError,
    SandboxError,
    UnattestedKeyError,
)
from foobar_shared.claims import KeyClaims, parse_key_claims
from foobar_shared.errors import NameFormatError
from foobar_shared.key_policy import key_policy
from tests.foobar_enclave.fakes import (
    ACCOUNT,
    KEY_ARN,
    KEY_ID,
    NONCE,
    P256,
    PCR0,
    REGION,
    REQUEST,
    ROLE,
    FakeConnector,
    FakeNsm,
    FakeSession,
    metadata,
    public_key,
    spki,
)

POLICY = key_policy(region=REGION, account_id=ACCOUNT, role=ROLE, pcr0=PCR0)


def run(
    nsm: FakeNsm, session: FakeSession | None = None, **changes: object
) -> dict[str, bytes | None]:
    """The fields of the attestation that the ceremony ends in."""
    request = dataclasses.replace(REQUEST, **changes)  # type: ignore[arg-type]
    connector = FakeConnector(session or FakeSession())
    fields = cbor2.loads(create_key(request, nsm=nsm.device, kms=connector))
    assert isinstance(fields, dict)
    return fields


@pytest.mark.threat("4")
def test_weakness_4_the_attestation_names_key_account_and_policy(nsm: FakeNsm) -> None:
    session = FakeSession()
    connector = FakeConnector(session)
    fields = cbor2.loads(create_key(REQUEST, nsm=nsm.device, kms=connector))
    assert connector.opened == [(REGION, REQUEST.credentials)]
    assert parse_key_claims(fields["user_data"]) == KeyClaims(
        key_id=KEY_ID,
        key_arn=KEY_ARN,
        public_key=P256,
        region=REGION,
        policy_sha256=hashlib.sha256(POLICY.encode()).digest(),
    )
    assert session.created == [
        {"policy": POLICY, "description": f"Locked to the enclave image with PCR0 {PCR0.hex()}"}
    ]


@pytest.mark.threat("2")
def test_weakness_2_a_debug_enclave_makes_no_key() -> None:
    nsm, session = FakeNsm(pcr0=bytes(48)), FakeSession()
    connector = FakeConnector(session)
    with pytest.raises(DebugModeError, match="debug mode"):
        create_key(REQUEST, nsm=nsm.device, kms=connector)
    assert connector.opened == []
    assert session.created == []
    assert nsm.names == ["DescribePCR"]


@pytest.mark.threat("A")
@pytest.mark.parametrize("locked", [True, False])
def test_a_sandbox_makes_no_key(locked: bool, nsm: FakeNsm) -> None:
    connector = FakeConnector(FakeSession())
    nsm.pcrs[17] = b"\1" * 48
    nsm.locked |= {17} if locked else set()  # a document holds only those that are locked
    with pytest.raises(SandboxError, match=r"Nitro Sandbox .*run this service in a Nitro Enclave"):
        create_key(REQUEST, nsm=nsm.device, kms=connector)
    assert connector.opened == []


def test_a_pcr17_that_is_zero_is_no_sandbox(nsm: FakeNsm) -> None:
    nsm.locked.add(17)
    assert run(nsm)["nonce"] == NONCE


def test_a_module_without_pcr17_is_no_sandbox(nsm: FakeNsm) -> None:
    del nsm.pcrs[17]
    assert run(nsm)["nonce"] == NONCE


def test_a_module_that_does_not_tell_pcr17_makes_no_key(nsm: FakeNsm) -> None:
    nsm.pcrs[17] = b""
    with pytest.raises(NsmError, match="data"):
        run(nsm)


@pytest.mark.parametrize("pcr0", [b"\1" * 32, b"\1" * 64])
def test_a_register_of_another_digest_makes_no_key(pcr0: bytes) -> None:
    connector = FakeConnector(FakeSession())
    with pytest.raises(NsmError, match="PCR0 is not 48 bytes"):
        create_key(REQUEST, nsm=FakeNsm(pcr0=pcr0).device, kms=connector)
    assert connector.opened == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("region", "x.attacker.example/"),
        ("account_id", "12345678901"),
        ("account_id", '123456789012"'),
        ("role", 'a","kms:*'),
        ("role", "path/role"),
        ("role", "*:"),
    ],
)
def test_weakness_4_what_the_parent_names_is_checked_before_it_reaches_policy_or_kms(
    field: str, value: str, nsm: FakeNsm
) -> None:
    connector = FakeConnector(FakeSession())
    request = dataclasses.replace(REQUEST, **{field: value})  # type: ignore[arg-type]
    with pytest.raises(NameFormatError):
        create_key(request, nsm=nsm.device, kms=connector)
    assert connector.opened == []


def test_where_kms_has_made_no_key_its_error_is_reported_as_it_is(nsm: FakeNsm) -> None:
    with pytest.raises(KmsError, match=r"^not authorized$"):
        run(nsm, FakeSession(metadata=KmsError("not authorized")))


def test_a_key_that_may_have_been_made_is_described(nsm: FakeNsm) -> None:
    cut = KmsError("the connection was cut", may_have_acted=True)
    text = f'description "Locked .* {PCR0.hex()}", if any.*the connection was cut'
    with pytest.raises(UnattestedKeyError, match=text):
        run(nsm, FakeSession(metadata=cut))


OTHER_ID = "99999999-12ab-34cd-56ef-1234567890ab"
METADATA_CHANGES: dict[str, list[object]] = {
    "KeySpec": ["ECC_NIST_P384", None],
    "KeyUsage": ["SIGN_VERIFY", None],
    "Origin": ["EXTERNAL", None],
    "KeyState": ["PendingImport", None],
    "MultiRegion": [True, None],
    "AWSAccountId": ["210987654321", None],
    "KeyId": ["", None, OTHER_ID, "alias/x", KEY_ID.upper(), KEY_ID + "\n"],
    "Arn": [
        None,
        "",
        KEY_ARN.replace("arn:aws:", "arn:aws-cn:"),
        KEY_ARN.replace("us-east-1", "eu-west-1"),
        KEY_ARN.replace(ACCOUNT, "210987654321"),
        KEY_ARN.replace(KEY_ID, OTHER_ID),
        KEY_ARN.replace("key/", "alias/"),
        KEY_ARN + "\n",
    ],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, all_ in METADATA_CHANGES.items() for value in all_]
)
@pytest.mark.threat("4")
def test_weakness_4_a_key_that_is_not_what_was_asked_for_is_not_attested(
    name: str, value: object, nsm: FakeNsm
) -> None:
    with pytest.raises(UnattestedKeyError, match="CreateKey has") as raised:
        run(nsm, FakeSession(metadata=metadata(**{name: value})))
    assert "Attestation" not in nsm.names
    assert "\n" not in str(raised.value)
    if name != "Arn":
        assert f"KMS key {KEY_ARN} was made but not attested, so delete it" in str(raised.value)


def test_a_key_without_an_arn_is_named_by_its_id(nsm: FakeNsm) -> None:
    with pytest.raises(UnattestedKeyError, match=f"KMS key {KEY_ID} was made"):
        run(nsm, FakeSession(metadata=metadata(Arn=None)))


PUBLIC_KEY_CHANGES: dict[str, list[object]] = {
    "KeyId": [None, KEY_ID, KEY_ARN.replace(KEY_ID, OTHER_ID)],
    "KeySpec": [None, "ECC_NIST_P384"],
    "KeyUsage": [None, "SIGN_VERIFY"],
    "KeyAgreementAlgorithms": [[], ["KEM"], None],
    "PublicKey": [
        None,
        P256 + b"\0",
        spki(ec.generate_private_key(ec.SECP384R1())),
    ],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, all_ in PUBLIC_KEY_CHANGES.items() for value in all_],
)
def test_a_public_key_that_is_not_the_made_keys_is_not_attested(
    name: str, value: object, nsm: FakeNsm
) -> None:
    with pytest.raises(UnattestedKeyError, match=f"KMS key {KEY_ARN} .*: KMS's answer to Get"):
        run(nsm, FakeSession(public_key=public_key(**{name: value})))
    assert "Attestation" not in nsm.names


def test_a_key_whose_public_key_kms_does_not_give_is_named(nsm: FakeNsm) -> None:
    with pytest.raises(UnattestedKeyError, match=f"{KEY_ARN} was made .*: no such key$"):
        run(nsm, FakeSession(public_key=KmsError("no such key")))


@pytest.mark.threat("18")
def test_a_key_that_cannot_be_attested_is_named(nsm: FakeNsm) -> None:
    nsm.answers["Attestation"] = {"Error": "InternalError"}
    with pytest.raises(UnattestedKeyError, match=f"{KEY_ARN} was made .* at Attestation"):
        run(nsm)


def test_a_key_is_named_even_after_a_defect(nsm: FakeNsm) -> None:
    with pytest.raises(UnattestedKeyError, match=f"{KEY_ARN} .*a defect, ZeroDivisionError"):
        run(nsm, FakeSession(public_key=ZeroDivisionError("secret")))

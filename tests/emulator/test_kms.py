from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from emulator import Emulator
from emulator.documents import attestation_document
from emulator.identity import Instance
from emulator.pki import NitroPki
from foobar_enclave.cms import decrypt_enveloped_data
from foobar_shared.key_policy import key_policy

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

INSTANCE = Instance()
MODULE = "i-0123456789abcdef0-enc0123456789abcdef"
PCR0 = bytes(range(48))
POLICY = key_policy(
    region=INSTANCE.region, account_id=INSTANCE.account_id, role=INSTANCE.role, pcr0=PCR0
)
PEER = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)


def spki(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


RSA_SPKI = spki(RSA_KEY)
PCRS = dict.fromkeys(range(16), bytes(48)) | {0: PCR0}


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Kms:
    """The emulator's KMS, as its clients see it."""

    emulator: Emulator
    role: KMSClient
    root: KMSClient

    def create(self, **changes: object) -> str:
        members: dict[str, Any] = {
            "Policy": POLICY,
            "KeySpec": "ECC_NIST_P256",
            "KeyUsage": "KEY_AGREEMENT",
            "BypassPolicyLockoutSafetyCheck": True,
        }
        return self.role.create_key(**(members | changes))["KeyMetadata"]["KeyId"]

    def document(
        self,
        *,
        pki: NitroPki | None = None,
        pcrs: Mapping[int, bytes] = PCRS,
        timestamp: datetime | None = None,
        public_key: bytes | None = RSA_SPKI,
    ) -> bytes:
        now = utc_now()
        return attestation_document(
            (pki or self.emulator.pki).issue(MODULE, now=now - timedelta(minutes=20)),
            module_id=MODULE,
            pcrs=pcrs,
            timestamp=timestamp or now,
            public_key=public_key,
        )

    def derive(
        self,
        key_id: str,
        document: bytes | None,
        *,
        client: KMSClient | None = None,
        **changes: object,
    ) -> Mapping[str, Any]:
        members: dict[str, Any] = {
            "KeyId": key_id,
            "KeyAgreementAlgorithm": "ECDH",
            "PublicKey": spki(PEER),
        }
        if document is not None:
            members["Recipient"] = {
                "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
                "AttestationDocument": document,
            }
        return (client or self.role).derive_shared_secret(**(members | changes))

    def expected(self, key_id: str) -> bytes:
        """The secret that PEER shares with a key."""
        key = load_der_public_key(self.role.get_public_key(KeyId=key_id)["PublicKey"])
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return PEER.exchange(ec.ECDH(), key)


@pytest.fixture(scope="module")
def kms(nitro_emulator: Emulator) -> Kms:
    root = nitro_emulator.credentials.long_term_key(INSTANCE.root())
    return Kms(nitro_emulator, nitro_emulator.kms_client(), nitro_emulator.kms_client(root))


@pytest.fixture(scope="module")
def key_id(kms: Kms) -> str:
    return kms.create()


def refused(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(ClientError) as error:
        call()
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    details = error.value.response["Error"]
    return details["Code"], details["Message"]


def code_of(call: Callable[[], object]) -> str:
    return refused(call)[0]


def default_policy() -> str:
    policy = json.loads(POLICY)
    principals = [INSTANCE.root().arn, INSTANCE.role_arn]
    allowed = {"Principal": {"AWS": principals}, "Action": "kms:*"}
    return json.dumps(policy | {"Statement": [policy["Statement"][0] | allowed]})


def test_create_key_describes_the_key_as_kms_does(kms: Kms) -> None:
    metadata = kms.role.create_key(
        Policy=POLICY,
        KeySpec="ECC_NIST_P256",
        KeyUsage="KEY_AGREEMENT",
        Description="for one enclave",
        BypassPolicyLockoutSafetyCheck=True,
    )["KeyMetadata"]
    key_id = metadata["KeyId"]
    assert metadata["Arn"] == f"arn:aws:kms:us-east-1:123456789012:key/{key_id}"
    assert abs(metadata["CreationDate"] - utc_now()) < timedelta(minutes=1)
    expected = {
        "AWSAccountId": "123456789012",
        "KeySpec": "ECC_NIST_P256",
        "CustomerMasterKeySpec": "ECC_NIST_P256",
        "KeyUsage": "KEY_AGREEMENT",
        "KeyAgreementAlgorithms": ["ECDH"],
        "KeyState": "Enabled",
        "Enabled": True,
        "Origin": "AWS_KMS",
        "KeyManager": "CUSTOMER",
        "MultiRegion": False,
        "Description": "for one enclave",
    }
    rest = {name: metadata.get(name) for name in expected}
    assert rest == expected
    assert metadata.keys() == expected.keys() | {"Arn", "KeyId", "CreationDate"}
    assert kms.root.describe_key(KeyId=key_id)["KeyMetadata"] == metadata


def test_create_key_needs_iam(kms: Kms) -> None:
    without = replace(INSTANCE.role_session(), iam_actions=())
    key = kms.emulator.credentials.long_term_key(without)
    code, message = refused(kms.emulator.kms_client(key).create_key)
    assert code == "AccessDeniedException"
    assert "no identity-based policy allows the kms:CreateKey action" in message


def test_the_lockout_safety_check(kms: Kms) -> None:
    code, message = refused(lambda: kms.create(BypassPolicyLockoutSafetyCheck=False))
    assert code == "MalformedPolicyDocumentException"
    assert "will not allow you to update the key policy in the future" in message
    assert kms.create(BypassPolicyLockoutSafetyCheck=False, Policy=default_policy())


def test_a_policy_for_a_role_that_does_not_exist_is_refused(kms: Kms) -> None:
    other = POLICY.replace(INSTANCE.role, "no-such-role")
    code, message = refused(lambda: kms.create(Policy=other))
    assert (code, "invalid principals" in message) == ("MalformedPolicyDocumentException", True)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"KeyUsage": "SIGN_VERIFY"}, "UnsupportedOperationException"),
        ({"KeySpec": "RSA_2048"}, "UnsupportedOperationException"),
        ({"Origin": "EXTERNAL"}, "UnsupportedOperationException"),
        ({"MultiRegion": True}, "UnsupportedOperationException"),
        ({"Tags": [{"TagKey": "a", "TagValue": "b"}]}, "UnsupportedOperationException"),
        ({"Policy": "{"}, "MalformedPolicyDocumentException"),
        ({"Policy": POLICY.replace("PCR0", "PCR")}, "UnsupportedOperationException"),
    ],
)
def test_a_key_that_kms_does_not_make_is_refused(
    kms: Kms, changes: dict[str, Any], code: str
) -> None:
    assert code_of(lambda: kms.create(**changes)) == code


def test_the_public_key_is_described_as_kms_does(kms: Kms, key_id: str) -> None:
    answer = kms.role.get_public_key(KeyId=key_id)
    assert (answer["KeySpec"], answer["KeyUsage"]) == ("ECC_NIST_P256", "KEY_AGREEMENT")
    assert answer["KeyAgreementAlgorithms"] == ["ECDH"]
    assert answer["KeyId"].endswith(f":key/{key_id}")
    assert answer.keys().isdisjoint({"SigningAlgorithms", "EncryptionAlgorithms"})


def test_the_policy_is_given_back_byte_for_byte(kms: Kms, key_id: str) -> None:
    answer = kms.root.get_key_policy(KeyId=key_id, PolicyName="default")
    assert (answer["Policy"], answer["PolicyName"]) == (POLICY, "default")
    assert code_of(lambda: kms.root.get_key_policy(KeyId=key_id, PolicyName="other")) == (
        "NotFoundException"
    )


def test_a_key_is_named_by_id_or_by_its_own_arn(kms: Kms, key_id: str) -> None:
    arn = kms.root.describe_key(KeyId=key_id)["KeyMetadata"]["Arn"]
    assert kms.root.describe_key(KeyId=arn)["KeyMetadata"]["KeyId"] == key_id
    others = (arn.replace("us-east-1", "eu-west-1"), arn.replace("1234567", "7654321"))
    for other in (*others, "00000000-0000-0000-0000-000000000000", "alias/none"):
        code, message = refused(lambda other=other: kms.root.describe_key(KeyId=other))  # type: ignore[misc]
        assert (code, "does not exist" in message) == ("NotFoundException", True)


@pytest.mark.parametrize(
    "call",
    [
        lambda client, key_id: client.put_key_policy(
            KeyId=key_id, Policy=default_policy(), BypassPolicyLockoutSafetyCheck=True
        ),
        lambda client, key_id: client.create_grant(
            KeyId=key_id, GranteePrincipal="x", Operations=["DeriveSharedSecret"]
        ),
        lambda client, key_id: client.disable_key(KeyId=key_id),
        lambda client, key_id: client.cancel_key_deletion(KeyId=key_id),
        lambda client, key_id: client.sign(
            KeyId=key_id, Message=b"x", SigningAlgorithm="ECDSA_SHA_256"
        ),
        lambda client, key_id: client.get_public_key(KeyId=key_id),
    ],
)
@pytest.mark.threat("C")
def test_the_account_root_can_neither_use_nor_change_our_key(
    kms: Kms, key_id: str, call: Callable[[KMSClient, str], object]
) -> None:
    code, message = refused(lambda: call(kms.root, key_id))
    assert code == "AccessDeniedException"
    assert "because no resource-based policy allows the kms:" in message


@pytest.mark.parametrize("name", ["describe_key", "get_key_policy", "schedule_key_deletion"])
def test_the_role_can_only_read_the_public_key(kms: Kms, key_id: str, name: str) -> None:
    assert code_of(lambda: getattr(kms.role, name)(KeyId=key_id)) == "AccessDeniedException"


def test_what_is_allowed_and_not_offered_says_so(kms: Kms) -> None:
    own = kms.create(Policy=default_policy())
    code = code_of(lambda: kms.root.enable_key_rotation(KeyId=own))
    assert code == "UnsupportedOperationException"
    assert code_of(kms.root.list_keys) == "UnsupportedOperationException"
    assert code_of(kms.role.list_keys) == "AccessDeniedException"


def test_the_attested_enclave_gets_the_shared_secret(kms: Kms, key_id: str) -> None:
    answer = kms.derive(key_id, kms.document())
    secret = decrypt_enveloped_data(answer["CiphertextForRecipient"], RSA_KEY)
    assert secret == kms.expected(key_id)
    assert answer.get("SharedSecret") is None
    assert answer["KeyId"] == f"arn:aws:kms:us-east-1:123456789012:key/{key_id}"
    assert (answer["KeyAgreementAlgorithm"], answer["KeyOrigin"]) == ("ECDH", "AWS_KMS")
    assert len(answer["CiphertextForRecipient"]) <= 6144


@pytest.mark.threat("D")
def test_a_request_without_attestation_is_refused(kms: Kms, key_id: str) -> None:
    code, message = refused(lambda: kms.derive(key_id, None))
    arn = f"arn:aws:kms:us-east-1:123456789012:key/{key_id}"
    assert code == "AccessDeniedException"
    assert message == (
        f"User: {INSTANCE.role_session().arn} is not authorized to perform: "
        f"kms:DeriveSharedSecret on resource: {arn} because no resource-based policy allows the "
        "kms:DeriveSharedSecret action"
    )


@pytest.mark.parametrize("pcr0", [bytes(48), PCR0[::-1]])
@pytest.mark.threat("D")
def test_another_pcr0_is_refused(kms: Kms, key_id: str, pcr0: bytes) -> None:
    document = kms.document(pcrs=dict.fromkeys(range(1, 16), PCR0) | {0: pcr0})
    assert code_of(lambda: kms.derive(key_id, document)) == "AccessDeniedException"


def test_the_account_root_is_refused_with_a_good_attestation(kms: Kms, key_id: str) -> None:
    call = lambda: kms.derive(key_id, kms.document(), client=kms.root)  # noqa: E731
    assert code_of(call) == "AccessDeniedException"


def test_a_document_is_good_for_five_minutes(kms: Kms, key_id: str) -> None:
    kms.derive(key_id, kms.document(timestamp=utc_now() - timedelta(minutes=4, seconds=50)))
    document = kms.document(timestamp=utc_now() - timedelta(minutes=5, seconds=1))
    code, message = refused(lambda: kms.derive(key_id, document))
    assert (code, "five-minute age limit" in message) == ("ValidationException", True)


def test_a_forged_document_is_refused(kms: Kms, key_id: str) -> None:
    document = kms.document()
    other_root = kms.document(pki=NitroPki.create(now=utc_now()))
    for forged in (document[:-1] + bytes([document[-1] ^ 1]), other_root):
        code, message = refused(lambda forged=forged: kms.derive(key_id, forged))  # type: ignore[misc]
        assert code == "ValidationException"
        assert "cannot parse the attestation document" in message


@pytest.mark.parametrize(
    "public_key",
    [
        None,
        b"dummy",
        spki(PEER),
        spki(rsa.generate_private_key(65537, 1024)),  # noqa: S505 - to be refused
    ],
)
def test_a_document_without_an_rsa_2048_key_is_refused(
    kms: Kms, key_id: str, public_key: bytes | None
) -> None:
    document = kms.document(public_key=public_key)
    code, message = refused(lambda: kms.derive(key_id, document))
    assert (code, "RSA-2048" in message) == ("ValidationException", True)


def test_the_image_condition_and_further_pcrs(kms: Kms) -> None:
    pcr3 = b"\3" * 48
    policy = json.loads(POLICY)
    policy["Statement"][1]["Condition"]["StringEqualsIgnoreCase"] = {
        "kms:RecipientAttestation:ImageSha384": PCR0.hex(),
        "kms:RecipientAttestation:PCR3": pcr3.hex(),
    }
    own = kms.create(Policy=json.dumps(policy))
    assert code_of(lambda: kms.derive(own, kms.document())) == "AccessDeniedException"
    assert kms.derive(own, kms.document(pcrs=PCRS | {3: pcr3}))["CiphertextForRecipient"]


def test_a_debug_document_is_as_good_as_the_policy_lets_it_be(kms: Kms) -> None:
    own = kms.create(Policy=default_policy())
    debug = kms.document(pcrs=dict.fromkeys(range(16), bytes(48)))
    assert kms.derive(own, debug)["CiphertextForRecipient"]


def test_without_condition_and_recipient_the_secret_is_in_clear(kms: Kms) -> None:
    own = kms.create(Policy=default_policy())
    answer = kms.derive(own, None)
    assert answer["SharedSecret"] == kms.expected(own)
    assert "CiphertextForRecipient" not in answer


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"PublicKey": b"x"}, "ValidationException"),
        ({"PublicKey": spki(ec.generate_private_key(ec.SECP384R1()))}, "ValidationException"),
        ({"PublicKey": spki(RSA_KEY)}, "ValidationException"),
        ({"KeyAgreementAlgorithm": "DH"}, "ValidationException"),
        ({"GrantTokens": ["x"]}, "UnsupportedOperationException"),
        ({"DryRun": True}, "DryRunOperationException"),
        ({"KeyId": "x"}, "NotFoundException"),
    ],
)
def test_bad_requests_are_refused(
    kms: Kms, key_id: str, changes: dict[str, Any], code: str
) -> None:
    assert code_of(lambda: kms.derive(key_id, kms.document(), **changes)) == code


def test_another_wrapping_algorithm_is_refused(kms: Kms, key_id: str) -> None:
    recipient = {
        "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_1",
        "AttestationDocument": kms.document(),
    }
    assert code_of(lambda: kms.derive(key_id, None, Recipient=recipient)) == "ValidationException"


def test_a_key_to_be_deleted_derives_nothing(kms: Kms) -> None:
    own = kms.create()
    answer = kms.root.schedule_key_deletion(KeyId=own, PendingWindowInDays=7)
    assert (answer["KeyState"], answer["PendingWindowInDays"]) == ("PendingDeletion", 7)
    assert answer["KeyId"].endswith(own)
    assert abs(answer["DeletionDate"] - utc_now() - timedelta(days=7)) < timedelta(minutes=1)
    code, message = refused(lambda: kms.derive(own, kms.document()))
    assert (code, "is pending deletion" in message) == ("KMSInvalidStateException", True)
    assert code_of(lambda: kms.role.get_public_key(KeyId=own)) == "KMSInvalidStateException"
    assert code_of(lambda: kms.root.schedule_key_deletion(KeyId=own)) == "KMSInvalidStateException"
    assert kms.root.describe_key(KeyId=own)["KeyMetadata"]["KeyState"] == "PendingDeletion"


@pytest.mark.parametrize("days", [6, 31])
def test_the_waiting_period_is_bounded(kms: Kms, key_id: str, days: int) -> None:
    call = lambda: kms.root.schedule_key_deletion(KeyId=key_id, PendingWindowInDays=days)  # noqa: E731
    assert code_of(call) == "ValidationException"

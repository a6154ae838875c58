"""Stand-ins for what the enclave is given: a module, a KMS session, requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from foobar_enclave.errors import KmsError
from foobar_enclave.kms import KmsConnector, KmsSession
from foobar_enclave.nsm import NsmDevice
from foobar_shared.messages import CreateKeyRequest, Credentials

PCR0 = bytes(range(1, 49))
ACCOUNT = "123456789012"
REGION = "us-east-1"
ROLE = "aws-nitro-enclave-foobar-iam-role"
KEY_ID = "1234abcd-12ab-34cd-56ef-1234567890ab"
KEY_ARN = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{KEY_ID}"
NONCE = bytes(range(32))
CREDENTIALS = Credentials("AKIACANARYKEYID", "canary-secret-access-key", "canary-session-token")
REQUEST = CreateKeyRequest(REGION, ACCOUNT, ROLE, CREDENTIALS, NONCE)


def spki(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


P256_KEY = ec.generate_private_key(ec.SECP256R1())
P256 = spki(P256_KEY)


class FakeNsm:
    """An `NsmTransport` with a bank of registers; its documents are plain CBOR, unsigned."""

    def __init__(self, pcr0: bytes = PCR0) -> None:
        self.pcrs = {index: bytes(48) for index in range(32)} | {0: pcr0}
        self.locked = set(range(16))
        self.requests: list[bytes] = []
        self.answers: dict[str, object] = {}

    def exchange(self, request: bytes) -> bytes:
        self.requests.append(request)
        decoded = cbor2.loads(request)
        name, fields = (decoded, {}) if isinstance(decoded, str) else next(iter(decoded.items()))
        if name in self.answers:
            return cbor2.dumps(self.answers[name])
        if name == "DescribePCR" and fields["index"] not in self.pcrs:
            return cbor2.dumps({"Error": "InvalidIndex"})
        return cbor2.dumps({name: self._answer(name, fields)})

    def _answer(self, name: str, fields: dict[str, int]) -> dict[str, object]:
        if name == "DescribePCR":
            index = fields["index"]
            return {"data": self.pcrs[index], "lock": index in self.locked}
        if name == "GetRandom":
            return {"random": bytes(range(256))}
        assert name == "Attestation"
        return {"document": cbor2.dumps(fields)}

    @property
    def device(self) -> NsmDevice:
        return NsmDevice(transport=self)

    @property
    def names(self) -> list[str]:
        decoded = [cbor2.loads(request) for request in self.requests]
        return [name if isinstance(name, str) else next(iter(name)) for name in decoded]


def metadata(**changes: object) -> dict[str, object]:
    return {
        "Arn": KEY_ARN,
        "KeyId": KEY_ID,
        "AWSAccountId": ACCOUNT,
        "KeySpec": "ECC_NIST_P256",
        "KeyUsage": "KEY_AGREEMENT",
        "Origin": "AWS_KMS",
        "KeyState": "Enabled",
        "MultiRegion": False,
    } | changes


def public_key(**changes: object) -> dict[str, object]:
    return {
        "KeyId": KEY_ARN,
        "KeySpec": "ECC_NIST_P256",
        "KeyUsage": "KEY_AGREEMENT",
        "KeyAgreementAlgorithms": ["ECDH"],
        "PublicKey": P256,
    } | changes


@dataclass
class FakeSession(KmsSession):
    """Answers what it is told to, errors included."""

    metadata: dict[str, object] | KmsError = field(default_factory=metadata)
    public_key: dict[str, object] | Exception = field(default_factory=public_key)
    created: list[dict[str, str]] = field(default_factory=list)

    def create_key(self, *, policy: str, description: str) -> dict[str, object]:
        self.created.append({"policy": policy, "description": description})
        if isinstance(self.metadata, KmsError):
            raise self.metadata
        return self.metadata

    def get_public_key(self, key_arn: str) -> dict[str, object]:
        assert key_arn == KEY_ARN
        if isinstance(self.public_key, Exception):
            raise self.public_key
        return self.public_key


class FakeConnector(KmsConnector):
    """Hands out one session, and remembers what was asked for."""

    def __init__(self, session: KmsSession) -> None:
        super().__init__(no_connection)
        self._session = session
        self.opened: list[tuple[str, Credentials]] = []

    def open(self, region: str, credentials: Credentials) -> KmsSession:
        self.opened.append((region, credentials))
        return self._session


def no_connection(*_: object, **__: object) -> NoReturn:
    raise AssertionError("nothing may be connected to")

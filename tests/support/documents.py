"""Documents of enclaves that never ran, under a development root of its own."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from emulator.documents import attestation_document
from emulator.pki import NitroChain, NitroPki
from foobar_instance.attestation import Measurements, Verifier
from foobar_instance.trust import Trust
from foobar_shared.claims import KeyClaims
from foobar_shared.computation import compute
from foobar_shared.key_policy import key_policy, policy_sha256

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
MODULE_ID = "i-0123456789abcdef0-enc0123456789abcdef"
REGION = "us-east-1"
ACCOUNT = "123456789012"
ROLE = "aws-nitro-enclave-foobar-iam-role"
PCR0 = bytes(range(48))
OTHER_PCR0 = bytes(range(1, 49))
DEBUG_PCR0 = bytes(48)
KEY_ID = "11111111-2222-4333-8444-555555555555"
KEY_ARN = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{KEY_ID}"
PRIVATE_KEY = ec.derive_private_key(0x1234567, ec.SECP256R1())
PUBLIC_KEY = PRIVATE_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
POLICY = key_policy(region=REGION, account_id=ACCOUNT, role=ROLE, pcr0=PCR0)
CLAIMS = KeyClaims(KEY_ID, KEY_ARN, PUBLIC_KEY, REGION, policy_sha256(POLICY))
RESULT = compute([b"banana"])


@dataclass(frozen=True)
class Signer:
    """Signs documents as one enclave, under a root that is trusted with `trust`."""

    root: x509.Certificate
    chain: NitroChain

    @classmethod
    def create(cls, now: datetime = NOW) -> "Signer":
        pki = NitroPki.create(now=now)
        return cls(pki.root, pki.issue(MODULE_ID, now=now))

    def __call__(
        self,
        user_data: bytes | None = None,
        *,
        nonce: bytes | None = None,
        pcr0: bytes = PCR0,
        timestamp: datetime = NOW,
    ) -> bytes:
        pcrs = {index: bytes([index]) * 48 for index in range(16)} | {0: pcr0}
        return attestation_document(
            self.chain,
            module_id=MODULE_ID,
            pcrs=pcrs,
            timestamp=timestamp,
            user_data=user_data,
            nonce=nonce,
        )

    def key(self, *, timestamp: datetime = NOW, **changes: object) -> bytes:
        """The attestation of a key whose claims differ in `changes`."""
        claims = replace(CLAIMS, **changes)  # type: ignore[arg-type]
        return self(claims.encode(), timestamp=timestamp)

    def trust(self, pcr0: bytes | None = PCR0, *, allow_debug: bool = False) -> Trust:
        measurements = None if pcr0 is None else Measurements({0: pcr0})
        return Trust(Verifier(self.root), measurements, allow_debug)

    @property
    def root_pem(self) -> bytes:
        return self.root.public_bytes(Encoding.PEM)

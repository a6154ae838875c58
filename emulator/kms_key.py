"""A KMS key, and what KMS says about it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from emulator.kms_fault import KmsFault
from foobar_shared.encoding import to_base64

KEY_AGREEMENT: Final = "KEY_AGREEMENT"
SIGN_VERIFY: Final = "SIGN_VERIFY"
CURVES: Final = {
    "ECC_NIST_P256": ec.SECP256R1(),
    "ECC_NIST_P384": ec.SECP384R1(),
    "ECC_NIST_P521": ec.SECP521R1(),
}
_SIGNATURES: Final = {
    "ECC_NIST_P256": "ECDSA_SHA_256",
    "ECC_NIST_P384": "ECDSA_SHA_384",
    "ECC_NIST_P521": "ECDSA_SHA_512",
}


@dataclass(frozen=True, slots=True)
class KmsKey:
    """One key at one time; `state` is KMS's KeyState, `policy` the text as it was given."""

    key_id: str
    arn: str
    spec: str
    usage: str
    private_key: ec.EllipticCurvePrivateKey
    policy: str
    description: str
    created: datetime
    state: str = "Enabled"
    deletion: datetime | None = None

    def metadata(self) -> dict[str, object]:
        """Return KMS's KeyMetadata."""
        deletion = {"DeletionDate": self.deletion.timestamp()} if self.deletion else {}
        return {
            "AWSAccountId": self.arn.split(":")[4],
            "KeyId": self.key_id,
            "Arn": self.arn,
            "CreationDate": self.created.timestamp(),
            "Enabled": self.state == "Enabled",
            "Description": self.description,
            "KeyUsage": self.usage,
            "KeyState": self.state,
            "Origin": "AWS_KMS",
            "KeyManager": "CUSTOMER",
            "CustomerMasterKeySpec": self.spec,
            "KeySpec": self.spec,
            "MultiRegion": False,
            **self._algorithms(),
            **deletion,
        }

    def public_key(self) -> dict[str, object]:
        """Return the members of GetPublicKey's answer."""
        spki = self.private_key.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        return {
            "KeyId": self.arn,
            "PublicKey": to_base64(spki),
            "CustomerMasterKeySpec": self.spec,
            "KeySpec": self.spec,
            "KeyUsage": self.usage,
            **self._algorithms(),
        }

    def require_enabled(self) -> None:
        """Raise KmsFault where the key is disabled or pending deletion."""
        self.require_not_pending()
        if self.state != "Enabled":
            raise KmsFault("DisabledException", f"{self.arn} is disabled.")

    def require_not_pending(self) -> None:
        """Raise KmsFault where the key is pending deletion."""
        if self.state == "PendingDeletion":
            raise KmsFault("KMSInvalidStateException", f"{self.arn} is pending deletion.")

    def _algorithms(self) -> dict[str, object]:
        if self.usage == KEY_AGREEMENT:
            return {"KeyAgreementAlgorithms": ["ECDH"]}
        return {"SigningAlgorithms": [_SIGNATURES[self.spec]]}

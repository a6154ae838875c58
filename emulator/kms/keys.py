"""Key specs and usages: which go together, and what KMS says about a key of each."""

from __future__ import annotations

from typing import Final

from emulator.kms.errors import KmsError, unsupported, validation_error
from emulator.kms.fields import Fields
from emulator.kms.store import KeyRecord

KEY_AGREEMENT: Final = "KEY_AGREEMENT"
ECDH: Final = "ECDH"

_ENCRYPT: Final = "ENCRYPT_DECRYPT"
_SIGN: Final = "SIGN_VERIFY"
_USAGES: Final = {
    "SYMMETRIC_DEFAULT": {_ENCRYPT},
    "RSA_2048": {_ENCRYPT, _SIGN},
    "RSA_3072": {_ENCRYPT, _SIGN},
    "RSA_4096": {_ENCRYPT, _SIGN},
    "ECC_NIST_P256": {_SIGN, KEY_AGREEMENT},
    "ECC_NIST_P384": {_SIGN, KEY_AGREEMENT},
    "ECC_NIST_P521": {_SIGN, KEY_AGREEMENT},
    "ECC_SECG_P256K1": {_SIGN},
}
_ALL_USAGES: Final = {
    _ENCRYPT, _SIGN, KEY_AGREEMENT, "GENERATE_VERIFY_MAC", "ENCAPSULATE_DECAPSULATE",
}  # fmt: skip
_ALGORITHMS_OF: Final = {
    _ENCRYPT: "EncryptionAlgorithms",
    _SIGN: "SigningAlgorithms",
    KEY_AGREEMENT: "KeyAgreementAlgorithms",
}


def spec_and_usage(fields: Fields) -> tuple[str, str]:
    """KeySpec and KeyUsage of a CreateKey request.

    Raises:
        KmsError: they are unknown, do not go together, or are not offered here.
    """
    spec_member = "CustomerMasterKeySpec" if fields.has("CustomerMasterKeySpec") else "KeySpec"
    if spec_member != "KeySpec" and fields.has("KeySpec"):
        raise validation_error("You cannot specify KeySpec and CustomerMasterKeySpec together.")
    spec = fields.optional_text(spec_member, maximum=64) or "SYMMETRIC_DEFAULT"
    if spec not in _USAGES:
        raise unsupported(f"KeySpec {spec[:64]}")
    if not fields.has("KeyUsage") and spec != "SYMMETRIC_DEFAULT":
        raise validation_error(
            "You must specify a KeyUsage value for all KMS keys except for symmetric encryption "
            "keys."
        )
    usage = fields.choice("KeyUsage", _ALL_USAGES) if fields.has("KeyUsage") else _ENCRYPT
    if usage not in _USAGES[spec]:
        raise validation_error(f"KeyUsage {usage} is not compatible with KeySpec {spec}")
    return spec, usage


def check_origin(fields: Fields) -> None:
    """Refuse key material that KMS does not make itself, and key stores of one's own."""
    origin = fields.optional_text("Origin", maximum=64) or "AWS_KMS"
    if origin != "AWS_KMS" or fields.has("CustomKeyStoreId") or fields.has("XksKeyId"):
        raise unsupported("key material from outside of KMS")


def check_enabled(key: KeyRecord) -> None:
    """Refuse to use a key that is disabled or about to be deleted (key state table of KMS)."""
    if key.state == "PendingDeletion":
        raise KmsError("KMSInvalidStateException", f"{key.arn} is pending deletion.")
    if key.state != "Enabled":
        raise KmsError("DisabledException", f"{key.arn} is disabled.")


def check_key_agreement(key: KeyRecord) -> None:
    """Refuse a key that was not made for key agreement."""
    if key.usage != KEY_AGREEMENT:
        raise KmsError(
            "InvalidKeyUsageException",
            f"{key.arn} key usage is {key.usage} which is not valid for DeriveSharedSecret.",
        )


def with_algorithms(members: dict[str, object]) -> dict[str, object]:
    """KeyMetadata, or an answer of GetPublicKey, with the algorithms that its usage has.

    moto knows no key agreement, names algorithms of other usages, and leaves members null.
    """
    usage = str(members["KeyUsage"])
    others = {name for owner, name in _ALGORITHMS_OF.items() if owner != usage}
    kept = {
        name: value for name, value in members.items() if name not in others and value is not None
    }
    return kept | ({"KeyAgreementAlgorithms": [ECDH]} if usage == KEY_AGREEMENT else {})

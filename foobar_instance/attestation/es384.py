"""The one place where an ES384 signature is checked: ECDSA on P-384 with SHA-384 (RFC 9053).

By `cryptography`, and from a verifier's second document on by AWS-LC, where the optional package
`awscrt` is installed. Both take the same signatures; AWS-LC takes a fraction of the time, and for a
single document importing it would cost more than it saves.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Final, Protocol

from cryptography.exceptions import InvalidSignature as BadSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from foobar_instance.attestation._rules import SIGNATURE_BYTES

if TYPE_CHECKING:
    from awscrt.crypto import EC

_HALF: Final = SIGNATURE_BYTES // 2


class Es384Key(Protocol):
    """A public key on P-384."""

    def verify(self, signed: bytes, signature: bytes) -> bool:
        """Whether `signature` (96 bytes: r and s) is this key's over `signed`.

        Both of (r, s) and (r, n - s) are valid signatures, and genuine documents have either: a
        document's own hash identifies nothing.
        """
        ...

    def verify_der(self, signed: bytes, signature: bytes) -> bool:
        """The same of a signature as certificates have it: r and s in DER (RFC 3279 2.2.3)."""
        ...

    def for_many(self) -> Es384Key:
        """The same key in the form that verifies fastest, once that is loaded."""
        ...


@dataclass(frozen=True, slots=True)
class CryptographyKey:
    """A key that `cryptography` verifies with."""

    key: ec.EllipticCurvePublicKey

    def verify(self, signed: bytes, signature: bytes) -> bool:
        """See `Es384Key`."""
        return self.verify_der(signed, _der(signature))

    def verify_der(self, signed: bytes, signature: bytes) -> bool:
        """See `Es384Key`."""
        try:
            self.key.verify(signature, signed, ec.ECDSA(SHA384()))
        except BadSignature:
            return False
        return True

    def for_many(self) -> Es384Key:
        """An `AwsLcKey` where `awscrt` is installed."""
        if _aws_lc() is None:
            return self
        return quick_key(self.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


@dataclass(frozen=True, slots=True)
class AwsLcKey:
    """A key that AWS-LC verifies with."""

    key: EC

    def verify(self, signed: bytes, signature: bytes) -> bool:
        """See `Es384Key`."""
        return self.verify_der(signed, _der(signature))

    def verify_der(self, signed: bytes, signature: bytes) -> bool:
        """See `Es384Key`."""
        return bool(self.key.verify(hashlib.sha384(signed).digest(), signature))

    def for_many(self) -> Es384Key:
        """Itself."""
        return self


def quick_key(spki: bytes) -> Es384Key:
    """The P-384 key of a DER SubjectPublicKeyInfo, in the form that verifies fastest.

    Raises:
        Exception: the library's own, if it is no point on the curve.
    """
    crypto = _aws_lc()
    if crypto is not None:
        return AwsLcKey(crypto.EC.new_key_from_der_data(spki))
    key = load_der_public_key(spki)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise TypeError(type(key))
    return CryptographyKey(key)


def _der(signature: bytes) -> bytes:
    r, s = (int.from_bytes(half, "big") for half in (signature[:_HALF], signature[_HALF:]))
    return encode_dss_signature(r, s)


@functools.cache
def _aws_lc() -> ModuleType | None:
    try:
        from awscrt import crypto
    except ImportError:
        return None
    # Releases of before elliptic curves were added are no use here.
    return crypto if hasattr(crypto, "EC") else None

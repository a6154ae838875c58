"""Checks an enclave image's signature section, as aws-nitro-enclaves-image-format specifies it.

The section is a CBOR array of {signing_certificate: PEM, signature: COSE_Sign1}. Nitro looks at the
first alone, whose payload is {register_index: 0, register_value: PCR0}. AWS's encoder writes byte
strings within these maps as arrays of numbers; real byte strings are taken too.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from io import BytesIO
from typing import Any, Final

import cbor2
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from foobar_instance.errors import ImageError

MAX_SIGNATURE: Final = 32768  # SIGNATURE_MAX_SIZE of the specification

_MAX_DEPTH: Final = 4
_COSE_SIGN1_TAG: Final = 18
# COSE's number of the algorithm (RFC 9053 table 1) with the curve that AWS's tool uses it with.
_ALGORITHMS: Final[Mapping[int, tuple[str, hashes.HashAlgorithm]]] = {
    -7: ("secp256r1", hashes.SHA256()),
    -35: ("secp384r1", hashes.SHA384()),
    -36: ("secp521r1", hashes.SHA512()),
}


def verified_signer(section: bytes, pcr0: bytes) -> x509.Certificate:
    """Return the certificate whose key has signed `pcr0`, whether or not it is valid today.

    Raises:
        ImageError: the section is malformed, or the signature is not the certificate's over `pcr0`.
    """
    try:
        first = _decode(section)[0]
        certificate = x509.load_pem_x509_certificate(_octets(first["signing_certificate"]))
        key = certificate.public_key()
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc  # the year 0
    except Exception as error:  # the libraries do not bound what they raise
        raise ImageError("its signature section holds no certificate") from error
    try:
        payload = _verified_payload(_decode(_octets(first["signature"])), key)
        signed = _decode(payload)
        index, value = signed["register_index"], _octets(signed["register_value"])
    except InvalidSignature as error:
        raise ImageError("its signature is not the signing certificate's") from error
    except Exception as error:
        raise ImageError("its signature is no COSE_Sign1 of a PCR under ES256 to ES512") from error
    if type(index) is not int or index != 0:
        raise ImageError("its signature is not over PCR0")
    if not hmac.compare_digest(value, pcr0):
        raise ImageError("its signature is over another PCR0 than the measured one")
    return certificate


def _verified_payload(message: Any, key: object) -> bytes:  # noqa: ANN401 - hostile, unknown
    if isinstance(message, cbor2.CBORTag) and message.tag == _COSE_SIGN1_TAG:
        message = message.value
    protected, unprotected, payload, signature = message
    header = _decode(protected)
    curve, digest = _ALGORITHMS[header[1]]
    if len(header) != 1 or unprotected != {} or not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError
    half = (key.key_size + 7) // 8
    if key.curve.name != curve or len(signature) != 2 * half:
        raise ValueError
    numbers = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
    signed = cbor2.dumps(["Signature1", protected, b"", payload])  # RFC 9052 section 4.4
    key.verify(encode_dss_signature(*numbers), signed, ec.ECDSA(digest))
    return _octets(payload)


def _octets(value: object) -> bytes:
    """Return a byte string, or the one that an array of numbers spells."""
    if not isinstance(value, bytes | list | tuple):  # of a number, `bytes` makes that many zeros
        raise TypeError
    return bytes(value)


def _decode(data: bytes) -> Any:  # noqa: ANN401 - as the library
    """Return the one CBOR item in `data`; the callers catch whatever a hostile one provokes."""
    stream = BytesIO(data)
    value = cbor2.CBORDecoder(stream, max_depth=_MAX_DEPTH, allow_duplicate_keys=False).decode()
    if stream.read(1):
        raise ValueError
    return value

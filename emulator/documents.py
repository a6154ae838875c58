"""Attestation documents in the form in which AWS issues them today, and in other forms for tests.

COSE_Sign1 (RFC 9052 section 4.2) with ES384: an untagged array of protected header, empty
unprotected header, payload and a signature of 48 + 48 bytes. The payload is a map of indefinite
length with all nine keys; unset optional fields are null.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, NotRequired, TypedDict, Unpack

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from emulator.pki import NitroChain

ES384_PROTECTED: Final = bytes.fromhex("a1013822")
"""The protected header of every genuine document: {1: -35} (RFC 9053 table 1)."""

_COORDINATE_BYTES: Final = 48
_MAP_START: Final = b"\xbf"  # map of indefinite length (RFC 8949 section 3.2.2)
_BREAK: Final = b"\xff"


class DocumentContent(TypedDict):
    """What a document says; an optional field that is None is written as null."""

    module_id: str
    pcrs: Mapping[int, bytes]
    timestamp: datetime
    user_data: NotRequired[bytes | None]
    nonce: NotRequired[bytes | None]
    public_key: NotRequired[bytes | None]


def attestation_document(chain: NitroChain, **content: Unpack[DocumentContent]) -> bytes:
    """Return a signed document as the Nitro Secure Module returns it."""
    return sign_document(document_fields(chain, **content), chain.key)


def document_fields(chain: NitroChain, **content: Unpack[DocumentContent]) -> dict[str, object]:
    """Return the nine fields of a payload, in the order in which genuine documents have them."""
    return {
        "module_id": content["module_id"],
        "digest": "SHA384",
        "timestamp": int(content["timestamp"].timestamp() * 1000),
        "pcrs": dict(sorted(content["pcrs"].items())),
        "certificate": chain.certificate,
        "cabundle": list(chain.cabundle),
        "public_key": content.get("public_key"),
        "user_data": content.get("user_data"),
        "nonce": content.get("nonce"),
    }


def encode_payload(fields: Mapping[str, object], *, indefinite: bool = True) -> bytes:
    """Return the payload's CBOR: a map of indefinite length, or definite as until 2025."""
    if not indefinite:
        return cbor2.dumps(dict(fields))
    pairs = (cbor2.dumps(name) + cbor2.dumps(value) for name, value in fields.items())
    return _MAP_START + b"".join(pairs) + _BREAK


def sign_document(
    payload: Mapping[str, object] | bytes,
    key: ec.EllipticCurvePrivateKey,
    *,
    protected: bytes = ES384_PROTECTED,
    unprotected: object = None,
    tag: int | None = None,
) -> bytes:
    """Return a COSE_Sign1 message over fields, or over CBOR of any form.

    Args:
        payload: what is signed.
        key: a P-384 key.
        protected: the serialized protected header.
        unprotected: the unprotected header; None for an empty one.
        tag: a CBOR tag in front, such as 18; None for none.
    """
    body = payload if isinstance(payload, bytes) else encode_payload(payload)
    header = {} if unprotected is None else unprotected
    message: object = [protected, header, body, cose_signature(key, protected, body)]
    return cbor2.dumps(message if tag is None else cbor2.CBORTag(tag, message))


def cose_signature(key: ec.EllipticCurvePrivateKey, protected: bytes, payload: bytes) -> bytes:
    """Return the ES384 signature of a Sig_structure (RFC 9052 section 4.4): r and s."""
    to_be_signed = cbor2.dumps(["Signature1", protected, b"", payload])
    algorithm = ec.ECDSA(SHA384(), deterministic_signing=True)  # RFC 6979
    r, s = decode_dss_signature(key.sign(to_be_signed, algorithm))
    return r.to_bytes(_COORDINATE_BYTES, "big") + s.to_bytes(_COORDINATE_BYTES, "big")

"""COSE_Sign1: strict structure before anything is trusted; the signature is checked in `es384`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Final

import cbor2

from foobar_instance.attestation._rules import (
    CBOR,
    COSE_ALGORITHM,
    COSE_ARRAY,
    COSE_PAYLOAD,
    COSE_SIGNATURE,
    COSE_TAG,
    COSE_UNPROTECTED,
    MAX_DEPTH,
    MAX_DOCUMENT,
    MAX_PAYLOAD,
    SIGNATURE_BYTES,
    SIZE,
    Rule,
)

_TAG: Final = 18  # RFC 9052 section 2
_ES384_PROTECTED: Final = bytes.fromhex("a1013822")  # {1: -35}, RFC 9053 table 1


@dataclass(frozen=True, slots=True)
class SignedMessage:
    """A COSE_Sign1 message under ES384, without unprotected headers.

    Attributes:
        payload: a serialized CBOR map, as received.
        signature: r and s, 48 bytes each, big-endian.
    """

    payload: bytes
    signature: bytes

    def to_be_signed(self) -> bytes:
        """The Sig_structure of RFC 9052 section 4.4 with empty external data, as CBOR."""
        return cbor2.dumps(["Signature1", _ES384_PROTECTED, b"", self.payload])


class _InertTags(Mapping[int, Callable[[object, bool], object]]):
    """Has cbor2 leave every tag as a `CBORTag`.

    By itself it drops some tags (55799, 28), so that forms pass that no document has, and makes
    decimals, dates or parsed mail of others: work that a document's sender should not choose.
    """

    def __getitem__(self, tag: int) -> Callable[[object, bool], object]:
        return lambda value, _: cbor2.CBORTag(tag, value)

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 0


def decode_cbor(data: bytes, rule: Rule) -> object:
    """The one CBOR item in `data`: no key twice, tags as they are, bounded depth, nothing after.

    Raises:
        AttestationError: of `rule`.
    """
    stream = BytesIO(data)
    try:
        value: object = cbor2.CBORDecoder(
            stream,
            max_depth=MAX_DEPTH,
            allow_duplicate_keys=False,
            semantic_decoders=_InertTags(),
        ).decode()
    except Exception as error:  # cbor2 lets a hostile item's own errors through
        raise rule.broken(f"it does not decode ({type(error).__name__})") from error
    if stream.read(1):
        raise rule.broken("bytes follow it")
    return value


def decode_message(document: bytes) -> SignedMessage:
    """The COSE_Sign1 message of a document whose parts have the demanded form.

    Raises:
        MalformedAttestation: a rule of sections 3.1 or 3.2 of AWS's process is broken.
    """
    if not 0 < len(document) <= MAX_DOCUMENT:
        raise SIZE.broken(f"this one has {len(document)}")
    item = decode_cbor(document, CBOR)
    if isinstance(item, cbor2.CBORTag):
        if item.tag != _TAG:
            raise COSE_TAG.broken(f"this one has tag {item.tag}")
        item = item.value
    if not isinstance(item, list | tuple) or len(item) != 4:
        raise COSE_ARRAY.broken(f"this one is {kind(item)}")
    protected, unprotected, payload, signature = item
    if protected != _ES384_PROTECTED:
        raise COSE_ALGORITHM.broken(f"it is {kind(protected)}")
    if not isinstance(unprotected, Mapping) or unprotected:
        raise COSE_UNPROTECTED.broken(f"it is {kind(unprotected)}")
    if not isinstance(payload, bytes) or not 0 < len(payload) <= MAX_PAYLOAD:
        raise COSE_PAYLOAD.broken(f"it is {kind(payload)}")
    if not isinstance(signature, bytes) or len(signature) != SIGNATURE_BYTES:
        raise COSE_SIGNATURE.broken(f"it is {kind(signature)}")
    return SignedMessage(payload, signature)


def kind(value: object) -> str:
    """What a hostile value is, without its content."""
    if isinstance(value, bytes):
        return f"a byte string of {len(value)} bytes"
    if isinstance(value, list | tuple | Mapping):
        return f"a {'map' if isinstance(value, Mapping) else 'list'} of {len(value)}"
    return "null" if value is None else f"of type {type(value).__name__}"

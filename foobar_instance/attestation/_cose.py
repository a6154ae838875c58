"""COSE_Sign1: strict form first, by hand; then pycose's message with `cryptography`'s signature."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from typing import Final

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from pycose.messages.sign1message import Sign1Message

from foobar_instance.attestation import _rules as rules
from foobar_instance.attestation._rules import Rule, kind

_ES384_PROTECTED: Final = bytes.fromhex("a1013822")  # {1: -35}, RFC 9053 table 1
_HALF: Final = rules.SIGNATURE_BYTES // 2


class Es384Message(Sign1Message):
    """A COSE_Sign1 message under ES384, as `decode_message` returns it.

    Attributes:
        payload: a serialized CBOR map, as received.
        signature: r and s, 48 bytes each, big-endian.
    """

    payload: bytes
    signature: bytes

    # pycose's own takes the key from `self.key`, in a form of its own.
    def verify_signature(self, key: ec.EllipticCurvePublicKey) -> bool:  # type: ignore[override]
        """Return whether the signature is by `key`, a P-384 key, over this payload.

        `cryptography` checks it in place of pycose's `ecdsa`. Both (r, s) and (r, n - s) verify,
        and genuine documents have either: a document's hash does not identify it.
        """
        r, s = self.signature[:_HALF], self.signature[_HALF:]
        der = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
        try:
            key.verify(der, self._create_sig_structure(), ec.ECDSA(SHA384()))
        except InvalidSignature:
            return False
        return True


def decode_message(document: bytes) -> Es384Message:
    """Return the COSE_Sign1 message of a document whose parts have the demanded form.

    Raises:
        MalformedAttestation: a rule of sections 3.1 or 3.2 of AWS's process is broken.
    """
    if not 0 < len(document) <= rules.MAX_DOCUMENT:
        raise rules.SIZE.broken(f"this one has {len(document)}")
    item = decode_cbor(document, rules.CBOR)
    if isinstance(item, cbor2.CBORTag):
        if item.tag != Es384Message.cbor_tag:
            raise rules.COSE_TAG.broken(f"this one has tag {item.tag}")
        item = item.value
    if not isinstance(item, list | tuple) or len(item) != 4:
        raise rules.COSE_ARRAY.broken(f"this one is {kind(item)}")
    protected, unprotected, payload, signature = item
    if protected != _ES384_PROTECTED:
        raise rules.COSE_ALGORITHM.broken(f"it is {kind(protected)}")
    if not isinstance(unprotected, Mapping) or unprotected:
        raise rules.COSE_UNPROTECTED.broken(f"it is {kind(unprotected)}")
    if not isinstance(payload, bytes) or not 0 < len(payload) <= rules.MAX_PAYLOAD:
        raise rules.COSE_PAYLOAD.broken(f"it is {kind(payload)}")
    if not isinstance(signature, bytes) or len(signature) != rules.SIGNATURE_BYTES:
        raise rules.COSE_SIGNATURE.broken(f"it is {kind(signature)}")
    # pycose's own decoder takes neither an untagged message nor what cbor2 6 returns. The headers
    # are constants here: a sender chooses nothing that pycose interprets.
    message = Es384Message(phdr_encoded=_ES384_PROTECTED, payload=payload)
    message.signature = signature
    return message


def has_one_spelling(document: bytes) -> bool:
    """Return whether a document's frame is the one that Nitro writes.

    That is: no tag, definite lengths, the shortest heads. The frame is not signed, so that a
    document says the same in any other. A signature with n - s in place of s is not noticed.

    Raises:
        MalformedAttestation: the document is no COSE_Sign1 message of the demanded form.
    """
    message = decode_message(document)
    frame = [_ES384_PROTECTED, {}, message.payload, message.signature]
    return cbor2.dumps(frame) == document


def decode_cbor(data: bytes, rule: Rule) -> object:
    """Return the one CBOR item in `data`: no key twice, tags as they are, bounded depth.

    Raises:
        AttestationError: of `rule`; also where bytes follow the item.
    """
    stream = BytesIO(data)
    try:
        value: object = cbor2.CBORDecoder(
            stream,
            max_depth=rules.MAX_DEPTH,
            allow_duplicate_keys=False,
            semantic_decoders=_InertTags(),
        ).decode()
    except Exception as error:  # cbor2 lets a hostile item's own errors through
        raise rule.broken(f"it does not decode ({type(error).__name__})") from error
    if stream.read(1):
        raise rule.broken("bytes follow it")
    return value


class _InertTags(Mapping[int, Callable[[object, bool], object]]):
    """Make cbor2 leave every tag as a `CBORTag`.

    By itself it drops some tags (55799, 28), so that forms pass that no document has. Others it
    turns into decimals, dates or parsed mail: work that a sender should not choose.
    """

    def __getitem__(self, tag: int) -> Callable[[object, bool], object]:
        return lambda value, _: cbor2.CBORTag(tag, value)

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 0

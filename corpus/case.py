"""What one case of the corpus is, and what its flags mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from corpus.material import NOW

Verdict = Literal["valid", "invalid", "acceptable"]

FLAGS: Final = {
    "AlgorithmConfusion": "The document or the key claims another algorithm than ES384.",
    "AlteredAfterSigning": "Signed content is not what the signer signed.",
    "DebugMode": "PCR0 is zero or missing, so the enclave's code is not measured.",
    "DuplicateKey": "A CBOR map has a key twice; decoders differ in which value they keep.",
    "Forgery": "Somebody without Amazon's keys can make such a document.",
    "GenuineForm": "Genuine documents look like this.",
    "HighS": "s is above n/2, as in half of all genuine documents.",
    "LiteralText": "AWS's text, read to the letter, refuses what genuine documents contain.",
    "MissingPcr": "An expected PCR is not in the document.",
    "NonCanonical": "Another encoding or order than genuine documents have, of the same meaning.",
    "ResourceUse": "Decoding must not take unbounded memory or stack.",
    "StricterThanAws": "AWS's process does not demand this refusal; some verifiers do.",
    "TrailingBytes": "Bytes follow the end of an item.",
    "WrongClock": "A verifier that judges by another time than the given one is mistaken here.",
}


@dataclass(frozen=True, slots=True)
class Case:
    """One document, and what a verifier should make of it.

    Attributes:
        rule: the rule that it breaks or, if it is valid or acceptable, that it touches.
        name: unique within the rule.
        verdict: `acceptable` documents may be accepted or refused.
        source: where the rule is from, if that is not the rule's usual source.
        time: when the certificates must be valid.
        pcrs: the expected PCRs; None expects nothing.
        nonce: the expected nonce; None expects nothing.
    """

    rule: str
    name: str
    comment: str
    document: bytes
    verdict: Verdict = "invalid"
    flags: tuple[str, ...] = ()
    source: str | None = None
    time: datetime = NOW
    pcrs: Mapping[int, bytes] | None = None
    nonce: bytes | None = None


def each(
    rule: str, name: str, comment: str, documents: Mapping[str, bytes], **more: object
) -> Iterator[Case]:
    """Yield a case for each document; its own name stands for `{}` in `name` and `comment`."""
    for own, document in documents.items():
        words = comment.format(own)
        yield Case(rule, name.format(own), words, document, **more)  # type: ignore[arg-type]

"""What this service computes: how many words the messages hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from foobar_shared.errors import ComputationError, MessageError

__all__ = ["NAME", "SUMMARY", "ComputationError", "Result", "compute"]

NAME: Final = "foobar/word-count/1"
SUMMARY: Final = "count their words"

_MAX_WORDS: Final = 2**32


@dataclass(frozen=True, slots=True)
class Result:
    """How many words all messages hold together."""

    words: int

    def __str__(self) -> str:
        """Return the line that `decrypt` prints."""
        return f"Words: {self.words}"

    def fields(self) -> dict[str, object]:
        """Return what the enclave attests."""
        return {"words": self.words}

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> Result:
        """Return the result whose `fields` these are, and no others.

        Raises:
            MessageError: other fields, or a value that no result has.
        """
        words = fields.get("words")
        if len(fields) != 1 or type(words) is not int or not 0 <= words < _MAX_WORDS:
            raise MessageError("not a number of words")
        return cls(words)


def compute(plaintexts: Sequence[bytes]) -> Result:
    """Return the number of words: runs of bytes between ASCII white space."""
    return Result(sum(len(plaintext.split()) for plaintext in plaintexts))

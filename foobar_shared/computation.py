"""What this service computes: how many letters `a` the messages hold. The file to replace.

Rule one: the parent chooses which messages are in a request. It may ask as often as it likes, for
any subset, and may add messages of its own. A result must therefore be harmless for every set of
messages that the parent can put together. "The mean of at least three salaries" is not: two
requests that differ in one message give away that salary. A refusal is a result too.

The enclave opens every message of a request before it calls `compute`, and attests `NAME` and the
fields of the result. docs/your-own-service.md walks through a replacement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from foobar_shared.errors import ComputationError, MessageError

__all__ = ["NAME", "SUMMARY", "ComputationError", "Result", "compute"]

NAME: Final = "foobar/count-a/1"
"""Name and version of what is computed. A change of meaning takes a new number."""

SUMMARY: Final = "count their letters 'a'"
"""Completes "Have the enclave decrypt messages and ..."."""

_MAX_COUNT: Final = 2**32


@dataclass(frozen=True, slots=True)
class Result:
    """How many letters `a` all messages hold together."""

    count: int

    def __str__(self) -> str:
        """Return the line that `decrypt` prints."""
        return f"Count 'a': {self.count}"

    def fields(self) -> dict[str, object]:
        """Return what the enclave attests: JSON, at most 512 bytes encoded.

        The names `type` and `request` are taken.
        """
        return {"count": self.count}

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> Result:
        """Return the result whose `fields` these are, and no others.

        Raises:
            MessageError: other fields, or a value that no result has.
        """
        count = fields.get("count")
        if len(fields) != 1 or type(count) is not int or not 0 <= count < _MAX_COUNT:
            raise MessageError("not a count")
        return cls(count)


def compute(plaintexts: Sequence[bytes]) -> Result:
    """Return the result for one or more plaintexts.

    Must depend on nothing else: no clock, no randomness, no earlier request.

    Raises:
        ComputationError: a refusal. This computation has none.
    """
    return Result(sum(plaintext.count(b"a") for plaintext in plaintexts))

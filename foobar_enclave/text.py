"""Text from outside, made fit for one line of an error message."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_MAX_LENGTH: Final = 500


def one_line(text: object, *, secrets: Iterable[str] = ()) -> str:
    """`text` in printable ASCII, at most 500 characters, with each of `secrets` blotted out."""
    shown = str(text)
    for secret in secrets:
        if secret:
            shown = shown.replace(secret, "[secret]")
    shown = "".join(c if c.isascii() and c.isprintable() else "?" for c in shown)
    return shown if len(shown) <= _MAX_LENGTH else shown[: _MAX_LENGTH - 3] + "..."

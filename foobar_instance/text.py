"""Text from outside, made fit for one line on a terminal."""

from __future__ import annotations

from typing import Final

_MAX: Final = 500


def one_line(text: object) -> str:
    """`text` without control characters and line breaks, at most 500 characters."""
    shown = "".join(c if c.isprintable() else " " for c in str(text))
    shown = " ".join(shown.split())
    return shown if len(shown) <= _MAX else shown[: _MAX - 3] + "..."


def visible(text: str) -> str:
    """`text` of any length on one line, with whatever a terminal would act on escaped.

    Unlike `one_line` it loses nothing: a path with a line break in it can still be recognised.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )

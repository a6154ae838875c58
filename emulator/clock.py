"""The time, as a value that is passed in."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

Clock: TypeAlias = Callable[[], datetime]
"""Gives an aware datetime."""


def utc_now() -> datetime:
    """Return the wall clock's time, in UTC."""
    return datetime.now(UTC)

"""Settings and fixtures of the whole suite. FOOBAR_TESTS=all leaves out no case of any test."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings

T = TypeVar("T")

pytest_plugins = ["emulator.pytest_plugin"]

# No test asserts on time: a machine that is busy with something else must not fail one.
settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any-machine")

# A shell has its background jobs ignore Ctrl-C, and the programs under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def stride(cases: Sequence[T], step: int) -> Sequence[T]:
    """Return every `step`-th of the cases and the last; all of them where FOOBAR_TESTS is `all`."""
    if os.environ.get("FOOBAR_TESTS") == "all":
        return cases
    return [*cases[:-1:step], *cases[-1:]]


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name byte strings by their argument: every process must see the same name of a test."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture
def socket_folder() -> Iterator[Path]:
    """A folder with a path short enough for a unix socket: pytest's own are too deep."""
    with tempfile.TemporaryDirectory(prefix="fb") as folder:
        yield Path(folder)

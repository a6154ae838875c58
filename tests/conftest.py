from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["emulator.pytest_plugin"]

# No test asserts on time: a machine that is busy with something else must not fail one.
settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any-machine")


@pytest.fixture
def socket_folder() -> Iterator[Path]:
    """A folder with a path short enough for a unix socket: pytest's own are too deep."""
    with tempfile.TemporaryDirectory(prefix="fb") as folder:
        yield Path(folder)

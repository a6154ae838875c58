from __future__ import annotations

from datetime import UTC, datetime

import pytest

from emulator.pki import NitroPki


@pytest.fixture(scope="session")
def pki() -> NitroPki:
    return NitroPki.create(now=datetime.now(UTC))

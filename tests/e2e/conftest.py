"""Short names for the emulator's fixtures."""

import pytest

from emulator import Emulator
from emulator.pytest_plugin import InstanceCli
from foobar_shared.computation import compute


@pytest.fixture(scope="session")
def emulator(nitro_emulator: Emulator) -> Emulator:
    return nitro_emulator


@pytest.fixture
def cli(instance_cli: InstanceCli) -> InstanceCli:
    return instance_cli


@pytest.fixture
def keyed(instance_cli_with_key: InstanceCli) -> InstanceCli:
    return instance_cli_with_key


def printed(*plaintexts: bytes) -> bytes:
    """What `decrypt` prints about these messages together."""
    return f"{compute(plaintexts)}\n".encode()

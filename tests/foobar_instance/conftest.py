"""What most tests of the command line's parts start from."""

import pytest

from foobar_instance.progress import Silent
from tests.foobar_instance.documents import Signer


class Told(Silent):
    """Keeps what a command tells."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.warnings: list[str] = []

    def step(self, text: str) -> None:
        self.steps.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture(scope="session")
def sign() -> Signer:
    return Signer.create()

"""What most tests of the command line's parts start from."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.foobar_instance.documents import Signer


class Told:
    """Keeps what a command tells."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.warnings: list[str] = []

    def step(self, text: str) -> None:
        self.steps.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        assert text
        yield


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture(scope="session")
def sign() -> Signer:
    return Signer.create()

"""What most tests of the command line's parts start from."""

import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from foobar_instance.cli import run
from foobar_instance.terminal import Progress
from tests.support.documents import Signer


class Told(Progress):
    """Keeps what a command tells."""

    def __init__(self) -> None:
        super().__init__(stream=io.StringIO())
        self.steps: list[str] = []
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def step(self, text: str) -> None:
        self.steps.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture(scope="session")
def sign() -> Signer:
    return Signer.create()


@dataclass(frozen=True)
class Ran:
    code: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The one line that says what was wrong, the last; nothing has been printed."""
        lines = self.stderr.splitlines()
        assert self.stdout == ""
        assert [line.startswith("error: ") for line in lines].count(True) == 1
        assert lines[-1].startswith("error: ")
        assert "Traceback" not in self.stderr
        return lines[-1].removeprefix("error: ")

    @property
    def warnings(self) -> list[str]:
        return [line for line in self.stderr.splitlines() if line.startswith("warning: ")]


Run = Callable[..., Ran]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sign: Signer) -> Path:
    """The current directory: a key's attestation and the root that it is under."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("FOOBAR_")]:
        monkeypatch.delenv(name)
    (tmp_path / "root.pem").write_bytes(sign.root_pem)
    (tmp_path / "attestation.out").write_bytes(sign.key())
    return tmp_path


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """What a command line run in this process does to the loggers is undone."""
    loggers = [logging.getLogger(name) for name in ("foobar_instance", "proxy")]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    yield
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture
def shell(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs a command line in `directory`."""

    def shell(*arguments: str, stdin: bytes = b"", **environment: str) -> Ran:
        assert Path.cwd() == directory
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            for name, value in environment.items():
                patch.setenv(name, value)
            code = run(arguments)
        return Ran(code, *capsys.readouterr())

    return shell

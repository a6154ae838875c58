"""Fixtures for tests of a service that starts from this one; docs/emulator.md shows their use."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from emulator.up import Emulator

_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class InstanceCli:
    """`foobar-instance`, pointed at an emulator, in a directory of its own."""

    emulator: Emulator
    directory: Path

    def __call__(
        self, *arguments: str, stdin: bytes | str = b"", **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command and return what became of it."""
        return subprocess.run(
            [sys.executable, "-m", "foobar_instance", *arguments],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            env=self.emulator.process_environment() | environment,
            cwd=self.directory,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )

    def done(self, *arguments: str, stdin: bytes | str = b"", **environment: str) -> bytes:
        """Return the standard output of a command that must succeed."""
        result = self(*arguments, stdin=stdin, **environment)
        assert result.returncode == 0, result.stderr.decode()  # noqa: S101
        return result.stdout

    def seal(self, plaintext: bytes | str) -> str:
        """Return `plaintext` encrypted to the key in `attestation`."""
        return self.done("encrypt", "--plaintext", "-", stdin=plaintext).decode().strip()

    def decrypt(self, message: str) -> str:
        """Return the line that `decrypt` prints about a sealed message."""
        return self.done("decrypt", "--ciphertext", "-", stdin=message).decode().strip()

    @property
    def attestation(self) -> Path:
        """Return where `create-key` saves a key's attestation, and the others look for it."""
        return self.directory / "attestation.out"


@pytest.fixture(scope="session")
def nitro_console(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file that all enclaves write their logs to."""
    return tmp_path_factory.mktemp("nitro") / "console"


@pytest.fixture(scope="session")
def nitro_emulator(nitro_console: Path) -> Iterator[Emulator]:
    """Run an emulator, one for all tests."""
    from emulator.up import Emulator

    # A unix socket's path has at most 107 bytes: pytest's own directories are too deep.
    with (
        tempfile.TemporaryDirectory(prefix="fe-") as directory,
        nitro_console.open("wb") as console,
        Emulator(Path(directory) / "emulator", console=console) as emulator,
    ):
        yield emulator


@pytest.fixture
def nitro_environment(nitro_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Point this process's environment at the emulator while a test runs."""
    environment = nitro_emulator.process_environment()
    for name in os.environ.keys() - environment.keys():
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment


@pytest.fixture(scope="session")
def key_attestation(nitro_emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the attestation of a key that the real `create-key` made, for all tests."""
    cli = InstanceCli(nitro_emulator, tmp_path_factory.mktemp("key"))
    cli.done("create-key")
    return cli.attestation.read_bytes()


@pytest.fixture
def instance_cli(nitro_emulator: Emulator, tmp_path: Path) -> InstanceCli:
    """Return the command line in an empty directory."""
    return InstanceCli(nitro_emulator, tmp_path)


@pytest.fixture
def instance_cli_with_key(instance_cli: InstanceCli, key_attestation: bytes) -> InstanceCli:
    """Return the command line in a directory with a key's attestation."""
    instance_cli.attestation.write_bytes(key_attestation)
    return instance_cli

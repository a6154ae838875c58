"""One emulated machine for all end-to-end tests, and the real command line as a subprocess."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from emulator import Emulator
from foobar_shared.encoding import from_base64

PROGRAM = Path(sys.executable).with_name("foobar-instance")
SECONDS = 60


@dataclass(frozen=True)
class Cli:
    """`foobar-instance` pointed at the emulator, in a folder of its own."""

    emulator: Emulator
    folder: Path

    def __call__(
        self, *arguments: str, stdin: bytes | str = b"", **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [PROGRAM, *arguments],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            env=self.emulator.process_environment() | environment,
            cwd=self.folder,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )

    def done(self, *arguments: str, stdin: bytes | str = b"", **environment: str) -> bytes:
        """Standard output of a command that must succeed."""
        result = self(*arguments, stdin=stdin, **environment)
        assert result.returncode == 0, result.stderr.decode()
        return result.stdout

    @property
    def attestation(self) -> Path:
        return self.folder / "attestation.out"


@dataclass(frozen=True)
class Machine:
    """The emulator, and everything its enclaves have written to their console."""

    emulator: Emulator
    console: Path


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    # A unix socket's path has at most 107 bytes: pytest's own folders are too deep.
    with tempfile.TemporaryDirectory(prefix="fe-") as folder:
        console = Path(folder) / "console"
        with (
            console.open("wb") as stream,
            pytest.MonkeyPatch.context() as patch,
            Emulator(Path(folder) / "emulator", console=stream) as emulator,
        ):
            patch.setenv("NO_PROXY", "localhost,127.0.0.1")
            yield Machine(emulator, console)


@pytest.fixture(scope="session")
def emulator(machine: Machine) -> Emulator:
    return machine.emulator


@pytest.fixture
def cli(emulator: Emulator, tmp_path: Path) -> Cli:
    return Cli(emulator, tmp_path)


@pytest.fixture(scope="session")
def key_document(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The attestation of a key made by the real commands."""
    cli = Cli(emulator, tmp_path_factory.mktemp("key"))
    cli.done("create-key")
    return cli.attestation.read_bytes()


@pytest.fixture
def keyed(cli: Cli, key_document: bytes) -> Cli:
    """The command line in a folder that has a key's attestation."""
    cli.attestation.write_bytes(key_document)
    return cli


def data_field(value: object) -> bytes:
    """The bytes of a base64 field of a JSON message."""
    assert isinstance(value, str)
    return from_base64(value)

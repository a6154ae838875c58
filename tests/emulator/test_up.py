from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import pytest

from emulator import Emulator
from emulator.errors import EnclaveFailedError, NotUpError, StateDirectoryError
from emulator.image_measurements import measure_enclave
from emulator.state import read_environment
from foobar_instance.attestation import Attestation, parse_attestation, verify_attestation
from foobar_instance.enclave_client import EnclaveClient
from foobar_shared.addresses import Address, parse_address
from foobar_shared.messages import GetAttestationRequest

SECONDS = 30.0
NONCE = bytes(range(32))


def short_directory() -> tempfile.TemporaryDirectory[str]:
    """A directory whose path leaves room for a socket's name (107 bytes in all)."""
    return tempfile.TemporaryDirectory(prefix="fe-")


@pytest.fixture
def emulator(nitro_emulator: Emulator) -> Iterator[Emulator]:
    yield nitro_emulator
    for name in ("further", "brief"):
        with contextlib.suppress(KeyError):
            nitro_emulator.stop_enclave(name)


def ask(address: Address, nonce: bytes | None = None) -> bytes:
    """An attestation document of the enclave at an address."""
    with EnclaveClient(address) as client:
        return client.ask(GetAttestationRequest(nonce))


def attest(address: Address, emulator: Emulator) -> Attestation:
    return verify_attestation(
        ask(address, NONCE),
        root=emulator.pki.root,
        at=datetime.now(UTC),
        nonce=NONCE,
        allow_debug=True,
    )


def test_the_real_enclave_answers_with_its_measurements(emulator: Emulator) -> None:
    address = parse_address(emulator.environment["FOOBAR_ENCLAVE"])
    attestation = attest(address, emulator)
    image = measure_enclave()
    assert [attestation.pcrs[index] for index in (0, 1, 2)] == [image.pcr0, image.pcr1, image.pcr2]
    assert attestation.pcrs[8] == bytes(48)
    assert attestation.module_id.startswith("i-0123456789abcdef0-enc")
    assert not attestation.is_debug
    saved = json.loads(Path(emulator.environment["FOOBAR_MEASUREMENTS"]).read_text())
    assert saved["Measurements"]["PCR0"] == image.pcr0.hex()


def test_further_enclaves_differ_in_what_was_asked_for(emulator: Emulator) -> None:
    debug = emulator.start_enclave("further", debug=True)
    attestation = attest(debug.address, emulator)
    assert attestation.is_debug
    assert [attestation.pcrs[index] for index in (0, 1, 2, 8)] == [bytes(48)] * 4
    assert attestation.pcrs[4] == emulator.enclave.pcrs[4]
    assert debug.measurements == emulator.enclave.measurements, "the image is the same"
    assert emulator.measurements_path("further").read_text() == (
        emulator.measurements_path().read_text()
    )


def test_an_enclave_can_have_a_clock_of_its_own(emulator: Emulator) -> None:
    ago = timedelta(minutes=10)
    late = emulator.start_enclave("further", clock=lambda: datetime.now(UTC) - ago)
    age = datetime.now(UTC) - attest(late.address, emulator).timestamp
    assert timedelta(minutes=9) < age < timedelta(minutes=11)


def test_a_name_is_used_once_and_fits_a_path(emulator: Emulator) -> None:
    with pytest.raises(EnclaveFailedError, match="is running"):
        emulator.start_enclave("enclave")
    with pytest.raises(StateDirectoryError):
        emulator.start_enclave("../x")


def test_an_enclave_ends_cleanly(emulator: Emulator) -> None:
    enclave = emulator.start_enclave("further")
    assert emulator.stop_enclave("further") == 0
    assert enclave.exit_code == 0
    assert emulator.start_enclave("further").exit_code is None, "the name is free again"


def test_an_enclave_that_ends_by_itself_is_noticed(emulator: Emulator) -> None:
    emulator.check()
    before = set(processes_with(str(emulator.directory)))
    brief = emulator.start_enclave("brief")
    (number,) = set(processes_with(str(emulator.directory))) - before
    os.kill(number, signal.SIGKILL)
    with pytest.raises(EnclaveFailedError, match=r"does not answer|ended with exit code -9"):
        brief.wait_until_ready()
    assert emulator.stop_enclave("brief") == -9


def test_every_file_is_private(emulator: Emulator) -> None:
    for path in emulator.directory.iterdir():
        assert path.is_socket() or path.stat().st_mode & 0o077 == 0, path
    text = b"".join(path.read_bytes() for path in emulator.directory.iterdir() if path.is_file())
    assert b"PRIVATE KEY" not in text


def is_up(directory: Path) -> bool:
    try:
        read_environment(directory)
    except NotUpError:
        return False
    return True


class Up:
    """`python -m emulator up` in a process of its own."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.process = subprocess.Popen(
            [sys.executable, "-m", "emulator", "up", "--directory", str(directory), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + SECONDS
        while not is_up(directory):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self, number: int) -> tuple[str, str]:
        self.process.send_signal(number)
        return self.process.communicate(timeout=SECONDS)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "emulator", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )


def processes_with(text: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


def test_up_env_and_sigterm_leave_nothing_behind() -> None:
    with short_directory() as parent, Up(directory := Path(parent) / "it's") as up:
        assert len(processes_with(str(directory))) == 2, "the emulator and its enclave"
        second = run("up", "--directory", str(directory))
        env = run("env", "--directory", str(directory))
        variables = variables_of_a_shell(directory)
        output, errors = up.end(signal.SIGTERM)
        after = run("env", "--directory", str(directory))
        assert processes_with(str(directory)) == []
        assert list(Path(parent).iterdir()) == []
    assert up.process.returncode == 0, errors
    assert (second.returncode, second.stdout) == (1, "")
    assert "already up" in second.stderr
    assert env.returncode == 0
    assert "unset AWS_PROFILE\n" in env.stdout
    assert variables["FOOBAR_ENCLAVE"] == f"unix:{directory}/enclave.sock"
    assert "AWS_PROFILE" not in variables
    assert "foobar-instance create-key" in output
    assert measure_enclave().pcr0.hex() in output
    assert (after.returncode, after.stdout) == (1, "")
    assert "no emulator is up" in after.stderr
    assert "Traceback" not in errors


def variables_of_a_shell(directory: Path) -> dict[str, str]:
    """What a shell that has read the output of `env` hands on to programs."""
    script = f'eval "$({shlex.quote(sys.executable)} -m emulator env --directory "$1")"\nenv -0'
    shell = subprocess.run(
        ["/bin/sh", "-c", script, "sh", str(directory)],
        capture_output=True,
        env={"AWS_PROFILE": "mine", "PATH": os.defpath, "HOME": "/"},
        check=True,
        timeout=SECONDS,
    )
    return dict(item.split("=", 1) for item in shell.stdout.decode().split("\0") if item)


def test_several_enclaves_and_ctrl_c() -> None:
    with short_directory() as parent:
        with Up(directory := Path(parent) / "e", "--debug-mode", "--enclaves", "3") as up:
            addresses = variables_of_a_shell(directory)["FOOBAR_ENCLAVE"].split(" ")
            modules = {parse_attestation(ask(parse_address(text))).module_id for text in addresses}
            up.end(signal.SIGINT)
        assert list(Path(parent).iterdir()) == []
        assert len(modules) == 3
        refused = run("up", "--directory", f"{parent}/a b", "--enclaves", "2")
        assert (refused.returncode, "white space" in refused.stderr) == (1, True)
    names = ("enclave", "enclave-2", "enclave-3")
    assert addresses == [f"unix:{directory}/{name}.sock" for name in names]
    assert up.process.returncode == 0


def test_up_ends_when_its_enclave_does() -> None:
    with short_directory() as parent, Up(directory := Path(parent) / "e") as up:
        (enclave,) = set(processes_with(str(directory))) - {up.process.pid}
        os.kill(enclave, signal.SIGKILL)
        _, errors = up.process.communicate(timeout=SECONDS)
        assert list(Path(parent).iterdir()) == []
    assert up.process.returncode == 1
    assert errors.endswith("error: enclave 'enclave' has ended by itself, with exit code -9\n")


def test_an_enclave_ends_with_an_emulator_that_is_killed() -> None:
    with short_directory() as parent:
        directory = Path(parent) / "e"
        with Up(directory) as up:
            up.end(signal.SIGKILL)
        deadline = time.monotonic() + SECONDS
        while processes_with(str(directory)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert run("env", "--directory", str(directory)).returncode == 1
        with Up(directory) as again:
            again.end(signal.SIGTERM)
        assert list(Path(parent).iterdir()) == []

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from foobar_shared.envelope import MAX_PLAINTEXT
from tests.vm.backends import Backends
from tests.vm.guest_agent import Completed
from tests.vm.images import Lab
from tests.vm.machines import Machine
from tests.vm.scenario import stage as stages
from tests.vm.scenario.stage import ALTERED, ENCLAVE, PARENT, PROBE, Stage, cli

# Booting takes longest, so each file takes the machines as the one before leaves them.
ORDER: Final = ("whole_job", "vsock", "nsm", "altered", "parent_lost")

# As long as a message may be, so that the request fills the longest line that the enclave takes.
PLAINTEXT: Final = random.Random(0).randbytes(MAX_PLAINTEXT)  # noqa: S311 - a test pattern
LETTERS: Final = PLAINTEXT.count(b"a")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: ORDER.index(item.path.stem.removeprefix("test_")))


@pytest.fixture(scope="session")
def lab(pytestconfig: pytest.Config) -> Lab:
    lab: Lab = getattr(pytestconfig.pluginmanager.get_plugin("lab"), "lab")  # noqa: B009
    return lab


@pytest.fixture(scope="session")
def logs(pytestconfig: pytest.Config) -> Path:
    logs: Path = getattr(pytestconfig.pluginmanager.get_plugin("lab"), "logs")  # noqa: B009
    return logs


@pytest.fixture(scope="session")
def stage(lab: Lab, logs: Path) -> Iterator[Stage]:
    with Backends() as backends:
        stage = Stage(lab, backends, logs)
        stage.begin(PARENT, ENCLAVE)
        yield stage
        stage.close()
        assert backends.failures == []


@pytest.fixture(scope="session")
def services(stage: Stage) -> None:
    """KMS and instance metadata, in the parent as it is booted first."""
    stages.serve(stage.machine(PARENT))


@pytest.fixture
def parent(stage: Stage, services: None) -> Machine:  # noqa: ARG001 - only to be there
    return stage.machine(PARENT)


@pytest.fixture
def enclave(stage: Stage) -> Machine:
    return stage.machine(ENCLAVE)


@pytest.fixture
def altered(stage: Stage) -> Machine:
    return stage.machine(ALTERED)


@pytest.fixture
def probe(stage: Stage) -> Machine:
    return stage.machine(PROBE)


@pytest.fixture(scope="session")
def measurements(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What `foobar-instance measure` prints for each enclave image, as files."""
    directory = tmp_path_factory.mktemp("measurements")
    files = {}
    for name in (ENCLAVE, ALTERED):
        files[name] = directory / f"{name}.json"
        files[name].write_bytes(host_cli("measure", str(lab.images[name].eif)))
    return files


@pytest.fixture(scope="session")
def pcr0(measurements: dict[str, Path]) -> dict[str, str]:
    texts = {name: json.loads(path.read_text()) for name, path in measurements.items()}
    return {name: text["Measurements"]["PCR0"] for name, text in texts.items()}


@dataclass(frozen=True)
class WholeJob:
    """The job as the parent did it: what each command said, and the files that it left."""

    created: Completed
    decrypted: Completed
    verified: Completed
    key: bytes
    message: bytes
    proof: bytes


@pytest.fixture(scope="session")
def job(stage: Stage, measurements: dict[str, Path], services: None) -> WholeJob:  # noqa: ARG001
    """The README's commands in /root of the parent, as root, with the addresses by default."""
    parent = stage.machine(PARENT)
    stage.machine(ENCLAVE)
    stage.begin(PROBE)  # this job keeps one processor busy
    parent.agent.write_file(stages.MEASUREMENTS, measurements[ENCLAVE].read_bytes())
    created = cli(parent, "create-key")
    encrypted = cli(parent, "encrypt", "--plaintext", "-", stdin=PLAINTEXT)
    message = encrypted.stdout
    decrypted = cli(parent, "decrypt", "--proof", "proof.json", "--ciphertext", "-", stdin=message)
    pin = ("--measurements", stages.MEASUREMENTS)  # verify takes no default file
    verified = cli(
        parent, "verify", "--proof", "proof.json", *pin, "--ciphertext", "-", stdin=message
    )
    for completed in (created, encrypted, decrypted, verified):
        assert completed.code == 0, completed.stderr.decode()
    return WholeJob(
        created=created,
        decrypted=decrypted,
        verified=verified,
        key=parent.agent.read_file("/root/attestation.out"),
        message=message,
        proof=parent.agent.read_file("/root/proof.json"),
    )


def host_cli(*arguments: str, stdin: bytes = b"", code: int = 0) -> bytes:
    """Standard output of `foobar-instance` on this machine, or standard error where it refuses."""
    done = subprocess.run(
        [sys.executable, "-m", "foobar_instance", *arguments],
        input=stdin,
        capture_output=True,
        check=False,
    )
    assert done.returncode == code, done.stderr.decode()
    return done.stderr if code else done.stdout

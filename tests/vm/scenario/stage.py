"""The scenario's machines: each is booted when it is first asked for, several at once.

parent  CID 3: the project installed, and KMS and instance metadata to be served inside.
enclave, altered  CID 16, one at a time: the enclave image, and that with one byte changed.
probe   CID 17: the parent's image with an NSM: asks the driver, and is a stranger to the others.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.vm.aws import RecordedNsm
from tests.vm.backends import Backends
from tests.vm.guest import services
from tests.vm.guest_agent import Completed, Job
from tests.vm.images import Lab
from tests.vm.machines import Machine

PARENT: Final = "parent"
ENCLAVE: Final = "enclave"
ALTERED: Final = "altered"
PROBE: Final = "probe"
CIDS: Final = {PARENT: 3, ENCLAVE: 16, ALTERED: 16, PROBE: 17}

MODULE_IDS: Final = {
    ENCLAVE: "i-0123456789abcdef0-enc0123456789abcdef",
    ALTERED: "i-0123456789abcdef0-encfedcba9876543210",
    PROBE: "i-0123456789abcdef0-enc00000000000000aa",
}
MEASUREMENTS: Final = "/root/foobar-enclave.measurements.json"  # where the CLI looks in /root
STARTED: Final = "event=start "  # the enclave's log: it serves
BOOT_SECONDS: Final = 150.0

_ENVIRONMENT: Final = {
    "PATH": "/usr/local/bin:/usr/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "PYTHONPATH": "/lab",
    "AWS_CA_BUNDLE": "/lab/authorities/tls_ca.pem",
    "FOOBAR_ROOT_PATH": "/lab/authorities/nitro_root.pem",
}
_CLI: Final = "/usr/local/bin/foobar-instance"
_PYTHON: Final = ("/usr/bin/python3", "-m")


class Stage:
    """All machines, from the constructor to `close`."""

    def __init__(self, lab: Lab, backends: Backends, logs: Path) -> None:
        """Boot nothing yet; the consoles will be in `logs`."""
        self.lab = lab
        self.backends = backends
        self.nsms: dict[str, RecordedNsm] = {}
        self._logs = logs
        self._machines: dict[str, Machine] = {}
        self._up: set[Machine] = set()
        self._number = 0

    def close(self) -> None:
        """End all machines."""
        for name in list(self._machines):
            self.kill(name)

    def begin(self, *names: str) -> None:
        """Boot these machines if they are not booted; others of their CIDs end."""
        for name in names:
            for other in list(self._machines):
                if other != name and CIDS[other] == CIDS[name]:
                    self.kill(other)
            if name not in self._machines:
                self._machines[name] = self._boot(name)

    def machine(self, name: str) -> Machine:
        """Return the machine, once it is at work."""
        self.begin(name)
        machine = self._machines[name]
        if machine not in self._up:
            if name in (PARENT, PROBE):
                machine.agent.wait(seconds=BOOT_SECONDS)
            else:
                machine.wait_for(STARTED, seconds=BOOT_SECONDS)
            self._up.add(machine)
        return machine

    def kill(self, name: str) -> None:
        """End the machine as a power cut does."""
        self._machines.pop(name).kill()

    def _boot(self, name: str) -> Machine:
        image = self.lab.images[PARENT if name == PROBE else name]
        if name in MODULE_IDS:
            self.nsms[name] = RecordedNsm(
                self.lab.authorities, module_id=MODULE_IDS[name], image=image.pcrs
            )
        self._number += 1
        return Machine(
            name=f"{self._number}-{name}",
            cid=CIDS[name],
            image=image,
            qemu=self.lab.software.qemu,
            backends=self.backends,
            directory=self._logs,
            memory_mib=1024 if name in (PARENT, PROBE) else 512,
            nsm=self.nsms[name].exchange if name in self.nsms else None,
            agent=name in (PARENT, PROBE),
        )


def cli(
    parent: Machine,
    *arguments: str,
    stdin: bytes = b"",
    user: str | None = None,
    directory: str = "/root",
) -> Completed:
    """Run `foobar-instance` in the parent, as a user with the lab's two trust anchors does."""
    return parent.agent.run(
        *(_CLI, *arguments), stdin=stdin, environment=_ENVIRONMENT, user=user, directory=directory
    )


def start_cli(parent: Machine, *arguments: str, environment: Mapping[str, str]) -> Job:
    """Start `foobar-instance` with more variables than `cli` sets."""
    return parent.agent.start(_CLI, *arguments, environment={**_ENVIRONMENT, **environment})


def python(machine: Machine, module: str, *arguments: str, user: str | None = None) -> Completed:
    """Run a module in a machine."""
    return machine.agent.run(
        *(*_PYTHON, module, *arguments), environment=_ENVIRONMENT, user=user, directory="/"
    )


def start_python(machine: Machine, module: str, *arguments: str) -> Job:
    """Start a module in a machine."""
    return machine.agent.start(
        *(*_PYTHON, module, *arguments), environment=_ENVIRONMENT, directory="/"
    )


def serve(parent: Machine) -> None:
    """Start KMS and instance metadata in the parent, and wait until they serve."""
    start_python(parent, services.__name__).wait_for_output(services.READY, seconds=BOOT_SECONDS)


def now() -> datetime:
    """Return the time by which attestations are judged on this machine."""
    return datetime.now(UTC)

"""The scenario's machines: each is booted when it is first asked for, several at once.

parent  CID 3: the project installed, and KMS and instance metadata to be served inside.
enclave, altered  CID 16, one at a time: the enclave image, and that with one byte changed.
probe   CID 17: the parent's image with an NSM: asks the driver, and is a stranger to the others.
"""

import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import cbor2

from emulator.identity import Instance
from emulator.image_measurements import instance_pcrs
from emulator.virtual_nsm import EmulatedNsm
from tests.vm.backends import Backends
from tests.vm.eif import Image
from tests.vm.guest import services
from tests.vm.lab import Lab
from tests.vm.machines import Completed, Job, Machine

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
MACHINE_SECONDS: Final = 500.0  # a hung machine's end
STEP_SECONDS: Final = 60.0

_MEMORY_MIB: Final = {PARENT: 1024, PROBE: 1024, ENCLAVE: 512, ALTERED: 512}
_ENVIRONMENT: Final = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "PYTHONPATH": "/lab",
}
_CLI: Final = {
    "AWS_CA_BUNDLE": "/lab/authorities/tls_ca.pem",
    "FOOBAR_ROOT_PATH": "/lab/authorities/nitro_root.pem",
}


class RecordedNsm:
    """A machine's NSM, and the names of the requests that it got."""

    def __init__(self, nsm: EmulatedNsm) -> None:
        self._nsm = nsm
        self.requests: list[str] = []

    def exchange(self, request: bytes) -> bytes:
        """The NSM's answer."""
        self.requests.append(_name(request))
        return self._nsm.exchange(request)


class Stage:
    """All machines, from the constructor to `close`."""

    def __init__(self, lab: Lab, backends: Backends, folder: Path) -> None:
        """No machine yet; their consoles and sockets will be in `folder`."""
        self.lab = lab
        self.backends = backends
        self.nsms: dict[str, RecordedNsm] = {}
        self._folder = folder
        self._pool = ThreadPoolExecutor(max_workers=len(CIDS))
        self._booted: dict[int, tuple[str, Future[Machine]]] = {}
        self._open: dict[int, ExitStack] = {}
        self._number = 0
        self._lock = threading.Lock()

    def close(self) -> None:
        """End all machines."""
        for cid in list(self._booted):
            self._end(cid)
        self._pool.shutdown()

    def begin(self, *names: str) -> None:
        """Boot these machines if they are not, without waiting; others of their CIDs end."""
        for name in names:
            cid = CIDS[name]
            if cid in self._booted and self._booted[cid][0] != name:
                self._end(cid)
            if cid not in self._booted:
                self._booted[cid] = (name, self._pool.submit(self._boot, name))

    def machine(self, name: str) -> Machine:
        """The machine, once it is at work."""
        self.begin(name)
        return self._booted[CIDS[name]][1].result()

    def kill(self, name: str) -> None:
        """End the machine as a power cut does."""
        self.machine(name).kill()
        self._end(CIDS[name])

    def _boot(self, name: str) -> Machine:
        image = self.lab.images[name if name in self.lab.images else PARENT]
        if name in MODULE_IDS:
            self.nsms[name] = RecordedNsm(self._nsm(name, image))
        has_agent = name in (PARENT, PROBE)
        with self._lock:
            self._number += 1
            machine = Machine(
                name=f"{self._number}-{name}",
                cid=CIDS[name],
                image=image,
                software=self.lab.software,
                backends=self.backends,
                folder=self._folder,
                nsm=self.nsms[name].exchange if name in self.nsms else None,
                seconds=MACHINE_SECONDS,
                agent=has_agent,
                memory_mib=_MEMORY_MIB[name],
            )
        stack = self._open[CIDS[name]] = ExitStack()
        stack.enter_context(machine)
        if has_agent:
            machine.run("/bin/busybox", "true", seconds=BOOT_SECONDS)
        else:
            machine.wait_for(STARTED, seconds=BOOT_SECONDS)
        return machine

    def _nsm(self, name: str, image: Image) -> EmulatedNsm:
        pcrs = dict(image.pcrs) | instance_pcrs(Instance())
        return EmulatedNsm(self.lab.authorities.pki, module_id=MODULE_IDS[name], pcrs=pcrs)

    def _end(self, cid: int) -> None:
        _, booting = self._booted.pop(cid)
        booting.exception()  # it is over; whoever asked for the machine has heard of a failure
        if cid in self._open:
            self._open.pop(cid).close()


def cli(
    parent: Machine,
    *arguments: str,
    stdin: bytes = b"",
    user: str | None = None,
    folder: str = "/root",
) -> Completed:
    """Run `foobar-instance` in the parent, as a user with the lab's two trust anchors does."""
    return parent.run(
        "/usr/local/bin/foobar-instance",
        *arguments,
        stdin=stdin,
        environment=_ENVIRONMENT | _CLI,
        user=user,
        folder=folder,
        seconds=STEP_SECONDS,
    )


def start_cli(
    parent: Machine, *arguments: str, environment: Mapping[str, str] | None = None
) -> Job:
    """As `cli`, without waiting for its end."""
    return parent.start(
        "/usr/local/bin/foobar-instance",
        *arguments,
        environment={**_ENVIRONMENT, **_CLI, **(environment or {})},
    )


def python(machine: Machine, module: str, *arguments: str, user: str | None = None) -> Completed:
    """Run a module in a machine."""
    return machine.run(
        *("/usr/bin/python3", "-m", module, *arguments),
        environment=_ENVIRONMENT | _CLI,
        user=user,
        folder="/",
        seconds=STEP_SECONDS,
    )


def start_python(machine: Machine, module: str, *arguments: str) -> Job:
    """As `python`, without waiting for its end."""
    return machine.start(
        *("/usr/bin/python3", "-m", module, *arguments), environment=_ENVIRONMENT | _CLI, folder="/"
    )


def serve(parent: Machine) -> None:
    """Start KMS and instance metadata in the parent, and wait until they serve."""
    job = start_python(parent, services.__name__)
    job.wait_for_output(services.READY, seconds=BOOT_SECONDS)


def now() -> datetime:
    """The time by which attestations are judged on this machine."""
    return datetime.now(UTC)


def _name(request: bytes) -> str:
    try:
        decoded: object = cbor2.loads(request)
    except cbor2.CBORDecodeError:
        return "malformed"
    return str(next(iter(decoded)) if isinstance(decoded, dict) else decoded)

"""Runs one machine of the lab: QEMU with a console in a file, an agent, vsock and an NSM.

A machine ends when its program does, when it is killed, at its time limit, or with the process that
started it: see `tests.vm.guard`. In the machine's folder are NAME.console, which the kernel and
the program write to, NAME.qemu, QEMU's own complaints, and NAME.agent, what the agent said.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol, Self

from tests.vm import accelerators, guard
from tests.vm.agent_client import AgentClient, Completed, Job
from tests.vm.eif import Image
from tests.vm.errors import LabError
from tests.vm.packages import Software

__all__ = ["Completed", "Job", "Machine"]

BOOT_SECONDS: Final = 150.0  # until the agent serves, on a machine that is busy with others
RELEASE_SECONDS: Final = 5.0  # for the switch to see that the machine before has gone
POLL_SECONDS: Final = 0.1
NSM_DEVICE_ID: Final = 33  # VIRTIO_ID_NITRO_SEC_MOD of linux/virtio_ids.h

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_GUARD: Final = Path(guard.__file__)
_SHOWN: Final = 2000  # characters of a file's end in an error


class Switch(Protocol):
    """What a machine needs of `tests.vm.backends.Backends`: sockets for QEMU to connect to."""

    def vsock(self, cid: int) -> Path: ...

    def nsm(self, exchange: Callable[[bytes], bytes]) -> Path: ...

    def discard(self, path: Path) -> None: ...


class Machine:
    """One machine, which runs from `__enter__` to `__exit__` at most."""

    def __init__(
        self,
        *,
        name: str,
        cid: int,
        image: Image,
        software: Software,
        backends: Switch,
        folder: Path,
        nsm: Callable[[bytes], bytes] | None = None,
        seconds: float,
        agent: bool = False,
        memory_mib: int = 512,
    ) -> None:
        """Nothing is started yet.

        Args:
            name: of its files in `folder`, and in errors.
            cid: its vsock address.
            image: what it boots.
            software: QEMU.
            backends: where its vsock and NSM are.
            folder: of its files; it is there.
            nsm: answers its NSM's requests; without it the machine has none.
            seconds: its time limit.
            agent: whether the image's program is the agent, at a virtio serial port.
            memory_mib: its memory.
        """
        self.name = name
        self.console = folder / f"{name}.console"
        self._complaints = folder / f"{name}.qemu"
        self._transcript = folder / f"{name}.agent"
        self._cid, self._nsm, self._backends = cid, nsm, backends
        self._image, self._software = image, software
        self._seconds, self._memory_mib, self._has_agent = seconds, memory_mib, agent
        self._process: subprocess.Popen[bytes] | None = None
        self._client: AgentClient | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def kill(self) -> None:
        """End it at once, as a power cut does."""
        process = self._running()
        if process.poll() is None:
            # The group is there at least until its leader is waited for.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def wait(self, *, seconds: float) -> int:
        """QEMU's exit code: 0 where the machine shut itself down.

        Raises:
            LabError: it does not end in time.
        """
        try:
            return self._running().wait(seconds)
        except subprocess.TimeoutExpired:
            raise self._error(f"has not ended in {seconds:.0f} s") from None

    def wait_for(self, text: str, *, seconds: float) -> None:
        """Wait until the console holds `text`.

        Raises:
            LabError: it does not come in time, or the machine ended without it.
        """
        wanted, deadline = text.encode(), time.monotonic() + seconds
        while True:
            ended = self._running().poll() is not None  # before the last look at the console
            if wanted in _content(self.console):
                return
            if ended:
                raise self._error(f"ended{self._reason()} without {text!r} on its console")
            if time.monotonic() > deadline:
                raise self._error(f"has no {text!r} on its console after {seconds:.0f} s")
            time.sleep(POLL_SECONDS)

    def run(
        self,
        *argv: str,
        stdin: bytes = b"",
        environment: Mapping[str, str] = _NOTHING,
        user: str | None = None,
        folder: str = "/root",
        seconds: float = 60,
    ) -> Completed:
        """Run a program in the machine, with these and no other variables, and wait for its end.

        Raises:
            LabError: it cannot be started, does not end in time, or the machine ended.
        """
        job = self.start(*argv, stdin=stdin, environment=environment, user=user, folder=folder)
        try:
            return job.finish(seconds)
        except LabError as error:
            raise self._error(str(error)) from error

    def start(
        self,
        *argv: str,
        stdin: bytes = b"",
        environment: Mapping[str, str] = _NOTHING,
        user: str | None = None,
        folder: str = "/root",
    ) -> Job:
        """Start a program in the machine, as `run` does.

        Raises:
            LabError: it cannot be started, or the machine ended.
        """
        client = self._agent()
        try:
            return client.start(
                argv, stdin=stdin, environment=environment, user=user, folder=folder
            )
        except LabError as error:
            raise self._error(str(error)) from error

    def write_file(self, path: str, data: bytes) -> None:
        """Make a file in the machine, or replace its content.

        Raises:
            LabError: it cannot be written, or the machine ended.
        """
        self._agent().write_file(path, data)

    def read_file(self, path: str) -> bytes:
        """A file's content.

        Raises:
            LabError: it cannot be read, or the machine ended.
        """
        return self._agent().read_file(path)

    def _start(self, stack: ExitStack) -> None:
        started_by, started = os.pipe()
        stack.callback(os.close, started)
        handed = [started_by]
        try:
            if self._has_agent:
                ours, theirs = socket.socketpair()
                handed.append(theirs.detach())
                # Left after QEMU, which holds the other end, is killed.
                client = AgentClient(ours.detach(), transcript=self._note)
                self._client = stack.enter_context(client)
            vsock = self._vsock()
            stack.callback(self._backends.discard, vsock)
            nsm = None if self._nsm is None else self._backends.nsm(self._nsm)
            if nsm is not None:
                stack.callback(self._backends.discard, nsm)
            command = command_line(
                self._software.qemu,
                image=self._image,
                accelerator=accelerators.chosen(),
                console=self.console,
                memory_mib=self._memory_mib,
                vsock=vsock,
                nsm=nsm,
                agent=handed[-1] if self._has_agent else None,
            )
            with self._complaints.open("wb") as complaints:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", _GUARD, f"{self._seconds}", f"{started_by}", *command],
                    stdin=subprocess.DEVNULL,
                    stdout=complaints,
                    stderr=complaints,
                    pass_fds=handed,
                    start_new_session=True,
                )
        finally:
            for descriptor in handed:
                os.close(descriptor)
        stack.callback(self.kill)

    def _vsock(self) -> Path:
        deadline = time.monotonic() + RELEASE_SECONDS
        while True:
            try:
                return self._backends.vsock(self._cid)
            except LabError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(POLL_SECONDS)

    def _agent(self) -> AgentClient:
        if self._client is None:
            raise self._error("has no agent")
        try:
            self._client.wait_for_hello(seconds=BOOT_SECONDS)
        except LabError as error:
            raise self._error(str(error)) from error
        return self._client

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise LabError(f"machine {self.name} has not been started")
        return self._process

    def _note(self, line: str) -> None:
        with self._transcript.open("a") as file:
            file.write(f"{time.monotonic():.3f} {line}\n")

    def _reason(self) -> str:
        return " at its time limit" if self._running().poll() == guard.TIME_IS_OVER else ""

    def _error(self, what: str) -> LabError:
        ends = "".join(
            f"\n{path.name} ends with:\n{_content(path).decode(errors='replace')[-_SHOWN:]}"
            for path in (self._complaints, self.console)
        )
        return LabError(f"machine {self.name}: {what}{ends}")


def command_line(
    qemu: Sequence[str],
    *,
    image: Image,
    accelerator: Sequence[str],
    console: Path,
    memory_mib: int,
    vsock: Path,
    nsm: Path | None,
    agent: int | None,
) -> list[str]:
    """QEMU's command line.

    The guest's memory is shared with the back ends by its descriptor. `agent` is the descriptor of
    a connected stream socket.
    """
    command = [
        *qemu, *accelerator, "-no-user-config", "-nodefaults", "-no-reboot", "-display", "none",
        "-M", "q35,memory-backend=memory",
        "-object", f"memory-backend-memfd,id=memory,size={memory_mib}M,share=on",
        "-m", f"{memory_mib}", "-smp", "1",
        "-kernel", f"{image.kernel}", "-initrd", f"{image.initrd}", "-append", image.command_line,
        "-serial", f"file:{console}",
    ]  # fmt: skip
    if agent is not None:
        # Before the other virtio devices: the port's name has the number of its device. A second
        # UART would do too, at some 10 kB/s.
        command += ["-chardev", f"socket,id=agent,fd={agent}", "-device", "virtio-serial-pci"]
        command += ["-device", "virtserialport,chardev=agent"]
    command += ["-chardev", f"socket,id=vsock,path={vsock}"]
    command += ["-device", "vhost-user-vsock-pci,chardev=vsock"]
    if nsm is not None:
        device = f"vhost-user-test-device-pci,virtio-id={NSM_DEVICE_ID},num_vqs=1,config_size=0"
        command += ["-chardev", f"socket,id=nsm,path={nsm}", "-device", f"{device},chardev=nsm"]
    return command


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""

"""Runs one machine: QEMU with a console in a file, vsock, and where asked for an NSM and an agent.

NAME.console in the machine's directory has what the kernel and the program write, NAME.qemu what
QEMU complains of. QEMU ends with the process that started it.
"""

import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.vm.backends import Backends
from tests.vm.guest_agent import GuestAgent
from tests.vm.images import COMMAND_LINE, Image
from tests.vm.programs import LabError

POLL_SECONDS: Final = 0.1
NSM: Final = "vhost-user-test-device-pci,virtio-id=33,num_vqs=1,config_size=0,chardev=nsm"


class Machine:
    """One machine, from its constructor to `kill`."""

    def __init__(
        self,
        *,
        name: str,
        cid: int,
        image: Image,
        qemu: tuple[str, ...],
        backends: Backends,
        directory: Path,
        memory_mib: int,
        nsm: Callable[[bytes], bytes] | None = None,
        agent: bool = False,
    ) -> None:
        """Start it. QEMU lives as long as the calling thread, at most.

        Args:
            name: The name of its files in `directory`.
            cid: Its vsock address.
            image: What it boots.
            qemu: The start of QEMU's command line.
            backends: What serves its vsock and NSM.
            directory: Where its files are.
            memory_mib: Its memory.
            nsm: Answers its NSM's requests; without it the machine has none.
            agent: Whether its program is the guest agent.
        """
        self.console = directory / f"{name}.console"
        self._cid = cid
        self._backends = backends
        self._agent: GuestAgent | None = None
        sockets = {"vsock": backends.vsock(cid)}
        if nsm is not None:
            sockets["nsm"] = backends.nsm(nsm)
        if agent:
            ours, sockets["agent"] = socket.socketpair()
            self._agent = GuestAgent(ours)
        # With one processor, TCG needs one thread.
        command = [
            *qemu, "-accel", "tcg,thread=single", "-cpu", "max", "-smp", "1",
            "-no-user-config", "-nodefaults", "-no-reboot", "-display", "none",
            "-run-with", "exit-with-parent=on", "-M", "q35,memory-backend=memory",
            "-object", f"memory-backend-memfd,id=memory,size={memory_mib}M,share=on",
            "-m", f"{memory_mib}", "-serial", f"file:{self.console}",
            "-kernel", f"{image.kernel}", "-initrd", f"{image.initrd}", "-append", COMMAND_LINE,
        ]  # fmt: skip
        for socket_name, end in sockets.items():
            command += ["-chardev", f"socket,id={socket_name},fd={end.fileno()}"]
        if agent:  # the first virtio device, as its port's name has its number
            command += ["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent"]
        command += ["-device", "vhost-user-vsock-pci,chardev=vsock"]
        command += ["-device", NSM] if nsm is not None else []
        with (directory / f"{name}.qemu").open("wb") as complaints:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=complaints,
                stderr=complaints,
                pass_fds=[end.fileno() for end in sockets.values()],
            )
        for end in sockets.values():
            end.close()

    @property
    def agent(self) -> GuestAgent:
        """Its agent, which runs programs in it."""
        if self._agent is None:
            raise LabError("this machine has no agent")
        return self._agent

    def kill(self) -> None:
        """End it at once, as a power cut does."""
        self._process.kill()
        self._process.wait()
        self._backends.release(self._cid)
        if self._agent is not None:
            self._agent.close()

    def wait_for(self, text: str, *, seconds: float) -> None:
        """Wait until the console has `text`.

        Raises:
            LabError: It does not come in time, or the machine ends without it.
        """
        deadline = time.monotonic() + seconds
        ended = False
        while text.encode() not in self._said():
            if ended or time.monotonic() > deadline:
                said = self._said().decode(errors="replace")[-2000:]
                what = "ended" if ended else f"was waited for {seconds:.0f} s"
                raise LabError(f"{self.console.stem} {what} without {text!r}; it said:\n{said}")
            time.sleep(POLL_SECONDS)
            ended = self._process.poll() is not None  # before the last look at the console

    def _said(self) -> bytes:
        return self.console.read_bytes() if self.console.exists() else b""

"""Chooses how QEMU runs a machine's code: by KVM where that really works, or by translating it.

Where the host is itself a machine of some kind, /dev/kvm may be there and a kernel yet hang at its
entry. So one is booted, with a time limit.
"""

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.vm import cpio
from tests.vm.errors import LabError
from tests.vm.packages import Software

VARIABLE: Final = "FOOBAR_LAB_ACCEL"
DEVICE: Final = Path("/dev/kvm")
OPTIONS: Final = {
    "kvm": ("-accel", "kvm", "-cpu", "host"),
    # Each machine has one processor; several translating threads would be of no use.
    "tcg": ("-accel", "tcg,thread=single", "-cpu", "max"),
}
PROBE_SECONDS: Final = 15.0  # by KVM the kernel takes about one

POLL_SECONDS: Final = 0.1

_REFUSED: Final = "KVM internal error"
_BOOTED: Final = "lab: the kernel is up"
_INIT: Final = f"#!/bin/busybox sh\necho '{_BOOTED}'\n/bin/busybox reboot -f\n"


def chosen() -> Sequence[str]:
    """QEMU's options for what the environment names, or without that for TCG.

    Raises:
        LabError: it names something else.
    """
    name = os.environ.get(VARIABLE) or "tcg"
    if name not in OPTIONS:
        raise LabError(f"{VARIABLE} is {name!r}: it has to be kvm or tcg")
    return OPTIONS[name]


def choose(software: Software, folder: Path) -> tuple[str, str]:
    """The accelerator's name and why it is that, for `VARIABLE` of the whole run.

    Raises:
        LabError: the environment names one that there is not.
    """
    named = os.environ.get(VARIABLE)
    if named:
        chosen()
        return named, f"{VARIABLE} says so"
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return "tcg", f"{DEVICE} cannot be used"
    if boots(software, folder, OPTIONS["kvm"], seconds=PROBE_SECONDS):
        return "kvm", "a kernel boots by it"
    return "tcg", "by KVM no kernel boots here"


def boots(software: Software, folder: Path, options: Sequence[str], *, seconds: float) -> bool:
    """Whether a kernel starts its first program in time. Leaves its files in `folder`."""
    initrd = folder / "accelerator.initrd"
    entries = [
        cpio.file("init", _INIT.encode(), 0o755),
        cpio.folder("bin"),
        cpio.file("bin/busybox", software.busybox.read_bytes(), 0o755),
    ]
    initrd.write_bytes(cpio.archive(entries))
    command = [
        *software.qemu, *options, "-no-user-config", "-nodefaults", "-no-reboot",
        "-display", "none", "-M", "q35", "-m", "256", "-smp", "1", "-serial", "stdio",
        "-kernel", f"{software.kernel}", "-initrd", f"{initrd}",
        "-append", "console=ttyS0 panic=-1 quiet reboot=t",
    ]  # fmt: skip
    with (folder / "accelerator.console").open("wb") as console:
        qemu = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT
        )
        try:
            deadline = time.monotonic() + seconds
            while qemu.poll() is None and time.monotonic() < deadline:
                # QEMU stays after that, for whoever wants to look into it.
                if _REFUSED.encode() in Path(console.name).read_bytes():
                    break
                time.sleep(POLL_SECONDS)
        finally:
            qemu.kill()
            qemu.wait()
        return _BOOTED.encode() in Path(console.name).read_bytes()

import itertools
import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.vm import accelerators, guard, machines
from tests.vm.eif import Image
from tests.vm.errors import LabError
from tests.vm.guest import agent
from tests.vm.machines import Machine, command_line
from tests.vm.packages import Software
from tests.vm.processes import wait_for_end

SECONDS: Final = 30.0
PROJECT: Final = Path(__file__).resolve().parents[2]

# Takes QEMU's place: a program that finds its console and the agent's descriptor as QEMU does.
FAKE: Final = """\
import os, re, signal, sys, time
line = " ".join(sys.argv)
console = open(re.search("-serial file:([^ ]+)", line)[1], "w", buffering=1)
agent = re.search("id=agent,fd=([0-9]+)", line)
"""
SERVES: Final = f"""
sys.path.insert(0, {str(PROJECT)!r})
from tests.vm.guest.agent import Agent
print("serving", file=console)
Agent(int(agent[1])).serve()
"""


class FakeSwitch:
    """What a machine does with its sockets' names."""

    def __init__(self, *, refusals: int = 0) -> None:
        self.refusals = refusals
        self.made: list[Path] = []
        self.discarded: list[Path] = []

    def vsock(self, cid: int) -> Path:
        if self.refusals:
            self.refusals -= 1
            raise LabError(f"CID {cid} is another machine's")
        self.made.append(Path(f"/vsock-{cid}"))
        return self.made[-1]

    def nsm(self, exchange: Callable[[bytes], bytes]) -> Path:
        self.made.append(Path(exchange(b"/nsm").decode()))
        return self.made[-1]

    def discard(self, path: Path) -> None:
        self.discarded.append(path)


def image() -> Image:
    return Image(
        kernel=Path("/kernel"),
        command_line="console=ttyS0 quiet",
        initrd=Path("/initrd"),
        eif=Path("/eif"),
        pcrs={},
    )


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., Machine]:
    def make(
        program: str,
        *,
        seconds: float = SECONDS,
        agent: bool = False,
        nsm: Callable[[bytes], bytes] | None = None,
        switch: FakeSwitch | None = None,
        qemu: str = sys.executable,
    ) -> Machine:
        script = tmp_path / "qemu.py"
        script.write_text(FAKE + program)
        software = Software(
            qemu=(qemu, str(script)),
            kernel=Path("/kernel"),
            modules=(),
            busybox=Path("/busybox"),
            guest=Path("/guest"),
        )
        return Machine(
            name="fake",
            cid=16,
            image=image(),
            software=software,
            backends=switch or FakeSwitch(),
            folder=tmp_path,
            nsm=nsm,
            seconds=seconds,
            agent=agent,
        )

    return make


Make = Callable[..., Machine]


def test_the_command_line_has_the_image_and_the_back_ends() -> None:
    command = command_line(
        ["ld.so", "qemu", "-L", "/firmware"],
        image=image(),
        accelerator=accelerators.OPTIONS["tcg"],
        console=Path("/run/console"),
        memory_mib=384,
        vsock=Path("/run/1.vhost"),
        nsm=Path("/run/2.vhost"),
        agent=7,
    )
    pairs = [" ".join(pair) for pair in itertools.pairwise(command)]
    assert command[:4] == ["ld.so", "qemu", "-L", "/firmware"]
    for expected in (
        "-accel tcg,thread=single",
        "-kernel /kernel",
        "-initrd /initrd",
        "-append console=ttyS0 quiet",
        "-serial file:/run/console",
        "-object memory-backend-memfd,id=memory,size=384M,share=on",
        "-M q35,memory-backend=memory",
        "-m 384",
        "-smp 1",
        "-chardev socket,id=vsock,path=/run/1.vhost",
        "-device vhost-user-vsock-pci,chardev=vsock",
        "-chardev socket,id=nsm,path=/run/2.vhost",
        "-chardev socket,id=agent,fd=7",
        "-device virtserialport,chardev=agent",
    ):
        assert expected in pairs
    devices = [option for option in command if "-pci" in option]
    assert devices[0] == "virtio-serial-pci", f"{agent.PORT} is the first virtio device's"
    assert any("virtio-id=33," in device for device in devices)
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(command)


def test_without_nsm_and_agent_the_machine_has_neither() -> None:
    command = command_line(
        ["qemu"],
        image=image(),
        accelerator=(),
        console=Path("/console"),
        memory_mib=512,
        vsock=Path("/v"),
        nsm=None,
        agent=None,
    )
    assert [option for option in command if "-pci" in option] == [
        "vhost-user-vsock-pci,chardev=vsock"
    ]
    assert "agent" not in " ".join(command)


def test_a_machine_that_ends_is_waited_for(machine: Make) -> None:
    with machine("print('lab: ended with 0', file=console)") as made:
        made.wait_for("lab: ended with", seconds=SECONDS)
        assert made.wait(seconds=SECONDS) == 0


def test_the_console_and_complaints_are_in_the_error(machine: Make) -> None:
    program = "print('panic', file=console); sys.exit('no such device')"
    expected = r"(?s)fake: ended without 'ready' on its console.*no such device.*panic"
    with machine(program) as made, pytest.raises(LabError, match=expected):
        made.wait_for("ready", seconds=SECONDS)


def test_what_does_not_come_in_time_is_said(machine: Make) -> None:
    with machine("time.sleep(1000)") as made:
        with pytest.raises(LabError, match="fake: has no 'ready' on its console after 0 s"):
            made.wait_for("ready", seconds=0.01)
        with pytest.raises(LabError, match="fake: has not ended in 0 s"):
            made.wait(seconds=0.01)


def test_a_machine_past_its_time_limit_is_killed(machine: Make) -> None:
    with machine("time.sleep(1000)", seconds=0.3) as made:
        with pytest.raises(LabError, match="fake: ended at its time limit without 'ready'"):
            made.wait_for("ready", seconds=SECONDS)
        assert made.wait(seconds=SECONDS) == guard.TIME_IS_OVER


def test_killing_ends_all_processes(machine: Make, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    program = f"open({str(pid)!r}, 'w').write(str(os.getpid())); print('up', file=console)\n"
    with machine(program + "signal.signal(15, signal.SIG_IGN); time.sleep(1000)") as made:
        made.wait_for("up", seconds=SECONDS)
        made.kill()
        assert made.wait(seconds=SECONDS) == -9
        made.kill()
    wait_for_end(int(pid.read_text()))


def test_leaving_it_kills_it(machine: Make, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    program = f"open({str(pid)!r}, 'w').write(str(os.getpid())); print('up', file=console)\n"
    interrupted = machine(program + "time.sleep(1000)")
    with pytest.raises(KeyboardInterrupt), interrupted as made:  # noqa: PT012 - raised inside it
        made.wait_for("up", seconds=SECONDS)
        raise KeyboardInterrupt
    wait_for_end(int(pid.read_text()))


def test_programs_and_files_by_the_agent(machine: Make, tmp_path: Path) -> None:
    with machine(SERVES, agent=True) as made:
        completed = made.run("/bin/cat", stdin=b"content", folder="/")
        assert (completed.code, completed.stdout) == (0, b"content")
        made.write_file(f"{tmp_path}/file", b"file")
        assert made.read_file(f"{tmp_path}/file") == b"file"
        job = made.start("/usr/bin/env", environment={"A": "B"}, folder="/")
        assert job.finish(SECONDS).stdout == b"A=B\n"
        with pytest.raises(LabError, match=r"(?s)fake: .*/no/such.*fake.console ends with:\nserv"):
            made.run("/no/such", folder="/")
        made.kill()
        with pytest.raises(LabError, match="machine fake: "):
            made.run("/bin/true", folder="/")
    assert "hello" in (tmp_path / "fake.agent").read_text()


def test_a_machine_without_agent_says_so(machine: Make) -> None:
    with machine("time.sleep(1000)") as made, pytest.raises(LabError, match="fake: has no agent"):
        made.run("/bin/true")


def test_an_agent_that_does_not_come_is_given_up(
    machine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "BOOT_SECONDS", 0.01)
    refused = pytest.raises(LabError, match="fake: the agent does not say hello in 0 s")
    with machine("time.sleep(1000)", agent=True) as made, refused:
        made.run("/bin/true")


def test_sockets_are_asked_for_and_given_up(machine: Make) -> None:
    switch = FakeSwitch()
    with machine("", nsm=lambda request: request + b"-socket", switch=switch) as made:
        made.wait(seconds=SECONDS)
        assert switch.made == [Path("/vsock-16"), Path("/nsm-socket")]
    assert sorted(switch.discarded) == [Path("/nsm-socket"), Path("/vsock-16")]


def test_the_machine_before_may_still_be_going(
    machine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with machine("", switch=FakeSwitch(refusals=2)) as made:
        assert made.wait(seconds=SECONDS) == 0
    monkeypatch.setattr(machines, "RELEASE_SECONDS", 0.0)
    refused = machine("", agent=True, switch=FakeSwitch(refusals=1000))
    with pytest.raises(LabError, match="CID 16 is another machine's"), refused:
        pass


def test_what_was_not_started_is_said(machine: Make) -> None:
    with pytest.raises(LabError, match="fake has not been started"):
        machine("").wait(seconds=0)


def test_no_descriptor_is_left(machine: Make) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - only their number is of interest
    with machine(SERVES, agent=True) as made:
        made.run("/bin/true", folder="/")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


class TestAccelerator:
    def software(self, tmp_path: Path, program: str) -> Software:
        qemu = tmp_path / "qemu"
        qemu.write_text(f"#!/bin/sh\n{program}\n")
        qemu.chmod(qemu.stat().st_mode | stat.S_IXUSR)
        busybox = tmp_path / "busybox"
        busybox.touch()
        return Software(
            qemu=(str(qemu),), kernel=Path("/k"), modules=(), busybox=busybox, guest=tmp_path
        )

    @pytest.fixture(autouse=True)
    def usable(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv(accelerators.VARIABLE, raising=False)
        monkeypatch.setattr(accelerators, "DEVICE", tmp_path)

    def test_kvm_where_a_kernel_boots_by_it(self, tmp_path: Path) -> None:
        booted = self.software(tmp_path, "echo 'lab: the kernel is up'")
        assert accelerators.choose(booted, tmp_path)[0] == "kvm"

    def test_tcg_where_the_device_is_missing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(accelerators, "DEVICE", tmp_path / "none")
        booted = self.software(tmp_path, "echo 'lab: the kernel is up'")
        assert accelerators.choose(booted, tmp_path)[0] == "tcg"

    @pytest.mark.parametrize("program", ["exit 1", "echo 'KVM internal error.'; exec sleep 1000"])
    def test_tcg_where_qemu_refuses(self, tmp_path: Path, program: str) -> None:
        began = time.monotonic()
        assert accelerators.choose(self.software(tmp_path, program), tmp_path)[0] == "tcg"
        assert time.monotonic() - began < accelerators.PROBE_SECONDS

    def test_tcg_where_a_kernel_hangs(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(accelerators, "PROBE_SECONDS", 0.2)
        hangs = self.software(tmp_path, "exec sleep 1000")
        assert accelerators.choose(hangs, tmp_path)[0] == "tcg"

    def test_the_environment_has_the_last_word(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        unused = self.software(tmp_path, "exit 1")
        monkeypatch.setenv(accelerators.VARIABLE, "kvm")
        assert accelerators.choose(unused, tmp_path)[0] == "kvm"
        assert accelerators.chosen() == accelerators.OPTIONS["kvm"]
        monkeypatch.setenv(accelerators.VARIABLE, "xen")
        with pytest.raises(LabError, match="FOOBAR_LAB_ACCEL is 'xen'"):
            accelerators.choose(unused, tmp_path)

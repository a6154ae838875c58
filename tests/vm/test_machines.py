"""A machine's life, with a shell in QEMU's place."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.vm.backends import Backends
from tests.vm.images import Image
from tests.vm.machines import Machine
from tests.vm.programs import LabError

Boot = Callable[[str], Machine]


@pytest.fixture
def backends() -> Iterator[Backends]:
    with Backends() as backends:
        yield backends


@pytest.fixture
def boot(backends: Backends, tmp_path: Path) -> Iterator[Boot]:
    machines = []

    def boot(script: str) -> Machine:
        machine = Machine(
            name="m",
            cid=16,
            image=Image(kernel=Path("/k"), initrd=Path("/i"), eif=Path("/e"), pcrs={}),
            qemu=("/bin/sh", "-c", f"console={tmp_path}/m.console; {script}"),
            backends=backends,
            directory=tmp_path,
            memory_mib=1,
        )
        machines.append(machine)
        return machine

    yield boot
    for machine in machines:
        machine.kill()


def test_what_the_console_says_is_waited_for(boot: Boot) -> None:
    boot("echo boot >$console; sleep 0.3; echo ready >>$console; exec sleep 1000").wait_for(
        "ready", seconds=30
    )


def test_a_machine_that_ends_without_it_is_an_error(boot: Boot) -> None:
    with pytest.raises(LabError, match=r"(?s)m ended without 'ready'; it said:.*panic"):
        boot("echo panic >$console").wait_for("ready", seconds=30)


def test_a_machine_that_does_not_say_it_is_an_error(boot: Boot) -> None:
    with pytest.raises(LabError, match="was waited for 0 s without 'ready'"):
        boot("exec sleep 1000").wait_for("ready", seconds=0.01)


def test_a_cid_is_free_once_its_machine_is_killed(boot: Boot) -> None:
    first = boot("exec sleep 1000")
    with pytest.raises(LabError, match="CID 16"):
        boot("exec sleep 1000")
    first.kill()
    boot("exec sleep 1000")

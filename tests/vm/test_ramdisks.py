import re
import stat
import subprocess
from pathlib import Path

import pytest

from tests.vm import ramdisks
from tests.vm.cpio import Entry
from tests.vm.errors import LabError
from tests.vm.packages import Software
from tests.vm.test_cpio import parse

COMMAND = ("/bin/run", "two words", "$HOME")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin/run").write_bytes(b"program")
    (root / "bin/run").chmod(0o755)
    (root / "bin/link").symlink_to("run")
    return root


def entries(archive: bytes) -> dict[str, Entry]:
    return {entry.name: entry for entry, _ in parse(archive)}


def application(
    root: Path,
    *,
    command: tuple[str, ...] = COMMAND,
    environment: dict[str, str] | None = None,
    replaced: dict[str, bytes] | None = None,
    added: dict[str, bytes] | None = None,
) -> dict[str, Entry]:
    return entries(
        ramdisks.application(
            root,
            command=command,
            environment=environment or {},
            replaced=replaced,
            added=added,
        )
    )


def test_the_bootstrap_has_init_busybox_and_modules_in_order(tmp_path: Path) -> None:
    for name in ("busybox", "0-zebra.ko", "1-ant.ko"):
        (tmp_path / name).write_bytes(name.encode())
    software = Software(
        qemu=(),
        kernel=tmp_path,
        modules=(tmp_path / "0-zebra.ko", tmp_path / "1-ant.ko"),
        busybox=tmp_path / "busybox",
        guest=tmp_path,
    )
    found = entries(ramdisks.bootstrap(software))
    assert sorted(found) == [
        "bin", "bin/busybox", "init", "mods", "mods/0-zebra.ko", "mods/1-ant.ko",
    ]  # fmt: skip
    assert found["mods/1-ant.ko"].data == b"1-ant.ko"
    assert found["bin/busybox"].mode & found["init"].mode & 0o111 == 0o111
    assert found["init"].data == ramdisks.INIT.encode()


def test_the_application_has_root_program_and_environment(root: Path) -> None:
    found = application(root, environment={"PYTHONPATH": "/app", "EMPTY": "", "A": "x=y z"})
    assert found["cmd"].data == b"/bin/run\ntwo words\n$HOME\n"
    assert found["env"].data == b"PYTHONPATH=/app\nEMPTY=\nA=x=y z\n"
    assert found["rootfs/bin/run"] == Entry("rootfs/bin/run", stat.S_IFREG | 0o755, b"program")
    assert found["rootfs/bin/link"].data == b"run"
    assert len(found) == 6


@pytest.mark.parametrize("path", ["/bin/run", "bin/run"])
def test_a_replaced_file_keeps_its_mode(root: Path, path: str) -> None:
    found = application(root, replaced={path: b"another"})
    assert found["rootfs/bin/run"] == Entry("rootfs/bin/run", stat.S_IFREG | 0o755, b"another")
    assert len(found) == 6
    assert (root / "bin/run").read_bytes() == b"program"


@pytest.mark.parametrize("path", ["/bin/walk", "/bin", "/bin/link", "/bin//run", "/../cmd"])
def test_what_is_replaced_has_to_be_a_file_that_is_there(root: Path, path: str) -> None:
    with pytest.raises(LabError, match="no such file"):
        application(root, replaced={path: b""})


def test_an_added_file_gets_its_folders(root: Path) -> None:
    found = application(root, added={"/etc/lab/new": b"new", "bin/new": b""})
    assert found["rootfs/etc/lab/new"].data == b"new"
    assert stat.S_ISDIR(found["rootfs/etc"].mode)
    assert stat.S_ISDIR(found["rootfs/etc/lab"].mode)


@pytest.mark.parametrize("path", ["/bin/run", "/bin", "bin/link"])
def test_what_is_added_must_not_be_there(root: Path, path: str) -> None:
    with pytest.raises(LabError, match="the image has it"):
        application(root, added={path: b""})


def test_nothing_is_added_beside_the_root_folder(root: Path) -> None:
    with pytest.raises(LabError, match="cannot be a name"):
        application(root, added={"/../cmd2": b""})


@pytest.mark.parametrize("command", [(), ("run",), ("",)])
def test_a_program_is_given_by_its_whole_path(root: Path, command: tuple[str, ...]) -> None:
    with pytest.raises(LabError, match="program to run"):
        application(root, command=command)


@pytest.mark.parametrize("argument", ["", "a\nb", "a\0b"])
def test_arguments_are_lines(root: Path, argument: str) -> None:
    with pytest.raises(LabError, match="not one line"):
        application(root, command=("/bin/run", argument))


@pytest.mark.parametrize("value", ["a\nb", "a\0b"])
def test_variables_are_lines(root: Path, value: str) -> None:
    with pytest.raises(LabError, match="not one line"):
        application(root, environment={"NAME": value})


@pytest.mark.parametrize("name", ["", "A=B", "1A", "A B", "-u", "A\n"])
def test_variables_have_names(root: Path, name: str) -> None:
    with pytest.raises(LabError, match="name of a variable"):
        application(root, environment={name: ""})


@pytest.fixture
def started(root: Path, tmp_path: Path) -> str:
    """What /init does beside mounting, done here by sh: with `echo` for what needs a machine."""
    machine = tmp_path / "machine"
    for name, entry in application(root, environment={"A": "x=y z", "B": "$B *"}).items():
        if stat.S_ISREG(entry.mode):
            (machine / name).parent.mkdir(parents=True, exist_ok=True)
            (machine / name).write_bytes(entry.data)
    (machine / "mods").mkdir()
    (machine / "mods/0-first.ko").touch()
    (machine / "busybox").write_text('#!/bin/sh\nfor word; do printf "[%s]" "$word"; done; echo\n')
    (machine / "busybox").chmod(0o755)
    script = re.sub(r"(?<=[ =])/(?=rootfs|env|cmd|mods)", f"{machine}/", ramdisks.INIT)
    script = script.replace("B=/bin/busybox", f"B={machine}/busybox")
    script = re.sub(r"< \$R/dev/null", "< /dev/null", script)
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout.replace(str(machine), "")


def test_init_starts_the_program_with_its_words_and_its_environment_alone(started: str) -> None:
    program = "[chroot][/rootfs][/bin/run][two words][$HOME]"
    assert f"[env][-i][A=x=y z][B=$B *][/busybox]{program}\n" in started


def test_init_mounts_and_loads_modules_first(started: str) -> None:
    before = started.split("[env]", maxsplit=1)[0]
    assert "[mount][-t][devtmpfs][dev][/rootfs/dev]\n" in before
    assert "[insmod][/mods/0-first.ko]\n" in before


def test_init_says_how_the_program_ended_and_ends_the_machine(started: str) -> None:
    assert started.endswith(f"{ramdisks.ENDED} 0\n[reboot][-f]\n")

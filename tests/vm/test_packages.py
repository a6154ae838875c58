import lzma
import os
import platform
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.vm import packages
from tests.vm.errors import LabUnavailableError

# apt-get and apt-cache as far as they are used here: a package is a file that has its name.
APT_GET = """\
folder=$(dirname "$APT_CONFIG")
echo "$PWD" apt-get "$@" "$(cat "$folder/sources.list")" >> "$CALLS"
case $* in
*update) ;;
*install*) for name; do case $name in -*|install) ;; *) touch "$folder/archives/${name}_1_all.deb"
    esac; done; touch "$folder/archives/systemd_1_amd64.deb" ;;
*download*) for name; do :; done; touch "${name%/*}_1_amd64.deb" ;;
esac
"""
APT_CACHE = """\
printf 'Package: %s\\nDepends: a, linux-image-6.99+deb12-cloud-amd64 (= 6.99-1), b\\n' "$2"
"""
DPKG_DEB = """\
name=$(basename "$2") name=${name%%_*}
echo "unpack $name" >> "$CALLS"
case $name in
qemu-system-x86) cp -R "$DEBIAN/qemu/." "$3" ;;
busybox-static) cp -R "$DEBIAN/guest/." "$3" ;;
linux-image*) cp -R "$DEBIAN/kernel/." "$3" ;;
esac
"""
APT_CONFIG = """\
echo 'Acquire::http::Proxy "http://proxy.example:3128";'
"""


class Debian:
    """A machine with these tools, and packages with what the lab takes from them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tools, self.calls = folder / "tools", folder / "calls"
        self.tools.mkdir(parents=True)
        self.calls.touch()
        self.tool("apt-get", APT_GET)
        self.tool("apt-cache", APT_CACHE)
        self.tool("apt-config", APT_CONFIG)
        self.tool("dpkg-deb", DPKG_DEB)
        self.file("qemu/usr/lib64/ld-linux-x86-64.so.2")
        self.file("qemu/usr/bin/qemu-system-x86_64")
        self.file("guest/bin/busybox")
        self.file("kernel/boot/vmlinuz-6.99")
        for name in packages.MODULES:
            self.file(f"kernel/lib/modules/6.99/kernel/{name}.ko.xz", lzma.compress(name.encode()))

    def tool(self, name: str, script: str) -> None:
        (self.tools / name).write_text(f"#!/bin/sh\nset -eu\n{script}")
        (self.tools / name).chmod(0o755)

    def file(self, name: str, data: bytes = b"") -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines()


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Debian:
    debian = Debian(tmp_path / "debian")
    debian.file("keyring")
    monkeypatch.setattr(packages, "KEYRING", debian.folder / "keyring")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setenv("PATH", f"{debian.tools}:/usr/bin:/bin")
    monkeypatch.setenv("FOOBAR_LAB_DEBIAN", "http://mirror.example/debian")
    monkeypatch.setenv("CALLS", str(debian.calls))
    monkeypatch.setenv("DEBIAN", str(debian.folder))
    return debian


@pytest.mark.usefixtures("debian")
def test_software_is_unpacked_and_found(tmp_path: Path) -> None:
    software = packages.fetch(tmp_path / "cache")
    for path in (Path(software.qemu[0]), Path(software.qemu[3]), software.kernel, software.busybox):
        assert path.is_file()
    assert software.guest.is_dir()
    contents = [path.read_bytes().decode() for path in software.modules]
    assert contents == list(packages.MODULES)
    assert not list((tmp_path / "cache").rglob("*.deb"))


def test_each_suite_has_a_state_of_its_own(debian: Debian, tmp_path: Path) -> None:
    packages.fetch(tmp_path / "cache")
    calls = " ".join(debian.called())
    signed = f"deb [arch=amd64 signed-by={debian.folder}/keyring] http://mirror.example/debian"
    for suite in ("sid", "bookworm", "bookworm-backports"):
        assert f"{signed} {suite} main" in calls
    installs = [call for call in debian.called() if "install" in call]
    assert len(installs) == 2
    assert all("--download-only" in call for call in installs)
    assert "linux-image-6.99+deb12-cloud-amd64/bookworm-backports" in calls


def test_what_is_large_and_unused_stays_packed(debian: Debian, tmp_path: Path) -> None:
    packages.fetch(tmp_path / "cache")
    assert "unpack qemu-system-x86" in debian.called()
    assert "unpack systemd" not in debian.called()


def test_a_complete_folder_is_used_again(debian: Debian, tmp_path: Path) -> None:
    first = packages.fetch(tmp_path / "cache")
    debian.calls.write_text("")
    assert packages.fetch(tmp_path / "cache") == first
    assert not debian.called()


@pytest.mark.parametrize("recipe", [None, "1"])
def test_any_other_folder_is_made_anew(debian: Debian, tmp_path: Path, recipe: str | None) -> None:
    old = tmp_path / "cache/software"
    old.mkdir(parents=True)
    (old / "old").touch()
    (tmp_path / "cache/software.new").mkdir()
    if recipe is not None:
        (old / "recipe").write_text(recipe)
    packages.fetch(tmp_path / "cache")
    assert debian.called()
    assert not (old / "old").exists()


def test_a_failure_leaves_nothing_that_would_be_used(debian: Debian, tmp_path: Path) -> None:
    (debian.folder / "kernel/boot/vmlinuz-6.99").unlink()
    with pytest.raises(LabUnavailableError, match="have 0 kernel/boot/vmlinuz"):
        packages.fetch(tmp_path / "cache")
    debian.file("kernel/boot/vmlinuz-6.99")
    assert packages.fetch(tmp_path / "cache").kernel.is_file()


@pytest.mark.parametrize(
    ("when", "what"),
    [
        ("update", "cannot fetch the package lists of Debian (sid|bookworm): E: Failed first$"),
        ("install", "cannot fetch (qemu-system-x86|python3) and what it needs: E: Failed first$"),
        ("download ", r"cannot fetch linux-image-6.99\+deb12-cloud-amd64: E: Failed first$"),
    ],
)
def test_what_apt_cannot_do_is_said_in_one_line(
    debian: Debian, tmp_path: Path, when: str, what: str
) -> None:
    failing = "echo 'W: hm' >&2; echo 'E: Failed first' >&2; echo 'E: Then' >&2; exit 100"
    debian.tool("apt-get", f'case "$* " in *"{when}"*) {failing} ;; esac\n{APT_GET}')
    with pytest.raises(LabUnavailableError, match=what):
        packages.fetch(tmp_path / "cache")


def test_a_kernel_has_to_be_named(debian: Debian, tmp_path: Path) -> None:
    debian.tool("apt-cache", "echo 'Depends: linux-image-generic'")
    with pytest.raises(LabUnavailableError, match="cannot find the kernel that linux-image-cloud"):
        packages.fetch(tmp_path / "cache")


def test_a_kernel_without_a_module_is_refused(debian: Debian, tmp_path: Path) -> None:
    (debian.folder / "kernel/lib/modules/6.99/kernel/drivers/misc/nsm.ko.xz").unlink()
    with pytest.raises(LabUnavailableError, match=r"have 0 .*nsm\.ko\.xz"):
        packages.fetch(tmp_path / "cache")


def test_a_damaged_module_is_refused(debian: Debian, tmp_path: Path) -> None:
    debian.file("kernel/lib/modules/6.99/kernel/drivers/misc/nsm.ko.xz", b"no")
    with pytest.raises(LabUnavailableError, match=r"cannot unpack .*nsm\.ko\.xz"):
        packages.fetch(tmp_path / "cache")


def test_a_damaged_package_is_refused(debian: Debian, tmp_path: Path) -> None:
    debian.tool("dpkg-deb", "echo 'dpkg-deb: error: unexpected end of file' >&2; exit 2")
    with pytest.raises(LabUnavailableError, match=r"cannot unpack .*\.deb: dpkg-deb: error: unexp"):
        packages.fetch(tmp_path / "cache")


@pytest.mark.usefixtures("debian")
def test_another_processor_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(LabUnavailableError, match="needs an x86_64 machine, not aarch64"):
        packages.fetch(tmp_path)


def test_a_missing_tool_is_named(
    debian: Debian, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(debian.tools))
    (debian.tools / "apt-cache").unlink()
    with pytest.raises(LabUnavailableError, match="apt-cache is missing"):
        packages.fetch(tmp_path)


@pytest.mark.usefixtures("debian")
def test_a_missing_keyring_is_named(tmp_path: Path) -> None:
    packages.KEYRING.unlink()
    with pytest.raises(LabUnavailableError, match="keyring is missing: install debian-archive"):
        packages.fetch(tmp_path)


def test_apt_keeps_to_its_folder() -> None:
    settings = dict(
        re.findall(r'^(\S+) "(.*)";$', packages.configuration(Path("/x")), re.MULTILINE)
    )
    for name, value in settings.items():
        if name.startswith("Dir::"):
            assert value in ("", "/dev/null") or Path(value).is_relative_to("/x"), name
    assert settings["Dir::Etc::parts"] == settings["Dir::Etc::sourceparts"] == "/dev/null"
    assert settings["APT::Get::AllowUnauthenticated"] == "false"


@pytest.mark.skipif(not shutil.which("apt-config"), reason="apt is not installed")
def test_apt_itself_reads_it_so(tmp_path: Path) -> None:
    (tmp_path / "apt.conf").write_text(packages.configuration(tmp_path))
    command = ["env", f"APT_CONFIG={tmp_path}/apt.conf", "apt-config", "dump"]
    dumped = packages.run(command, doing="dump")
    assert f'Dir::State::lists "{tmp_path}/lists";' in dumped
    assert "Post-Invoke" not in dumped


@pytest.mark.usefixtures("debian")
def test_the_systems_way_out_is_kept(tmp_path: Path) -> None:
    apt = packages.Apt.create(tmp_path / "apt", "http://mirror.example/debian", ("sid",))
    assert (
        'Acquire::http::Proxy "http://proxy.example:3128";' in (apt.folder / "apt.conf").read_text()
    )


def test_a_program_that_takes_too_long_is_ended() -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with pytest.raises(LabUnavailableError, match="cannot wait: not done in 0 s"):
        packages.run(command, doing="wait", seconds=0.2)


def test_a_program_that_is_not_there_is_named_by_what_it_does() -> None:
    with pytest.raises(LabUnavailableError, match="cannot begin: No such file"):
        packages.run([f"{os.devnull}x"], doing="begin")


@pytest.mark.parametrize(
    ("stderr", "line"),
    [
        ("W: a\nE: b\nE: c\n", "E: b"),
        ("first\n  last  \n\n", "last"),
        ("", "no reason given"),
        ("\n \n", "no reason given"),
    ],
)
def test_a_complaint_is_one_line(stderr: str, line: str) -> None:
    assert packages.complaint(stderr) == line

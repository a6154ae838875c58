"""Gets the lab's software from Debian's archive: QEMU, a kernel, and a userland for machines.

Nothing is installed and the system's own package lists stay as they are: apt works with lists and
an empty database of its own, downloads only, and the packages are unpacked into folders. QEMU runs
by the C library that was unpacked with it.

    sid                  QEMU, which has vhost-user-vsock and the vhost-user test device (10.1+)
    bookworm-backports   a kernel of 6.8 or later, as those have the Nitro security module's driver
    bookworm             busybox and the userland, with Python 3.11

The folder may be kept between runs: it is used again only where it was completed.
"""

import fcntl
import lzma
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.vm import sources
from tests.vm.errors import LabUnavailableError

KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SOURCES: Final = Path("/etc/apt")
RECIPE: Final = "2"  # of another one, a kept folder is made anew

QEMU: Final = ("qemu-system-x86",)
GUEST: Final = ("python3", "python3-pip", "busybox-static")
KERNEL: Final = "linux-image-cloud-amd64"  # the package that depends on the newest kernel
# Large, and nothing that QEMU is linked with.
NOT_UNPACKED: Final = ("systemd", "libsystemd-shared", "libc-gconv-modules-extra", "dpkg", "tar")
# In the order in which they are loaded.
MODULES: Final = (
    "net/vmw_vsock/vsock",
    "net/vmw_vsock/vmw_vsock_virtio_transport_common",
    "net/vmw_vsock/vmw_vsock_virtio_transport",
    "drivers/misc/nsm",
)
DOWNLOAD_SECONDS: Final = 300.0
STEP_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Software:
    """What the machines are made of.

    `qemu` is the beginning of a command line: QEMU, and where it finds its firmware. `modules` are
    in the order in which they are loaded. `guest` is a root folder with Python 3.11 and pip.
    """

    qemu: tuple[str, ...]
    kernel: Path
    modules: tuple[Path, ...]
    busybox: Path
    guest: Path


def fetch(folder: Path) -> Software:
    """The software below `folder`, downloaded where it is not there yet.

    Raises:
        LabUnavailableError: this machine cannot have it; the text is one line and says why.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "software"
        if not _complete(done):
            _check_machine()
            new = folder / "software.new"
            for old in (new, done):
                shutil.rmtree(old, ignore_errors=True)
            _make(new)
            new.rename(done)
    return _software(done)


def _complete(folder: Path) -> bool:
    try:
        return (folder / "recipe").read_text() == RECIPE
    except OSError:
        return False


def _check_machine() -> None:
    if platform.machine() != "x86_64":
        raise LabUnavailableError(f"the lab needs an x86_64 machine, not {platform.machine()}")
    for tool in ("apt-get", "apt-cache", "apt-config", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise LabUnavailableError(f"{tool} is missing: the lab is made of Debian's packages")
    if not KEYRING.exists():
        raise LabUnavailableError(f"{KEYRING} is missing: install debian-archive-keyring")


def _make(folder: Path) -> None:
    archive = sources.archive(SOURCES)
    with ThreadPoolExecutor(max_workers=2) as pool:
        machines = pool.submit(_make_machines, folder, archive)
        emulator = pool.submit(_make_qemu, folder, archive)
        emulator.result()
        machines.result()
    shutil.rmtree(folder / "apt")
    _software(folder)  # has to be all there
    (folder / "recipe").write_text(RECIPE)


def _make_qemu(folder: Path, archive: str) -> None:
    apt = Apt.create(folder / "apt/sid", archive, ("sid",))
    _unpack(apt.download(QEMU), folder / "qemu")


def _make_machines(folder: Path, archive: str) -> None:
    apt = Apt.create(folder / "apt/bookworm", archive, ("bookworm", "bookworm-backports"))
    _unpack(apt.download(GUEST), folder / "guest")
    kernel = apt.dependency(KERNEL, "bookworm-backports", r"linux-image-\S+-cloud-amd64")
    packages = apt.download_alone(kernel, "bookworm-backports")
    _unpack(packages, folder / "kernel")
    _unpack_modules(folder / "kernel", folder / "modules")


@dataclass(frozen=True, slots=True)
class Apt:
    """apt-get with a configuration and a state of its own, below `folder`."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, archive: str, suites: Sequence[str]) -> "Apt":
        """With the lists of these suites fetched."""
        for name in ("lists/partial", "archives/partial", "alone"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        lines = [f"deb [arch=amd64 signed-by={KEYRING}] {archive} {suite} main" for suite in suites]
        (folder / "sources.list").write_text("\n".join([*lines, ""]))
        # What the system says of proxies and the like holds here too; its hooks do not.
        acquire = run(["apt-config", "dump", "Acquire"], doing="read apt's configuration")
        (folder / "apt.conf").write_text(acquire + configuration(folder))
        apt = cls(folder)
        apt._get("update", doing=f"fetch the package lists of Debian {suites[0]}")
        return apt

    def download(self, packages: Sequence[str]) -> list[Path]:
        """These and all that they depend on."""
        doing = f"fetch {packages[0]} and what it needs"
        self._get("install", "--download-only", "--no-install-recommends", *packages, doing=doing)
        return sorted((self.folder / "archives").glob("*.deb"))

    def download_alone(self, package: str, suite: str) -> list[Path]:
        """This one of a suite, without what it depends on."""
        alone = self.folder / "alone"
        self._get("download", f"{package}/{suite}", doing=f"fetch {package}", cwd=alone)
        return sorted(alone.glob("*.deb"))

    def dependency(self, package: str, suite: str, pattern: str) -> str:
        """The name of the package that this one depends on, by its pattern."""
        shown = self._run("apt-cache", "show", f"{package}/{suite}", doing=f"find {package}")
        found = re.search(rf"^Depends:(?:.*[ ,])?({pattern})\b", shown, re.MULTILINE)
        if found is None:
            raise LabUnavailableError(
                f"cannot find the kernel that {package} of {suite} stands for"
            )
        return found[1]

    def _get(self, *arguments: str, doing: str, cwd: Path | None = None) -> None:
        self._run("apt-get", "-qq", "--yes", *arguments, doing=doing, cwd=cwd)

    def _run(self, *command: str, doing: str, cwd: Path | None = None) -> str:
        configured = ["env", f"APT_CONFIG={self.folder / 'apt.conf'}", "LC_ALL=C", *command]
        return run(configured, doing=doing, cwd=cwd, seconds=DOWNLOAD_SECONDS)


def configuration(folder: Path) -> str:
    """An apt.conf that keeps everything below `folder`, and reads nothing of the system's."""
    settings = {
        "Dir::Etc::main": "/dev/null",
        "Dir::Etc::parts": "/dev/null",
        "Dir::Etc::sourcelist": f"{folder}/sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State": str(folder),
        "Dir::State::status": f"{folder}/status",
        "Dir::State::lists": f"{folder}/lists",
        "Dir::Cache": str(folder),
        "Dir::Cache::archives": f"{folder}/archives",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "",
        "APT::Update::Error-Mode": "any",  # a list that cannot be had is no mere warning
        "APT::Get::AllowUnauthenticated": "false",
        "Acquire::AllowInsecureRepositories": "false",
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
        "Acquire::http::Timeout": "30",
        "Acquire::https::Timeout": "30",
    }
    return "".join(f'{name} "{value}";\n' for name, value in settings.items())


def run(
    command: Sequence[str], *, doing: str, cwd: Path | None = None, seconds: float = STEP_SECONDS
) -> str:
    """The standard output of a program.

    Raises:
        LabUnavailableError: it failed, took longer than `seconds`, or is not there.
    """
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, timeout=seconds, check=False, text=True,
            errors="replace", stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise LabUnavailableError(f"cannot {doing}: not done in {seconds:.0f} s") from error
    except OSError as error:
        raise LabUnavailableError(f"cannot {doing}: {error.strerror}") from error
    if done.returncode:
        raise LabUnavailableError(f"cannot {doing}: {complaint(done.stderr)}")
    return done.stdout


def complaint(stderr: str) -> str:
    """The one line of a program's complaints that says most: apt's first error, or the last."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("E:")]
    return (errors or lines[-1:] or ["no reason given"])[0]


def _unpack(packages: Sequence[Path], folder: Path) -> None:
    folder.mkdir()
    for package in packages:
        if package.name.split("_", 1)[0] not in NOT_UNPACKED:
            run(["dpkg-deb", "-x", str(package), str(folder)], doing=f"unpack {package.name}")


def _unpack_modules(kernel: Path, folder: Path) -> None:
    folder.mkdir()
    for number, name in enumerate(MODULES):
        packed = _the_one(kernel, f"lib/modules/*/kernel/{name}.ko.xz")
        try:
            module = lzma.decompress(packed.read_bytes())
        except lzma.LZMAError as error:
            raise LabUnavailableError(f"cannot unpack {packed}") from error
        (folder / f"{number}-{packed.stem}").write_bytes(module)


def _software(folder: Path) -> Software:
    unpacked = folder / "qemu/usr"
    loader = _the_one(folder, "qemu/usr/lib64/ld-linux-x86-64.so.2")
    program = _the_one(folder, "qemu/usr/bin/qemu-system-x86_64")
    libraries = unpacked / "lib/x86_64-linux-gnu"
    qemu = [str(loader), "--library-path", str(libraries), str(program)]
    for firmware in ("share/qemu", "share/seabios", "lib/ipxe/qemu"):
        qemu += ["-L", str(unpacked / firmware)]
    return Software(
        qemu=tuple(qemu),
        kernel=_the_one(folder, "kernel/boot/vmlinuz-*"),
        modules=tuple(sorted((folder / "modules").iterdir())),
        busybox=_the_one(folder, "guest/bin/busybox"),
        guest=folder / "guest",
    )


def _the_one(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise LabUnavailableError(f"Debian's packages have {len(found)} {pattern}, not one")
    return found[0]

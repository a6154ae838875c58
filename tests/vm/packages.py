"""Gets QEMU, a kernel and the parent's userland from Debian's archive, without installing them.

apt works with package lists and an empty database of its own, only downloads, and `dpkg-deb -x`
unpacks the packages. QEMU runs with the C library that was unpacked with it.

    sid     QEMU 10.1 or later, which has the vhost-user test device
    trixie  a kernel with the NSM driver (6.8 or later), Python 3.13, busybox, qemu-guest-agent
"""

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.vm.programs import LabUnavailableError, run

VARIABLE: Final = "FOOBAR_LAB_DEBIAN"
SUITES: Final = ("bookworm", "trixie", "forky", "duke", "stable", "testing", "unstable", "sid")
KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

QEMU: Final = ("qemu-system-x86",)
GUEST: Final = ("python3", "busybox-static", "qemu-guest-agent")
KERNEL: Final = "linux-image-cloud-amd64"  # depends on the newest kernel package
SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Software:
    """What the machines are made of.

    `qemu` is the start of a command line, `guest` a root directory with busybox, Python 3.13 and
    qemu-ga, `modules` the kernel's directory of modules.
    """

    qemu: tuple[str, ...]
    kernel: Path
    modules: Path
    guest: Path


def fetch(cache: Path) -> Software:
    """Return the software in `cache`, downloaded if it is not complete there.

    Raises:
        LabError: It cannot be downloaded; the text is one line.
    """
    directory = cache.resolve() / "software"
    recipe = repr((QEMU, GUEST, KERNEL))
    stamp = directory / "recipe"
    if not stamp.exists() or stamp.read_text() != recipe:
        _check_machine()
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        archive = _archive()
        qemu = Apt(directory / "apt/sid", archive, "sid")
        qemu.download(*QEMU)
        qemu.unpack(directory / "qemu")
        guest = Apt(directory / "apt/trixie", archive, "trixie")
        guest.download(*GUEST)
        guest.unpack(directory / "guest")
        guest.download_kernel()
        guest.unpack(directory / "kernel")
        shutil.rmtree(directory / "apt")
        stamp.write_text(recipe)
    return _software(directory)


def _check_machine() -> None:
    if platform.machine() != "x86_64":
        raise LabUnavailableError(f"the lab needs an x86_64 machine, not {platform.machine()}")
    if not KEYRING.exists():
        raise LabUnavailableError(f"{KEYRING} is missing: install debian-archive-keyring")


def _archive() -> str:
    """Return the URI of Debian's archive, from the variable or from apt's sources."""
    if named := os.environ.get(VARIABLE):
        return named
    sources = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)"]
    listed = run([*sources, "Created-By: Packages"], doing="read apt's sources", seconds=SECONDS)
    for line in listed.splitlines():
        uri, suite, component = line.split()
        if suite in SUITES and component == "main":
            return uri
    raise LabUnavailableError(f"apt has no archive of Debian: set {VARIABLE} to the URI of one")


class Apt:
    """apt for one suite, with all its state in one directory."""

    def __init__(self, directory: Path, archive: str, suite: str) -> None:
        """Fetch the suite's package lists."""
        self._suite = suite
        self._packages = directory / "archives"
        for name in ("lists/partial", "archives/partial"):
            (directory / name).mkdir(parents=True)
        (directory / "status").touch()
        source = f"deb [arch=amd64 signed-by={KEYRING}] {archive} {suite} main\n"
        (directory / "sources.list").write_text(source)
        # The system's proxy settings still hold: they are in files that stay in use.
        options = {
            "Dir::Etc::sourcelist": f"{directory}/sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State": f"{directory}",
            "Dir::State::status": f"{directory}/status",
            "Dir::State::lists": f"{directory}/lists",
            "Dir::Cache": f"{directory}",
            "Dir::Cache::archives": f"{directory}/archives",
            "APT::Architecture": "amd64",
            "APT::Default-Release": "",
            "APT::Sandbox::User": "",
            "APT::Update::Error-Mode": "any",  # a list that cannot be fetched is an error
            "Acquire::Languages": "none",
            "Acquire::Retries": "2",
            "Acquire::http::Timeout": "30",
        }
        self._options = [f"-o{name}={value}" for name, value in options.items()]
        self._apt("apt-get", "update")

    def download(self, *packages: str) -> None:
        """Download packages and all that they depend on."""
        self._apt("apt-get", "install", "--download-only", "--no-install-recommends", *packages)

    def download_kernel(self) -> None:
        """Download the newest kernel, without what it depends on."""
        shown = self._apt("apt-cache", "depends", KERNEL)
        kernels = [word for word in shown.split() if word.startswith("linux-image-6.")]
        if len(kernels) != 1:
            raise LabUnavailableError(f"{KERNEL} depends on {kernels}, not on one kernel")
        self._apt("apt-get", "download", kernels[0])

    def unpack(self, directory: Path) -> None:
        """Unpack all that was downloaded since the last time."""
        # As Debian's base-files has them, which no package depends on.
        for name in ("bin", "sbin", "lib", "lib64"):
            (directory / "usr" / name).mkdir(parents=True)
            (directory / name).symlink_to(f"usr/{name}")
        for package in sorted(self._packages.glob("*.deb")):
            command = ["dpkg-deb", "-x", f"{package}", f"{directory}"]
            run(command, doing=f"unpack {package.name}", seconds=SECONDS)
            package.unlink()

    def _apt(self, program: str, *arguments: str) -> str:
        command = [program, "-qq", "--yes", *self._options, *arguments]
        if program == "apt-cache":
            command.remove("--yes")
        doing = f"get {arguments[-1]} of Debian {self._suite}"
        return run(command, doing=doing, seconds=SECONDS, cwd=self._packages)


def _software(directory: Path) -> Software:
    usr = directory / "qemu/usr"
    loader, libraries = usr / "lib64/ld-linux-x86-64.so.2", usr / "lib/x86_64-linux-gnu"
    qemu = [loader, "--library-path", libraries, usr / "bin/qemu-system-x86_64"]
    for firmware in ("share/qemu", "share/seabios", "lib/ipxe/qemu"):
        qemu += ["-L", usr / firmware]
    (kernel,) = (directory / "kernel/boot").glob("vmlinuz-*")
    (modules,) = (directory / "kernel").glob("usr/lib/modules/*/kernel")
    return Software(
        qemu=tuple(map(str, qemu)), kernel=kernel, modules=modules, guest=directory / "guest"
    )

"""Makes the root folder of the parent: Debian with this project installed as a user does it.

The wheels are downloaded here, for Debian's Python 3.11, and installed there by Debian's pip, from
the locked requirements and with their hashes; then the project, built there from its sources. What
pip installed stays as it is but for data that nothing here reads and that would only fill the
machine's memory: botocore's descriptions of services other than those in SERVICES, documentation,
translations, and the libraries' own tests. pip itself goes, as nothing is installed later. All that
runs is compiled beforehand.

Left to the machine: the name service has /etc/hosts alone, and there is no network but vsock.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.vm.authorities import Authorities
from tests.vm.errors import LabError, LabUnavailableError
from tests.vm.packages import Software, complaint, run

PROJECT: Final = Path(__file__).resolve().parents[2]
# What pip builds the project from.
SOURCES: Final = (
    "foobar_enclave", "foobar_instance", "foobar_shared", "proxy",
    "pyproject.toml", "README.md", "LICENSE", "requirements",
)  # fmt: skip
REQUIREMENTS: Final = ("requirements/runtime.txt",)
PYTHON: Final = "3.11"
GLIBC: Final = (17, 36)  # wheels for glibc 2.17 up to bookworm's own, 2.36
SERVICES: Final = ("kms", "sts")

PACKAGES: Final = "usr/local/lib/python3.11/dist-packages"
UNREAD: Final = (
    "usr/lib/python3",  # Debian's pip
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/share/doc", "usr/share/info", "usr/share/lintian", "usr/share/locale", "usr/share/man",
    "wheels", "sources", "root/.cache",
)  # fmt: skip
HOSTS: Final = "127.0.0.1 localhost kms.us-east-1.amazonaws.com\n"
PASSWD: Final = (
    "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
)
GROUP: Final = "root:x:0:\nnogroup:x:65534:\n"
DOWNLOAD_SECONDS: Final = 300.0
INSTALL_SECONDS: Final = 180.0


def build(software: Software, folder: Path, *, authorities: Authorities) -> Path:
    """The parent's root folder, `folder`/parent.

    The lab's modules are there as /lab/tests, the emulator, which the wheel does not hold, as
    /lab/emulator, and the authorities as /lab/authorities/*.pem.

    Raises:
        LabUnavailableError: this is not run by root, or the wheels cannot be had.
        LabError: the project does not install.
    """
    if os.geteuid():
        raise LabUnavailableError("the lab has to be run by root: it installs by chroot")
    root = folder / "parent"
    shutil.copytree(software.guest, root, symlinks=True)
    _download(root / "wheels")
    _copy_sources(root / "sources")
    for name in REQUIREMENTS:
        _pip(root, "--require-hashes", "--requirement", f"/sources/{name}")
    _pip(root, "--no-build-isolation", "/sources")
    prune(root)
    _configure(root)
    _add_lab(root / "lab", authorities)
    _compile(root)
    return root


def _download(folder: Path) -> None:
    tags = [f"manylinux_2_{minor}_x86_64" for minor in range(GLIBC[0], GLIBC[1] + 1)]
    platforms = [f"--platform={tag}" for tag in [*reversed(tags), "manylinux2014_x86_64"]]
    lists = [f"--requirement={PROJECT / name}" for name in REQUIREMENTS]
    run(
        [
            *(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download"),
            *("--no-deps", "--require-hashes", "--only-binary=:all:", "--implementation=cp"),
            *(f"--python-version={PYTHON}", *platforms, f"--dest={folder}", *lists),
        ],
        doing="download the parent's Python packages",
        seconds=DOWNLOAD_SECONDS,
    )


def _copy_sources(folder: Path) -> None:
    folder.mkdir()
    ignored = shutil.ignore_patterns("__pycache__")
    for name in SOURCES:
        path = PROJECT / name
        if path.is_dir():
            shutil.copytree(path, folder / name, ignore=ignored)
        else:
            shutil.copy(path, folder / name)


def _pip(root: Path, *arguments: str) -> None:
    _inside(
        root,
        *("-m", "pip", "--isolated", "--quiet", "install", "--no-index", "--find-links=/wheels"),
        *("--no-deps", "--no-compile", "--break-system-packages", "--root-user-action=ignore"),
        *arguments,
    )


def _inside(root: Path, *arguments: str) -> None:
    """Runs the root folder's Python in it, with no variable of this machine's."""
    path = "PATH=/usr/local/bin:/usr/bin:/bin"
    command = ["env", "-i", path, "LC_ALL=C.UTF-8", "HOME=/root"]
    command += [shutil.which("chroot") or "/usr/sbin/chroot", str(root), "/usr/bin/python3"]
    try:
        done = subprocess.run(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"the parent: python3 {arguments[1]} did not end") from error
    if done.returncode:
        raise LabError(f"the parent: python3 {' '.join(arguments)}: {complaint(done.stderr)}")


def prune(root: Path) -> None:
    """Removes what the module's description says."""
    for name in UNREAD:
        shutil.rmtree(root / name, ignore_errors=True)
    packages = root / PACKAGES
    for folder in _folders(packages / "botocore/data"):
        if folder.name not in SERVICES:
            shutil.rmtree(folder)
    for library in _folders(packages):
        for name in ("test", "tests"):
            shutil.rmtree(library / name, ignore_errors=True)


def _folders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.is_symlink()]


def _configure(root: Path) -> None:
    for name in ("etc", "lab", "root", "run", "tmp", "var/tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "root").chmod(0o700)
    for name in ("tmp", "var/tmp"):
        (root / name).chmod(0o1777)
    texts = {"hosts": HOSTS, "passwd": PASSWD, "group": GROUP}
    for name, text in texts.items():
        (root / "etc" / name).write_text(text)
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "bin/sh").symlink_to("busybox")


def _add_lab(lab: Path, authorities: Authorities) -> None:
    modules = sorted(
        path for name in ("tests/vm", "emulator") for path in (PROJECT / name).rglob("*.py")
    )
    for path in [PROJECT / "tests/__init__.py", *modules]:
        copy = lab / path.relative_to(PROJECT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    folder = lab / "authorities"
    folder.mkdir()
    for name in ("nitro_root", "tls_ca", "tls_key_and_certificate"):
        (folder / f"{name}.pem").write_bytes(getattr(authorities, name))
    (folder / "tls_key_and_certificate.pem").chmod(0o600)


def _compile(root: Path) -> None:
    # Checked against nothing, as an archive's files have no times. With no /dev/shm there,
    # compileall itself cannot use several processes.
    unchecked = ("-m", "compileall", "-q", "--invalidation-mode=unchecked-hash")
    _inside(root, *unchecked, "/usr/lib/python3.11", "/lab", f"/{PACKAGES}")

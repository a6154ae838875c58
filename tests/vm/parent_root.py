"""Makes the parent's root directory: Debian's userland with this project installed by pip.

pip installs the locked requirements, checked against their hashes, and the project. Data that
nothing here reads is then removed, because a machine holds all its files in memory.
"""

import shutil
import sys
from pathlib import Path
from typing import Final

from tests.vm.aws import KMS_HOST, Authorities
from tests.vm.programs import run

PROJECT: Final = Path(__file__).resolve().parents[2]
REQUIREMENTS: Final = ("requirements/runtime.txt",)
PYTHON: Final = "3.13"
# Wheels for glibc 2.17 to 2.41, which is Debian trixie's.
PLATFORMS: Final = [
    *(f"--platform=manylinux_2_{minor}_x86_64" for minor in range(41, 16, -1)),
    "--platform=manylinux2014_x86_64",
]
PACKAGES: Final = f"usr/local/lib/python{PYTHON}/dist-packages"
UNREAD: Final = ("usr/share/doc", "usr/share/locale", "usr/share/man", f"{PACKAGES}/bin")
BOTOCORE_SERVICES: Final = ("kms", "sts")
ETC: Final = {
    "hosts": f"127.0.0.1 localhost {KMS_HOST}\n",
    "passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
    "group": "root:x:0:\nnogroup:x:65534:\n",
}
SECONDS: Final = 300.0


def build(guest: Path, root: Path, authorities: Authorities) -> None:
    """Make `root` from Debian's userland in `guest`.

    The lab's programs are in /lab/tests/vm/guest, the authorities' files in /lab/authorities.

    Raises:
        LabError: The project cannot be installed.
    """
    shutil.copytree(guest, root, symlinks=True)
    locks = [f"--requirement={PROJECT / name}" for name in REQUIREMENTS]
    _pip(root, "--require-hashes", "--only-binary=:all:", *PLATFORMS, *locks)
    _pip(root, "--no-build-isolation", f"{PROJECT}")
    script = (root / PACKAGES / "bin/foobar-instance").read_text().partition("\n")[2]
    program = root / "usr/local/bin/foobar-instance"
    program.parent.mkdir()
    program.write_text(f"#!/usr/bin/python3\n{script}")
    program.chmod(0o755)
    _prune(root)
    _configure(root)
    _add_lab(root / "lab", authorities)
    # Importing the libraries takes three times as long when they are not compiled. An archive
    # keeps no times that a .pyc file could be checked against.
    python = ["chroot", f"{root}", "/usr/bin/python3", "-m", "compileall"]
    options = ["-q", "--invalidation-mode=unchecked-hash"]
    command = [*python, *options, f"/usr/lib/python{PYTHON}", f"/{PACKAGES}", "/lab"]
    run(command, doing="compile the parent's Python files", seconds=SECONDS)


def _pip(root: Path, *arguments: str) -> None:
    install = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    options = ["--no-deps", "--no-compile", f"--python-version={PYTHON}", "--upgrade"]
    command = [*install, *options, f"--target={root / PACKAGES}", *arguments]
    run(command, doing="install the parent's Python packages", seconds=SECONDS)


def _prune(root: Path) -> None:
    packages = root / PACKAGES
    unread = [root / name for name in UNREAD]
    unread += [
        path
        for path in (packages / "botocore/data").iterdir()
        if path.is_dir() and path.name not in BOTOCORE_SERVICES
    ]
    for path in unread:
        shutil.rmtree(path, ignore_errors=True)


def _configure(root: Path) -> None:
    for name, mode in {"root": 0o700, "run": 0o755, "tmp": 0o1777, "etc": 0o755}.items():
        (root / name).mkdir(exist_ok=True)
        (root / name).chmod(mode)
    for name, text in ETC.items():
        (root / "etc" / name).write_text(text)
    (root / "bin/sh").symlink_to("busybox")


def _add_lab(lab: Path, authorities: Authorities) -> None:
    for package in ("tests", "tests/vm", "tests/vm/guest"):
        (lab / package).mkdir(parents=True)
        (lab / package / "__init__.py").touch()
    for path in (PROJECT / "tests/vm/guest").glob("*.py"):
        shutil.copy(path, lab / "tests/vm/guest")
    shutil.copytree(PROJECT / "emulator", lab / "emulator")  # the wheel does not hold it
    (lab / "authorities").mkdir()
    for name, data in authorities.files.items():
        (lab / "authorities" / name).write_bytes(data)
    (lab / "authorities/tls_key_and_certificate.pem").chmod(0o600)

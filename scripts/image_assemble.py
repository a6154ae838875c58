#!/usr/bin/env python3
"""Copies the files that the service needs into the enclave image's file tree.

    image_assemble.py PROBE PACKAGES TREE

PROBE is the program that finds them. The tree holds the interpreter, its shared libraries, the
modules of its standard library that are loaded, and of PACKAGES the files that are loaded or read.
All of it belongs to root and has the time SOURCE_DATE_EPOCH. There is no bytecode.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

VERSION = f"python{sys.version_info[0]}.{sys.version_info[1]}"
PREFIX = Path("usr/local")
APP = Path("app")
OWN = ("foobar_enclave", "foobar_shared")

LOADERS = {"x86_64": "/lib64/ld-linux-x86-64.so.2", "aarch64": "/lib/ld-linux-aarch64.so.1"}

# The container's runtime and the enclave's init mount file systems here.
MOUNT_POINTS = ("dev", "proc", "run", "sys", "tmp", "var")

# The part of botocore's data that KMS needs. The rest describes other services.
SDK_DATA = re.compile(
    r"botocore/data/(kms/[0-9-]+/[a-z0-9-]+\.json(\.gz)?"
    r"|(_retry|endpoints|partitions|sdk-default-configuration)\.json(\.gz)?)"
)


def main(probe: Path, packages: Path, tree: Path) -> None:
    """Fill `tree`, which must not exist yet."""
    tree.mkdir(mode=0o755)
    seen = _probe(probe, packages)
    loader = Path(LOADERS[platform.machine()])
    standard_library = Path(sysconfig.get_path("stdlib"))
    binaries = [Path(sys.executable).resolve()]
    _copy(binaries[0], tree / PREFIX / "bin/python3")
    # This project's packages go in whole: the probe cannot see OpenSSL read the root certificates.
    own = {path for name in OWN for path in (packages / name).rglob("*") if path.is_file()}
    for path in sorted(own | seen["modules"] | seen["read"] | seen["mapped"]):
        if (inside := _inside(path, packages)) is not None:
            _copy(path, tree / APP / inside)
        elif (inside := _inside(path, standard_library)) is not None:
            _copy(path, tree / PREFIX / "lib" / VERSION / inside)
        else:
            continue
        if path.suffix == ".so" or ".so." in path.name:
            binaries.append(path)
    # CPython finds its own directories by looking for these two.
    _copy(standard_library / "os.py", tree / PREFIX / "lib" / VERSION / "os.py")
    (tree / PREFIX / "lib" / VERSION / "lib-dynload").mkdir(exist_ok=True)
    _copy_libraries(tree, loader, binaries, seen["mapped"])
    for name in MOUNT_POINTS:
        (tree / name).mkdir(exist_ok=True)
    _check_data(tree)
    _stamp(tree, int(os.environ["SOURCE_DATE_EPOCH"]))


def _probe(probe: Path, packages: Path) -> dict[str, set[Path]]:
    """Run the probe and return the files that it names, as absolute paths."""
    answer = subprocess.run(
        [sys.executable, "-S", "-P", "-B", str(probe)],
        env={"PYTHONPATH": str(packages), "PATH": os.defpath},
        stdout=subprocess.PIPE,
        check=True,
    )
    return {
        kind: {path for name in names if (path := Path(os.path.abspath(name))).is_file()}  # noqa: PTH100
        for kind, names in json.loads(answer.stdout).items()
    }


def _inside(path: Path, folder: Path) -> Path | None:
    if "__pycache__" in path.parts or not path.is_relative_to(folder):
        return None
    return path.relative_to(folder)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755 if target.parent.name == "bin" or ".so" in target.name else 0o644)


def _copy_libraries(
    tree: Path, loader: Path, binaries: Iterable[Path], mapped: Iterable[Path]
) -> None:
    """Copy the dynamic loader and the libraries that it finds, under the names it asks for."""
    folder = tree / "lib" / f"{platform.machine()}-linux-gnu"
    _copy(loader, tree / loader.relative_to("/"))
    done = {loader.resolve()}
    for name, path in sorted({pair for binary in binaries for pair in _needed(loader, binary)}):
        _copy(path, folder / name)
        done.add(path.resolve())
    ours = {binary.resolve() for binary in binaries}
    for path in sorted(mapped):
        if ".so" in path.name and path.resolve() not in done | ours:
            _copy(path, folder / path.name)  # the program opened it by name


def _needed(loader: Path, binary: Path) -> Iterator[tuple[str, Path]]:
    """Yield name and path of each shared library that a binary is linked with."""
    answer = subprocess.run(
        [str(loader), "--list", str(binary)], stdout=subprocess.PIPE, text=True, check=True
    )
    for name, path in re.findall(r"^\s*(\S+) => (/\S+) \(", answer.stdout, re.MULTILINE):
        if "/" not in name and not Path(path).is_relative_to(binary.parent):
            yield name, Path(path)


def _check_data(tree: Path) -> None:
    """Exit unless the SDK read the data of KMS and of no other service."""
    data = {
        str(path.relative_to(tree / APP))
        for path in (tree / APP / "botocore/data").rglob("*")
        if path.is_file()
    }
    strange = sorted(name for name in data if not SDK_DATA.fullmatch(name))
    if strange or not any("/kms/" in name for name in data):
        sys.exit(f"image_assemble: the SDK's data is not that of KMS alone: {strange}")


def _stamp(tree: Path, seconds: int) -> None:
    """Give every path the same owner and time, and every directory the same mode."""
    for path in sorted(tree.rglob("*"), reverse=True):
        os.chown(path, 0, 0)
        if path.is_dir():
            path.chmod(0o755)
        os.utime(path, (seconds, seconds))
    os.utime(tree, (seconds, seconds))


if __name__ == "__main__":
    main(*(Path(argument).absolute() for argument in sys.argv[1:4]))

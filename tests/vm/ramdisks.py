"""Builds the two ramdisks that a machine of the lab starts from, as an enclave does.

The first has what every machine needs: /init, busybox and kernel modules. The second has what sets
one kind of machine apart: its files below /rootfs, the program to run, one argument a line, in /cmd
and the program's whole environment, NAME=value lines, in /env. These are the two ramdisks that
`nitro-cli build-enclave` writes; PCR1 covers the first one and PCR2 the second.
"""

import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Final

from tests.vm import cpio
from tests.vm.errors import LabError
from tests.vm.packages import Software

ROOT: Final = "rootfs"
ENDED: Final = "lab: ended with"  # on the console, followed by the program's exit code

# `reboot` and not `poweroff`, which may hang; the emulator is started so that a reboot ends it.
INIT: Final = f"""\
#!/bin/busybox sh
B=/bin/busybox
R=/{ROOT}
for folder in dev proc sys; do $B mkdir -p $R/$folder; done
$B mount -t devtmpfs dev $R/dev
$B mount -t proc proc $R/proc
$B mount -t sysfs sys $R/sys
for folder in tmp run; do
    [ ! -d $R/$folder ] || $B mount -t tmpfs -o mode=1777 $folder $R/$folder
done
for module in /mods/*.ko; do
    $B insmod $module || echo "lab: cannot load $module"
done
set --
while IFS= read -r line; do set -- "$@" "$line"; done < /env
set -- "$@" $B chroot $R
while IFS= read -r line; do set -- "$@" "$line"; done < /cmd
$B env -i "$@" < $R/dev/null
echo "{ENDED} $?"
$B reboot -f
"""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def bootstrap(software: Software) -> bytes:
    """The archive of the first ramdisk: the same for every machine."""
    entries = [
        cpio.file("init", INIT.encode(), 0o755),
        cpio.folder("bin"),
        cpio.file("bin/busybox", software.busybox.read_bytes(), 0o755),
        cpio.folder("mods"),
    ]
    for number, module in enumerate(software.modules):
        name = module.name.split("-", 1)[-1]
        entries.append(cpio.file(f"mods/{number}-{name}", module.read_bytes()))
    return cpio.archive(entries)


def application(
    root: Path,
    *,
    command: Sequence[str],
    environment: Mapping[str, str],
    replaced: Mapping[str, bytes] | None = None,
    added: Mapping[str, bytes] | None = None,
) -> bytes:
    """The archive of the second ramdisk.

    Args:
        root: what the program sees as its root folder.
        command: the program, by its whole path below `root`, and its arguments.
        environment: all of the program's variables.
        replaced: path below `root` to the new content of the file that is there.
        added: path below `root` to the content of a file that is not there; its folders are made.

    Raises:
        LabError: something of this cannot be told to the machine, or is not as said above.
    """
    tree = {entry.name: entry for entry in cpio.tree(root, ROOT)}
    for path, data in (replaced or {}).items():
        name = _below_root(path)
        if name not in tree or not stat.S_ISREG(tree[name].mode):
            raise LabError(f"{path} cannot be replaced: the image has no such file")
        tree[name] = replace(tree[name], data=data)
    for path, data in (added or {}).items():
        _add(tree, path, data)
    if not command or not command[0].startswith("/"):
        raise LabError("a machine needs a program to run, by its whole path")
    wrong = [name for name in environment if not _NAME.fullmatch(name)]
    if wrong:
        raise LabError(f"{wrong[0]!r} cannot be the name of a variable")
    return cpio.archive(
        [
            cpio.file("cmd", _lines(command)),
            cpio.file("env", _lines(f"{name}={value}" for name, value in environment.items())),
            *tree.values(),
        ]
    )


def _below_root(path: str) -> str:
    return f"{ROOT}/{path.removeprefix('/')}"


def _add(tree: dict[str, cpio.Entry], path: str, data: bytes) -> None:
    name = _below_root(path)
    if name in tree:
        raise LabError(f"{path} cannot be added: the image has it")
    tree[name] = cpio.file(name, data)
    for parent in PurePosixPath(name).parents[:-1]:
        tree.setdefault(str(parent), cpio.folder(str(parent)))


def _lines(values: Iterable[str]) -> bytes:
    lines = list(values)
    for line in lines:
        if not line or "\n" in line or "\0" in line:
            raise LabError(f"{line!r} is not one line of a machine's program or environment")
    return "".join(f"{line}\n" for line in lines).encode()

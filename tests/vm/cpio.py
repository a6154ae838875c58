"""Writes cpio archives of the "newc" format, which the kernel unpacks as its first file system.

The format is that of the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. The
same entries give the same bytes: everything belongs to root and is of time 0.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from tests.vm.errors import LabError

MAGIC: Final = b"070701"  # without checksums
TRAILER: Final = "TRAILER!!!"
BLOCK: Final = 512  # archives end at a multiple of it, so that they may be put one after another
MAX_DATA: Final = 0xFFFFFFFF  # a size is eight hexadecimal digits


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, folder or symbolic link.

    `name` is relative; `mode` has the type's bits too; `data` of a link is what it points to.
    """

    name: str
    mode: int
    data: bytes = b""


def folder(name: str, mode: int = 0o755) -> Entry:
    """A folder."""
    return Entry(name, stat.S_IFDIR | mode)


def file(name: str, data: bytes, mode: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(name, stat.S_IFREG | mode, data)


def link(name: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(name, stat.S_IFLNK | 0o777, os.fsencode(target))


def tree(root: Path, name: str) -> Iterator[Entry]:
    """What is in the folder `root`, itself included, as the folder `name` of the archive.

    Raises:
        LabError: there is something else than files, folders and symbolic links.
    """
    yield folder(name, stat.S_IMODE(root.lstat().st_mode))
    for path in sorted(root.iterdir()):
        inner, mode = f"{name}/{path.name}", path.lstat().st_mode
        if stat.S_ISDIR(mode):
            yield from tree(path, inner)
        elif stat.S_ISREG(mode):
            yield file(inner, path.read_bytes(), stat.S_IMODE(mode))
        elif stat.S_ISLNK(mode):
            yield link(inner, os.readlink(path))  # noqa: PTH115 - a Path would normalise it
        else:
            raise LabError(f"{path} is neither file, folder nor symbolic link")


def archive(entries: Iterable[Entry]) -> bytes:
    """The archive of these, sorted by name; its length is a multiple of 512.

    Raises:
        LabError: a name is absolute, not in normal form or there twice, or its folder is missing:
            the kernel would leave such an entry out without a word.
    """
    records: list[bytes] = []
    folders, names = {"."}, set[str]()
    for number, entry in enumerate(sorted(entries, key=lambda entry: entry.name), start=1):
        _check(entry, folders, names)
        names.add(entry.name)
        if stat.S_ISDIR(entry.mode):
            folders.add(entry.name)
        records += _record(entry, number)
    records += _record(Entry(TRAILER, 0), 0)
    size = sum(map(len, records))
    return b"".join([*records, bytes(-size % BLOCK)])


def _check(entry: Entry, folders: set[str], names: set[str]) -> None:
    path = PurePosixPath(entry.name)
    odd = path.is_absolute() or ".." in path.parts or str(path) != entry.name
    if odd or entry.name in (".", TRAILER) or "\0" in entry.name:
        raise LabError(f"{entry.name!r} cannot be a name in an archive")
    if entry.name in names:
        raise LabError(f"{entry.name!r} is twice in an archive")
    if str(path.parent) not in folders:
        raise LabError(f"{entry.name!r} has no folder in its archive")
    if len(entry.data) > MAX_DATA:
        raise LabError(f"{entry.name!r} is too long for an archive")


def _record(entry: Entry, number: int) -> tuple[bytes, ...]:
    name = os.fsencode(entry.name) + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    # inode, mode, owner, group, links, time, size, 4 device numbers, length of the name, checksum
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, 0, 0, len(name), 0)
    header = MAGIC + b"".join(b"%08X" % field for field in fields) + name
    return header, bytes(-len(header) % 4), entry.data, bytes(-len(entry.data) % 4)

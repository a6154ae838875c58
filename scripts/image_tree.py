#!/usr/bin/env python3
"""Lists a file tree, and tells where two differ.

image_tree.py list FOLDER          one line a path: type and mode, owner, time, size, SHA-256
image_tree.py compare FOLDER FOLDER    exit code 1 where they differ, with the lines that do
image_tree.py report FOLDER        files and bytes of the whole and of each part
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Entry:
    """What is compared of one path.

    Attributes:
        mode: type and permissions in `ls` form.
        owner: user and group, in numbers.
        time: of the last change of the content, in whole seconds since 1970.
        size: bytes of a file's content or of a link's target, 0 for everything else.
        content: SHA-256 of a file's content in hex, a link's target, a device's number.
    """

    mode: str
    owner: str
    time: int
    size: int
    content: str

    def __str__(self) -> str:
        return f"{self.mode} {self.owner} {self.time} {self.size} {self.content or '-'}"


def entries(folder: Path) -> dict[str, Entry]:
    """Every path below `folder`, relative to it, in sorted order; no link is followed."""
    return {
        os.fsdecode(os.fsencode(path.relative_to(folder))): _entry(path)
        for path in sorted(_paths(folder))
    }


def differences(left: Mapping[str, Entry], right: Mapping[str, Entry]) -> list[str]:
    """A line for each path and side that the other side does not have just so."""
    lines = []
    for path in sorted(left.keys() | right.keys()):
        if left.get(path) != right.get(path):
            lines += [
                f"{sign} {side[path]} {path!r}"
                for sign, side in (("-", left), ("+", right))
                if path in side
            ]
    return lines


def report(tree: Mapping[str, Entry]) -> list[str]:
    """Lines of files and bytes: of the whole, and of each part of an enclave image."""
    parts: dict[str, tuple[int, int]] = {}
    for path, entry in tree.items():
        if not entry.mode.startswith("d"):
            for name in ("the whole image", _part(path)):
                files, size = parts.get(name, (0, 0))
                parts[name] = (files + 1, size + entry.size)
    return [
        f"{size:>10} bytes {files:>5} files  {name}"
        for name, (files, size) in sorted(parts.items(), key=lambda item: -item[1][1])
    ]


def _paths(folder: Path) -> Iterator[Path]:
    for entry in os.scandir(folder):
        yield Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from _paths(Path(entry.path))


def _entry(path: Path) -> Entry:
    status = path.lstat()
    size, content = 0, ""
    if stat.S_ISREG(status.st_mode):
        size, content = status.st_size, hashlib.sha256(path.read_bytes()).hexdigest()
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)  # noqa: PTH115 - exactly what it says
        size = len(content)
    elif stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode):
        content = str(status.st_rdev)
    return Entry(
        mode=stat.filemode(status.st_mode),
        owner=f"{status.st_uid}:{status.st_gid}",
        time=int(status.st_mtime),
        size=size,
        content=content,
    )


def _part(path: str) -> str:
    names = path.split("/")
    if names[0] == "app":
        return names[1].partition(".")[0]
    if names[:4] == ["usr", "local", "lib", names[3] if len(names) > 3 else ""]:
        return "CPython's standard library"
    if names[:3] == ["usr", "local", "bin"]:
        return "CPython's interpreter"
    return f"{names[-1]} (shared library)" if ".so" in names[-1] else path


def main(arguments: list[str]) -> int:
    """The exit code."""
    match arguments:
        case ["list", folder]:
            lines = [f"{entry} {path!r}" for path, entry in entries(Path(folder)).items()]
        case ["compare", left, right]:
            lines = differences(entries(Path(left)), entries(Path(right)))
        case ["report", folder]:
            lines = report(entries(Path(folder)))
        case _:
            sys.stderr.write(__doc__ or "")
            return 2
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 1 if arguments[0] == "compare" and lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

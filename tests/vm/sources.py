"""Finds in apt's configuration where this system gets Debian's packages from.

Both formats of sources.list(5) are read: one line for each source, and deb822 paragraphs.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.vm.errors import LabUnavailableError

VARIABLE: Final = "FOOBAR_LAB_DEBIAN"
# What the archive's main suites are called.
SUITES: Final = frozenset(
    ["stable", "testing", "unstable", "sid", "bullseye", "bookworm", "trixie", "forky", "duke"]
)
_SCHEMES: Final = ("http://", "https://", "mirror+file:", "mirror://", "mirror+http", "file:")
_MAX_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """An archive's address and what is taken from it."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]


def archive(folder: Path, environment: Mapping[str, str] = os.environ) -> str:
    """The address of Debian's main archive, by apt's configuration in `folder` (/etc/apt).

    The variable FOOBAR_LAB_DEBIAN goes first: for a system that is not Debian.

    Raises:
        LabUnavailableError: there is none.
    """
    if named := environment.get(VARIABLE):
        return named
    for source in _all(folder):
        debian = SUITES.intersection(source.suites) and "main" in source.components
        if debian and source.uri.startswith(_SCHEMES):
            return source.uri
    raise LabUnavailableError(f"{folder} names no archive of Debian: set {VARIABLE} to one")


def _all(folder: Path) -> Iterator[Source]:
    parts = folder / "sources.list.d"
    for path in sorted(parts.glob("*.sources")):
        yield from deb822(_read(path))
    for path in [folder / "sources.list", *sorted(parts.glob("*.list"))]:
        yield from one_line(_read(path))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES).decode(errors="replace")
    except OSError:
        return ""


def one_line(text: str) -> Iterator[Source]:
    """The sources of binary packages in a *.list file: `deb [options] uri suite components`."""
    for line in text.splitlines():
        before, bracket, options = line.split("#", 1)[0].partition("[")
        rest = options.partition("]")[2] if bracket else ""
        words = f"{before} {rest}".split()
        if len(words) >= 3 and words[0] == "deb":
            yield Source(words[1], (words[2],), tuple(words[3:]))


def deb822(text: str) -> Iterator[Source]:
    """The sources of binary packages in a *.sources file, one for each address."""
    for fields in _paragraphs(text):
        wanted = "deb" in fields.get("types", []) and fields.get("enabled") != ["no"]
        for uri in fields.get("uris", []) if wanted else []:
            yield Source(uri, tuple(fields.get("suites", [])), tuple(fields.get("components", [])))


def _paragraphs(text: str) -> Iterator[dict[str, list[str]]]:
    fields: dict[str, list[str]] = {}
    words: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields, words = {}, []
        elif line[0].isspace():
            words += line.split()
        elif ":" in line:
            name, value = line.split(":", 1)
            words = fields[name.strip().lower()] = value.split()

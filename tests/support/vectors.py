"""Genuine documents and messages, which lie beside the project and are not part of it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

DIRECTORY = Path(
    os.environ.get("FOOBAR_VECTORS") or Path(__file__).parents[3] / "shared" / "vectors"
)


@dataclass(frozen=True, slots=True)
class Vector:
    """One entry of a directory's manifest: its file and what the manifest says of it."""

    path: Path
    facts: dict[str, object]

    def read(self) -> bytes:
        """Return the file's bytes."""
        return self.path.read_bytes()

    def text(self, name: str) -> str:
        """Return a fact that is text."""
        value = self.facts[name]
        assert isinstance(value, str), name
        return value

    def moment(self, name: str) -> datetime:
        """Return a fact that is a time; aware."""
        return datetime.fromisoformat(self.text(name))


def vector_path(name: str) -> Path:
    """Return a file's path; skip the test where there is no directory of vectors."""
    if not DIRECTORY.is_dir():
        pytest.skip(f"no test vectors in {DIRECTORY}: set FOOBAR_VECTORS to their directory")
    return DIRECTORY / name


def vectors(directory: str) -> list[Vector]:
    """Return the entries of a manifest, in its order; skip the test as `vector_path` does."""
    manifest = json.loads(vector_path(f"{directory}/manifest.json").read_bytes())
    entries = [
        Vector(DIRECTORY / directory / entry["file"].rpartition("/")[2], entry)
        for entry in manifest
    ]
    assert entries
    return entries


def vector(directory: str, name: str) -> Vector:
    """Return the one entry whose file name contains `name`."""
    (entry,) = [entry for entry in vectors(directory) if name in entry.path.name]
    return entry

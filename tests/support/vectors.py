"""Genuine documents and messages, which lie beside the project and are not part of it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("FOOBAR_VECTORS") or Path(__file__).parents[3] / "shared" / "vectors")


@dataclass(frozen=True, slots=True)
class Vector:
    """One entry of a folder's manifest: its file and what the manifest says of it."""

    path: Path
    facts: dict[str, object]

    def read(self) -> bytes:
        """The file's bytes."""
        return self.path.read_bytes()

    def text(self, name: str) -> str:
        """A fact that is text."""
        value = self.facts[name]
        assert isinstance(value, str), name
        return value

    def moment(self, name: str) -> datetime:
        """A fact that is a time; aware."""
        return datetime.fromisoformat(self.text(name))


def vector_path(name: str) -> Path:
    """The file of that name under the folder; skips the test where the folder is not there."""
    if not FOLDER.is_dir():
        pytest.skip(f"no test vectors in {FOLDER}: set FOOBAR_VECTORS to their folder")
    return FOLDER / name


def vectors(folder: str) -> list[Vector]:
    """The entries of a folder's manifest, in its order; skips the test as `vector_path` does."""
    manifest = json.loads(vector_path(f"{folder}/manifest.json").read_bytes())
    entries = [
        Vector(FOLDER / folder / entry["file"].rpartition("/")[2], entry) for entry in manifest
    ]
    assert entries
    return entries


def vector(folder: str, name: str) -> Vector:
    """The one entry whose file name contains `name`."""
    (entry,) = [entry for entry in vectors(folder) if name in entry.path.name]
    return entry

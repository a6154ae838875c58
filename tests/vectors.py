"""Genuine documents and messages, which lie beside the project and are not part of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("FOOBAR_VECTORS") or Path(__file__).parents[2] / "shared" / "vectors")


def vector_path(name: str) -> Path:
    """The file of that name under the folder; skips the test where the folder is not there."""
    if not FOLDER.is_dir():
        pytest.skip(f"no test vectors in {FOLDER}: set FOOBAR_VECTORS to their folder")
    return FOLDER / name

"""Each example takes the place of foobar_shared/computation.py by being copied over it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(ROOT.glob("examples/*/computation.py"))
PROGRAM = """
from foobar_shared import computation
print(computation.NAME)
assert isinstance(computation.SUMMARY, str)
assert callable(computation.compute)
assert callable(computation.Result.from_fields)
assert callable(computation.Result.fields)
from foobar_shared.errors import ComputationError
assert computation.ComputationError is ComputationError
"""


def swapped(example: Path, folder: Path) -> Path:
    """A copy of what the enclave shares with the command line, with the example's computation."""
    shared = shutil.copytree(ROOT / "foobar_shared", folder / "foobar_shared")
    shutil.copyfile(example, shared / "computation.py")
    return folder


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.parent.name)
def test_an_example_needs_nothing_but_the_shared_package(example: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(swapped(example, tmp_path))},
    )
    name = example.parent.name.replace("_", "-")
    assert done.stdout == f"foobar/{name}/1\n"

"""What the commands load, which is what their start-up time is made of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cli_encrypt import _encrypt
from benchmarks.processes import interpreter

LOADED = """
import sys
from foobar_instance.cli import run
code = run(sys.argv[1:])
print(*sys.modules, file=sys.stderr)
sys.exit(code)
"""


def loaded_by(*arguments: str) -> set[str]:
    """The modules that a command has loaded when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments],
        env={},  # without the variables by which coverage is measured in it
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert done.stdout
    return set(done.stderr.decode().splitlines()[-1].split())


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_loads_neither_the_sdk_nor_cryptography(option: str) -> None:
    loaded = loaded_by(option)
    assert "click" in loaded
    assert not loaded & {"boto3", "botocore", "cbor2", "cryptography"}


def test_encrypt_loads_no_sdk(tmp_path: Path) -> None:
    loaded = loaded_by(*_encrypt(tmp_path))
    assert {"cbor2", "cryptography"} <= loaded
    assert not loaded & {"asn1crypto", "boto3", "botocore", "emulator", "foobar_enclave", "proxy"}


def test_processes_keep_what_they_compile() -> None:
    with interpreter({"PATH": "/bin", "PYTHONDONTWRITEBYTECODE": "1"}) as python:
        folder = Path(python.environment["PYTHONPYCACHEPREFIX"])
        sample = python.contestant("click", "import foobar_shared.encoding").sample
        assert sample is not None
        assert sample() > 0
        assert list(folder.rglob("encoding*.pyc"))
    assert not folder.exists()

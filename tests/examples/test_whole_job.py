"""Each example, put in the place of computation.py, does the whole job on the emulator."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("foobar_enclave", "foobar_instance", "foobar_shared", "proxy", "emulator", "examples")

WORD_COUNT = """
def test_word_count(instance_cli):
    instance_cli.done("create-key")
    sealed = instance_cli.done("encrypt", "--lines", "--plaintext", "-", stdin="one two\\nthree\\n")
    one_by_one = instance_cli.done("decrypt", "--lines", "--ciphertext", "-", stdin=sealed)
    assert one_by_one == b"Words: 2\\nWords: 1\\n"
    asked = ("--together", "--ciphertext", "-")
    assert instance_cli.done("decrypt", *asked, "--proof", "p", stdin=sealed) == b"Words: 3\\n"
    checked = ("verify", "--proof", "p", "--lines", "--ciphertext", "-")
    shown = instance_cli.done(*checked, stdin=sealed)
    assert shown.startswith(b"Words: 3\\n")
"""

SEALED_BIDS = """
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from examples.sealed_bids.bid import sign
from foobar_shared.computation import Round
from foobar_shared.encoding import to_base64

def test_sealed_bids(instance_cli):
    keys = [Ed25519PrivateKey.generate() for _ in range(3)]
    roster = tuple(key.public_key().public_bytes_raw() for key in keys)
    round_ = Round("2026-07", roster)
    bids = [sign(key, round_, amount).encode() for key, amount in zip(keys, (5, 9, 7))]
    instance_cli.done("create-key")
    sealed = [instance_cli.seal(bid) for bid in bids]
    asked = ("decrypt", "--together", "--ciphertext", "-")
    said = instance_cli.done(*asked, stdin="\\n".join(sealed)).decode()
    assert said.startswith(f"Winner {to_base64(roster[1])} pays 7 ")
    refused = instance_cli(*asked, stdin="\\n".join(sealed[:2]))
    assert refused.returncode == 1
    assert b"refused compute" in refused.stderr
    assert not refused.stdout
"""


@pytest.mark.parametrize(
    ("example", "test"), [("word_count", WORD_COUNT), ("sealed_bids", SEALED_BIDS)]
)
def test_an_example_does_the_whole_job(example: str, test: str, tmp_path: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package)
    computation = tmp_path / "examples" / example / "computation.py"
    shutil.copyfile(computation, tmp_path / "foobar_shared/computation.py")
    (tmp_path / "test_job.py").write_text(test)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "emulator.pytest_plugin"),
            *("-p", "no:cacheprovider", "test_job.py"),
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]

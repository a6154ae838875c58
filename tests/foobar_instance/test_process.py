"""The command line as a process: what it imports, and what its streams do to it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from foobar_shared.hpke import parse
from tests.support.documents import PCR0, Signer

SECONDS = 30
HEAVY = ("asn1crypto", "boto3", "botocore", "cbor2", "cryptography", "emulator", "pycose")
IMPORTS = f"""
import sys
from foobar_instance.cli import run
code = run(sys.argv[1:])
print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture
def encrypting(tmp_path: Path, sign: Signer) -> list[str]:
    (tmp_path / "root.pem").write_bytes(sign.root_pem)
    (tmp_path / "attestation.out").write_bytes(sign.key())
    return [
        "encrypt", "--root-path", f"{tmp_path}/root.pem", "--pcr0", PCR0.hex(),
        "--attestation-path", f"{tmp_path}/attestation.out", "--plaintext", "-",
    ]  # fmt: skip


def imports_of(*arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, *arguments],
        input=b"banana",
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout
    return done.stderr.decode().splitlines()[-1].split()


def test_encryption_needs_neither_aws_nor_the_emulator(encrypting: list[str]) -> None:
    assert set(imports_of(*encrypting)) == {"cbor2", "cryptography", "pycose"}


@pytest.mark.parametrize("arguments", [["--help"], ["decrypt", "--help"], ["--version"]])
def test_help_is_quick(arguments: list[str]) -> None:
    assert imports_of(*arguments) == []


@pytest.mark.parametrize("what", ["plaintext", "ciphertext"])
def test_a_terminal_is_told_what_is_read_from_it(encrypting: list[str], what: str) -> None:
    arguments = encrypting
    if what == "ciphertext":
        arguments = ["decrypt", *encrypting[1:-2], "--ciphertext", "-"]
    terminal, slave = os.openpty()
    os.write(terminal, b"banana\n\x04")
    done = subprocess.run(
        [sys.executable, "-m", "foobar_instance", *arguments],
        stdin=slave,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    os.close(terminal)
    os.close(slave)
    assert f"reading the {what} from the terminal; end with Ctrl-D\n" in done.stderr.decode()
    assert done.returncode == (0 if what == "plaintext" else 3)  # a banana is no message
    piped = subprocess.run(
        [sys.executable, "-m", "foobar_instance", *arguments],
        input=b"banana",
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert b"from the terminal" not in piped.stderr


def environment() -> dict[str, str]:
    """With Python's usual buffers: what they hold at the end is written then, or can't be."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def process(
    arguments: list[str], *, stdout: int = subprocess.PIPE, redirect: str = ""
) -> subprocess.CompletedProcess[bytes]:
    """What the program leaves, started by a shell with `redirect`."""
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {redirect}', "sh", sys.executable, "-m", "foobar_instance",
         *arguments],
        input=b"banana",
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=SECONDS,
        env=environment(),
        check=False,
    )  # fmt: skip


def test_nobody_reads_the_result(encrypting: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = process([*encrypting, "-q"], stdout=writer)
    finally:
        os.close(writer)
    assert done.returncode == 1
    assert [line.partition(b":")[0] for line in done.stderr.splitlines()] == [b"warning"]


@pytest.mark.parametrize(
    ("redirect", "words"),
    [
        (">/dev/full", "cannot write standard output: No space left on device"),
        (">&-", "cannot write standard output: it is closed"),
        ("<&-", "cannot read standard input: it is closed"),
    ],
)
def test_a_stream_that_is_full_or_closed(encrypting: list[str], redirect: str, words: str) -> None:
    done = process(encrypting, redirect=redirect)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[1:] == [f"error: {words}"]


@pytest.mark.parametrize("redirect", ["2>&-", "2>/dev/full"])
def test_neither_result_nor_exit_code_needs_standard_error(
    encrypting: list[str], redirect: str
) -> None:
    done = process(encrypting, redirect=redirect)
    assert done.returncode == 0
    assert parse(done.stdout.decode().removesuffix("\n"))
    done = process([*encrypting, "--pcr", "1=" + "ff" * 48], redirect=redirect)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"", b"")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_on_a_full_disk(option: str) -> None:
    done = process([option], redirect=">/dev/full")
    assert done.returncode == 1
    assert done.stderr == b"error: cannot go on: No space left on device\n"

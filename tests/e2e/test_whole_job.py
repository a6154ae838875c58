"""create-key, encrypt and decrypt by the real programs, against the emulated machine."""

import json

import pytest

from emulator.pytest_plugin import InstanceCli
from foobar_shared.computation import compute
from tests.e2e.conftest import printed


def test_the_commands_of_the_readme(cli: InstanceCli) -> None:
    assert cli.done("create-key") == b""
    ciphertext = cli.done("encrypt", "--plaintext=attack at dawn").decode().strip()
    assert cli.done("decrypt", "--ciphertext", ciphertext) == printed(b"attack at dawn")


def test_the_originals_option_names(keyed: InstanceCli) -> None:
    moved = keyed.attestation.rename(keyed.directory / "elsewhere.out")
    root = keyed.emulator.environment["FOOBAR_ROOT_PATH"]
    options = ["--attestationPath", str(moved), "--rootPath", root]
    ciphertext = keyed.done("encrypt", *options, "--plaintext", "banana", FOOBAR_ROOT_PATH="")
    answer = keyed.done("decrypt", *options, "--ciphertext", ciphertext.decode().strip())
    assert answer == printed(b"banana")


@pytest.mark.parametrize(
    "plaintext",
    [b"", b"a", b"\0a\xff\n\raA\x80", b"a" * 778192, "a\u00e0 \u03b1".encode()],
    ids=["empty", "one", "bytes", "longest", "text"],
)
@pytest.mark.threat("17")
def test_a_pipeline_takes_bytes_of_any_content(keyed: InstanceCli, plaintext: bytes) -> None:
    ciphertext = keyed.done("encrypt", "--plaintext", "-", stdin=plaintext)
    answer = keyed.done("decrypt", "--ciphertext", "-", stdin=ciphertext)
    assert answer == printed(plaintext)


def test_check_says_whether_decrypt_would_work(keyed: InstanceCli) -> None:
    result = keyed("check", "-q")
    assert [line.partition(":")[0] for line in result.stdout.decode().splitlines()] == ["ok"] * 3
    assert result.returncode == 0
    result = keyed("check", "-q", "--enclave", "unix:/nonexistent")
    assert b"failed: unix:/nonexistent: no enclave answers" in result.stdout
    assert result.returncode == 1


def test_json(keyed: InstanceCli) -> None:
    ciphertext = keyed.done("encrypt", "--plaintext", "banana").decode().strip()
    answer = json.loads(keyed.done("decrypt", "--json", "--ciphertext", ciphertext))
    assert answer == answer | compute([b"banana"]).fields()


def test_one_byte_too_many_is_refused_with_the_limit(keyed: InstanceCli) -> None:
    result = keyed("encrypt", "--plaintext", "-", stdin=b"a" * 778193)
    assert result.returncode != 0
    assert b"778192" in result.stderr
    assert result.stdout == b""


def test_quiet_says_nothing(keyed: InstanceCli) -> None:
    ciphertext = keyed.done("encrypt", "--plaintext", "x").decode().strip()
    result = keyed("decrypt", "-q", "--ciphertext", ciphertext)
    assert (result.returncode, result.stdout) == (0, printed(b"x"))

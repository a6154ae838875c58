"""The command line: its options, exit codes, and one line for each error."""

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import click
import pytest

from foobar_instance.cli import cli, main
from foobar_shared import envelope, hpke
from foobar_shared.errors import NameFormatError
from tests.foobar_instance.conftest import Run
from tests.support.documents import OTHER_PCR0, PCR0, PUBLIC_KEY

MESSAGE = envelope.encrypt(b"banana", PUBLIC_KEY)
ROOT = ("--root-path", "root.pem")
PINNED = (*ROOT, "--pcr0", PCR0.hex())
ENCRYPT = ("encrypt", "--plaintext", "x")
DECRYPT = ("decrypt", "--ciphertext", MESSAGE, "--enclave", "unix:/nonexistent")
ANY = "warning: any enclave is trusted, whatever its code: no measurement is compared"
OTHER_ROOT = "warning: trusting the root in root.pem instead of AWS's"

PINS = "root_path partition measurements pcr0 pcrs trust_any_enclave allow_debug"
RESULT = "ciphertext proof as_json"
CONTRACT = {
    "create-key": f"role proxy_listen attestation_path enclaves {PINS}",
    "encrypt": f"plaintext message_format lines attestation_path {PINS}",
    "decrypt": f"together jobs lines attestation_path enclaves {RESULT} {PINS}",
    "check": f"attestation_path enclaves {PINS}",
    "verify": f"lines attestation_path {RESULT} {PINS}",
    "describe": "path root_path partition as_json",
    "measure": "image allow_unknown_flags",
}
SPELLED = {
    "root_path": ["--root-path", "--rootPath"],
    "attestation_path": ["--attestation-path", "--attestationPath"],
    "pcrs": ["--pcr"],
    "enclaves": ["--enclave"],
    "message_format": ["--format"],
    "as_json": ["--json"],
    "quiet": ["-q", "--quiet"],
    "verbose": ["-v", "--verbose"],
    "path": ["path"],
    "image": ["image"],
}
# What says what to do, or gives up a check, is given each time.
NOT_FROM_ENVIRONMENT = {
    *("plaintext", "ciphertext", "path", "image"),
    *("trust_any_enclave", "allow_debug", "allow_unknown_flags"),
}
DEFAULTS = {
    "role": "aws-nitro-enclave-foobar-iam-role",
    "proxy_listen": "vsock:3:1001",
    "enclaves": ["vsock:16:1000"],
    "message_format": "2",
    "jobs": 8,
    "attestation_path": "attestation.out",
    "partition": "aws",
}


@pytest.mark.parametrize("command", CONTRACT)
def test_the_options_of_each_command(command: str) -> None:
    params = {param.name or "": param for param in cli.commands[command].params}
    assert params.keys() == {*CONTRACT[command].split(), "quiet", "verbose"}
    for name, param in params.items():
        options = SPELLED.get(name, [f"--{name.replace('_', '-')}"])
        assert param.opts == options
        word = max((option.strip("-") for option in options), key=len).upper().replace("-", "_")
        assert param.envvar == (None if name in NOT_FROM_ENVIRONMENT else f"FOOBAR_{word}")
        if name in DEFAULTS and (command, name) != ("verify", "attestation_path"):
            assert param.default == DEFAULTS[name]


def test_help_lists_the_commands_in_the_order_of_use(shell: Run) -> None:
    help_text = shell("--help").stdout
    listed = help_text.partition("Commands:\n")[2].split("\n\n")[0].splitlines()
    room = 78 - 6 - max(map(len, CONTRACT))  # of click's 80 columns, for what a command does
    assert [line.split(maxsplit=1) for line in listed] == [
        [name, cli.commands[name].get_short_help_str(room)] for name in CONTRACT
    ]
    assert "Exit codes: 0 done, 1 the operation failed, 2 wrong usage, 3" in help_text


def test_the_version(shell: Run) -> None:
    ran = shell("--version")
    assert (ran.code, ran.stderr) == (0, "")
    assert re.fullmatch(r"foobar-instance, version \d+\.\d+\.\d+\n", ran.stdout)


def test_no_command_shows_the_help(shell: Run) -> None:
    ran = shell()
    assert (ran.code, ran.stdout) == (2, "")
    assert ran.stderr.startswith("Usage: foobar-instance")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bogus"], "No such command 'bogus'. (see foobar-instance --help)"),
        (
            ["encrpt"],
            "No such command 'encrpt'. (Did you mean one of: 'decrypt', 'encrypt'?)",
        ),
        (["--x"], "No such option '--x'. (see foobar-instance --help)"),
        (["encrypt"], "Missing option '--plaintext'. (see foobar-instance encrypt --help)"),
        (
            ["-q", "decrypt", "--ciphertext"],
            "Option '--ciphertext' requires an argument. (see foobar-instance decrypt --help)",
        ),
        (["encrypt", "--x"], "No such option '--x'. (see foobar-instance encrypt --help)"),
        (["encrypt", "--bo\x1b[2Jgus"], r"'--bo\x1b[2Jgus'"),
        ([*ENCRYPT, "more"], "unexpected extra argument"),
        ([*ENCRYPT, "--partition", "aws-cn"], "'aws-cn' is not one of"),
        ([*ENCRYPT], "no measurement pins the enclave"),
        ([*ENCRYPT, "--pcr0", "00"], "PCR0: not 96 hexadecimal digits"),
        ([*ENCRYPT, *PINNED, "--trust-any-enclave"], "--trust-any-enclave contradicts"),
    ],
)
def test_wrong_usage(shell: Run, arguments: list[str], words: str) -> None:
    ran = shell(*arguments)
    assert ran.code == 2
    assert words in ran.error


@pytest.mark.parametrize(
    "address", ["", "vsock:16", "unix:", "nowhere", "vsock:16:99999999999", "a..b:1"]
)
@pytest.mark.parametrize(
    ("command", "option"),
    [(DECRYPT[:3], "--enclave"), (["create-key"], "--enclave"), (["create-key"], "--proxy-listen")],
)
def test_a_malformed_address(shell: Run, command: list[str], option: str, address: str) -> None:
    ran = shell(*command, *PINNED, option, address)
    assert ran.code == 2
    assert option in ran.error


def test_the_originals_spelling(shell: Run) -> None:
    spelling = ("--attestationPath=attestation.out", "--rootPath=root.pem")
    assert shell(*ENCRYPT, *spelling, "--pcr0", PCR0.hex()).code == 0


def test_what_comes_from_the_environment_is_said_even_when_quiet(
    shell: Run, directory: Path
) -> None:
    (directory / "attestation.out").rename(directory / "moved")
    ran = shell(
        *ENCRYPT, FOOBAR_ROOT_PATH="root.pem", FOOBAR_PCR0=PCR0.hex(), FOOBAR_QUIET="1",
        FOOBAR_PCR=f"1={'01' * 48} 0={PCR0.hex()}", FOOBAR_ATTESTATION_PATH="moved",
    )  # fmt: skip
    notes = [f"pinned by {name}: PCR0 {PCR0.hex()}" for name in ("FOOBAR_PCR0", "FOOBAR_PCR")]
    assert (ran.code, ran.stderr.splitlines()) == (0, [OTHER_ROOT, *notes])
    (directory / "moved").rename(directory / "attestation.out")
    ran = shell(*ENCRYPT, *ROOT, FOOBAR_PCR=f"0={PCR0.hex()} 1={'02' * 48}")
    assert (ran.code, "PCR1" in ran.error) == (3, True)


def test_the_default_file_pins_and_is_said_but_not_to_verify(shell: Run, directory: Path) -> None:
    text = f'{{"Measurements": {{"PCR0": "{PCR0.hex()}"}}}}'
    (directory / "foobar-enclave.measurements.json").write_text(text)
    ran = shell(*ENCRYPT, *ROOT, "-q")
    note = f"pinned by ./foobar-enclave.measurements.json: PCR0 {PCR0.hex()}"
    assert (ran.code, ran.stderr.splitlines()) == (0, [OTHER_ROOT, note])
    ran = shell("verify", "--proof", "p", "--ciphertext", MESSAGE, *ROOT)
    assert ran.code == 2
    assert ran.error.startswith("no measurement pins the enclave")


@pytest.mark.parametrize("name", ["TRUST_ANY_ENCLAVE", "ALLOW_DEBUG", "PLAINTEXT"])
def test_what_does_not_come_from_the_environment(shell: Run, name: str) -> None:
    arguments = ENCRYPT[:1] if name == "PLAINTEXT" else ENCRYPT
    ran = shell(*arguments, *ROOT, **{f"FOOBAR_{name}": "1"})
    assert ran.code == 2
    assert "--measurements" in ran.error or "Missing option '--plaintext'" in ran.error


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"FOOBAR_PCR0": OTHER_PCR0.hex()},
        {"FOOBAR_PCR": f"0={OTHER_PCR0.hex()} 8={'00' * 48}"},
        {"FOOBAR_MEASUREMENTS": "missing.json"},
    ],
)
def test_any_enclave_outweighs_the_environment(shell: Run, environment: dict[str, str]) -> None:
    ran = shell(*ENCRYPT, "-q", "--trust-any-enclave", *ROOT, **environment)
    assert (ran.code, ran.stderr.splitlines()) == (0, [OTHER_ROOT, ANY])


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    ("flag", "told"), [("-q", set()), ("-v", {"step", "log"}), ("--verbose", {"step", "log"})]
)
def test_quiet_and_verbose_count_before_and_after_the_command(
    shell: Run, flag: str, told: set[str], *, before: bool
) -> None:
    ran = shell(*([flag, *DECRYPT] if before else [*DECRYPT, flag]), *PINNED)
    assert ran.error.startswith("no enclave answers")
    seen = {
        "step": "\nkey attestation verified" in ran.stderr,
        "log": "DEBUG foobar_instance.trust: the key's attestation verifies" in ran.stderr,
    }
    assert {name for name, there in seen.items() if there} == told


def test_a_path_can_not_write_to_the_terminal(shell: Run, directory: Path) -> None:
    ran = shell(*ENCRYPT, *PINNED, "--attestation-path", "a\x1b[2J\nerror: b")
    assert ran.error.startswith(r"cannot read a\x1b[2J\nerror: b: No such file")
    (directory / "a\nb").write_bytes((directory / "root.pem").read_bytes())
    ran = shell(*ENCRYPT, "--rootPath", "a\nb", "--pcr0", PCR0.hex())
    assert ran.warnings == [r"warning: trusting the root in a\nb instead of AWS's"]


def test_no_enclave(shell: Run, directory: Path) -> None:
    ran = shell(*DECRYPT, *PINNED, "--proof", "proof.json")
    assert ran.code == 1
    assert ran.error.startswith("no enclave answers at unix:/nonexistent")
    assert not (directory / "proof.json").exists()


def test_a_proof_that_can_not_be_saved_is_known_before_anything_is_asked(
    shell: Run, directory: Path
) -> None:
    ran = shell(*DECRYPT, *PINNED, "--proof", str(directory))
    assert (ran.code, ran.error) == (1, f"cannot write {directory}: it is a directory")


def test_no_attestation(shell: Run, directory: Path) -> None:
    (directory / "attestation.out").unlink()
    ran = shell(*ENCRYPT, *PINNED)
    assert ran.code == 1
    assert ran.error.startswith("cannot read attestation.out: No such file or directory; ")
    assert "create-key saves" in ran.error
    assert "--attestation-path" in ran.error


@pytest.mark.parametrize(
    ("message_format", "limit"), [("1", envelope.MAX_PLAINTEXT), ("2", hpke.MAX_PLAINTEXT)]
)
def test_the_longest_plaintext(shell: Run, message_format: str, limit: int) -> None:
    encrypt = ("encrypt", *PINNED, "--format", message_format, "--plaintext")
    for more, code in ((0, 0), (1, 2), (1000, 2)):
        text = "a" * (limit + more)
        for ran in (
            shell(*encrypt, text),
            shell(*encrypt, "-", stdin=text.encode()),
            shell(*encrypt, "-", "--lines", stdin=text.encode()),
        ):
            assert ran.code == code
            assert code == 0 or f"longer than {limit} bytes" in ran.error


def test_lines_are_encrypted_one_by_one(shell: Run) -> None:
    ran = shell("encrypt", *PINNED, "--lines", "--plaintext", "-", stdin=b"a\xff\r\n\nlast")
    lengths = []
    for line in ran.stdout.splitlines():
        message = hpke.parse(line)
        assert message is not None
        lengths.append(len(message.ciphertext) - 48)
    assert lengths == [3, 0, 4]


def test_lines_come_from_standard_input(shell: Run) -> None:
    for arguments in (
        ("encrypt", "--lines", "--plaintext", "x"),
        ("decrypt", "--lines", "--ciphertext", MESSAGE),
        ("decrypt", "--together", "--ciphertext", MESSAGE),
        ("verify", "--proof", "missing", "--lines", "--ciphertext", MESSAGE),
    ):
        ran = shell(*arguments, *PINNED)
        assert ran.code == 2
        assert "come from standard input" in ran.error
    ran = shell("decrypt", "--lines", "--ciphertext", "-", "--proof", "p", *PINNED)
    assert (ran.code, "--proof is for one result" in ran.error) == (2, True)


def test_a_message_of_the_original_that_no_request_holds(shell: Run) -> None:
    long = envelope.encode_message(
        replace(envelope.parse_message(MESSAGE), ciphertext=bytes(envelope.MAX_CIPHERTEXT + 1))
    )
    for text in (long, "A" * (hpke.MAX_MESSAGE + 1)):
        ran = shell("decrypt", "--ciphertext", "-", *PINNED, stdin=text.encode())
        assert ran.code == 3
        assert "the message is too long for a request" in ran.error
        assert "give what" not in ran.error


@pytest.mark.parametrize("text", ["", "banana!", "\u00e9", MESSAGE[:-4], MESSAGE + "="])
def test_a_malformed_ciphertext(shell: Run, text: str) -> None:
    for ran in (
        shell("decrypt", "--ciphertext", text, *PINNED),
        shell("decrypt", "--ciphertext", "-", *PINNED, stdin=text.encode()),
        shell("verify", "--proof", "missing", "--ciphertext", text, *PINNED),
    ):
        assert ran.code == 3
        assert "ciphertext message" in ran.error
        assert len(ran.error) < 200


def test_the_whitespace_around_a_message_is_of_no_account(shell: Run) -> None:
    rest = ("--enclave", "unix:/nonexistent", *PINNED)
    ran = shell("decrypt", "--ciphertext", "-", *rest, stdin=f"\n {MESSAGE}\r\n".encode())
    assert ran.error.startswith("no enclave answers")


@pytest.fixture
def failing() -> Iterator[Callable[[BaseException], None]]:
    """Makes a command `fail` that raises."""

    def add(error: BaseException) -> None:
        @cli.command("fail")
        def fail() -> None:
            raise error

    yield add
    cli.commands.pop("fail")


def test_an_unexpected_error_is_one_line_without_its_text(
    shell: Run, failing: Callable[[BaseException], None], caplog: pytest.LogCaptureFixture
) -> None:
    failing(ValueError("canary"))
    ran = shell("fail")
    assert ran.code == 1
    assert ran.stderr == "error: unexpected ValueError: please report it (-v shows where)\n"
    with caplog.at_level("DEBUG", "foobar_instance"):
        shell("fail")
    assert "ValueError at" in caplog.text
    assert "in fail" in caplog.text
    assert "canary" not in caplog.text


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (NameFormatError("not a valid AWS region"), 1, "not a valid AWS region"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (click.Abort(), 130, "interrupted"),
    ],
)
def test_other_errors(
    shell: Run,
    failing: Callable[[BaseException], None],
    error: BaseException,
    code: int,
    text: str,
) -> None:
    failing(error)
    ran = shell("fail")
    assert (ran.code, ran.error) == (code, text)


def test_main_ends_with_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["foobar-instance", "bogus"])
    for arguments, code in ((["--version"], 0), (["bogus"], 2), (None, 2)):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == code
    assert capsys.readouterr().err.count("error: ") == 2

"""The command line: its options, exit codes, and one line for each error."""

import re
import sys
from pathlib import Path

import click
import pytest

from foobar_instance.cli import SUMMARIES, cli, main, run
from foobar_shared import envelope
from foobar_shared.envelope import MAX_MESSAGE, MAX_PLAINTEXT
from foobar_shared.errors import NameFormatError
from tests.foobar_instance.conftest import Run
from tests.support.documents import OTHER_PCR0, PCR0, PUBLIC_KEY

MESSAGE = envelope.encrypt(b"banana", PUBLIC_KEY)
ROOT = ("--root-path", "root.pem")
PINNED = (*ROOT, "--pcr0", PCR0.hex())
ANY = "warning: any enclave is trusted, whatever its code: no measurement is compared"
OTHER_ROOT = "warning: trusting the root in root.pem instead of AWS's"


PINS = {
    "root_path": (["--root-path", "--rootPath"], "FOOBAR_ROOT_PATH"),
    "measurements": (["--measurements"], "FOOBAR_MEASUREMENTS"),
    "pcr0": (["--pcr0"], "FOOBAR_PCR0"),
    "pcrs": (["--pcr"], "FOOBAR_PCR"),
    "trust_any_enclave": (["--trust-any-enclave"], None),
    "allow_debug": (["--allow-debug"], None),
}
ATTESTATION = {
    "attestation_path": (["--attestation-path", "--attestationPath"], "FOOBAR_ATTESTATION_PATH")
}
ENCLAVE = {"enclave": (["--enclave"], "FOOBAR_ENCLAVE")}
CIPHERTEXT = {"ciphertext": (["--ciphertext"], None)}
PROOF = {"proof": (["--proof"], "FOOBAR_PROOF")}
JSON = {"as_json": (["--json"], "FOOBAR_JSON")}
CONTRACT = {
    "create-key": {
        "role": (["--role"], "FOOBAR_ROLE"),
        "proxy_listen": (["--proxy-listen"], "FOOBAR_PROXY_LISTEN"),
    }
    | ATTESTATION
    | ENCLAVE
    | PINS,
    "encrypt": {"plaintext": (["--plaintext"], None)} | ATTESTATION | PINS,
    "decrypt": CIPHERTEXT | ATTESTATION | ENCLAVE | PROOF | JSON | PINS,
    "verify": CIPHERTEXT | ATTESTATION | PROOF | JSON | PINS,
    "describe": {"root_path": PINS["root_path"]} | JSON,
}


@pytest.mark.parametrize("command", CONTRACT)
def test_the_options_of_each_command(command: str) -> None:
    assert isinstance(cli, click.Group)
    options = {option.name: option for option in cli.commands[command].params}
    for name, (spellings, variable) in CONTRACT[command].items():
        assert (options[name].opts, options[name].envvar) == (spellings, variable)


@pytest.mark.parametrize(
    ("command", "name", "default"),
    [
        ("create-key", "role", "aws-nitro-enclave-foobar-iam-role"),
        ("create-key", "proxy_listen", "vsock:3:1001"),
        ("create-key", "enclave", "vsock:16:1000"),
        ("decrypt", "enclave", "vsock:16:1000"),
        ("create-key", "attestation_path", "attestation.out"),
        ("encrypt", "attestation_path", "attestation.out"),
        ("decrypt", "attestation_path", "attestation.out"),
    ],
)
def test_the_defaults(command: str, name: str, default: object) -> None:
    options = {option.name: option for option in cli.commands[command].params}
    assert options[name].default == default


def test_what_help_says_of_a_command_is_what_the_command_says_first() -> None:
    assert list(cli.commands) == list(SUMMARIES)
    for name, command in cli.commands.items():
        assert command.get_short_help_str(100) == SUMMARIES[name]


def test_help_lists_the_commands_in_the_order_of_use(shell: Run) -> None:
    listed = shell("--help").stdout.partition("Commands:\n")[2].split("\n\n")[0].splitlines()
    assert [line.split(maxsplit=1) for line in listed] == [list(row) for row in SUMMARIES.items()]


def test_a_command_that_is_not_there(shell: Run) -> None:
    ran = shell("encrpt")
    assert ran.code == 2
    assert ran.error == (
        "No such command 'encrpt'. (Did you mean one of: 'decrypt', 'encrypt'?)"
        " (see foobar-instance --help)"
    )


@pytest.mark.parametrize("arguments", [["-h"], ["--help"], ["encrypt", "-h"], ["verify", "--help"]])
def test_help(shell: Run, arguments: list[str]) -> None:
    ran = shell(*arguments)
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.stdout.startswith("Usage: foobar-instance")


def test_the_help_tells_the_exit_codes(shell: Run) -> None:
    assert "Exit codes: 0 done, 1 the operation failed, 2 wrong usage, 3" in shell("-h").stdout


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
        (["encrypt"], "Missing option '--plaintext'. (see foobar-instance encrypt --help)"),
        (["decrypt"], "Missing option '--ciphertext'. (see foobar-instance decrypt --help)"),
        (["encrypt", "--bogus"], "No such option '--bogus'"),
        (["encrypt", "--plaintext"], "requires an argument"),
        (["encrypt", "--plaintext", "x", "more"], "unexpected extra argument"),
        (["encrypt", "--plaintext", "x", "--partition", "aws-cn"], "'aws-cn' is not one of"),
        (["encrypt", "--plaintext", "x"], "no measurement pins the enclave"),
        (["encrypt", "--plaintext", "x", "--pcr0", "00"], "PCR0: not 96 hexadecimal digits"),
    ],
)
def test_wrong_usage(shell: Run, arguments: list[str], words: str) -> None:
    ran = shell(*arguments)
    assert ran.code == 2
    assert words in ran.error


@pytest.mark.parametrize(
    "address", ["", "vsock:16", "unix:", "nowhere", "vsock:16:99999999999", "a..b:1"]
)
def test_a_malformed_address(shell: Run, address: str) -> None:
    for command in (["decrypt", "--ciphertext", MESSAGE], ["create-key"]):
        ran = shell(*command, *PINNED, "--enclave", address)
        assert ran.code == 2
        assert "--enclave" in ran.error
    ran = shell("create-key", *PINNED, "--proxy-listen", address)
    assert ran.code == 2
    assert "--proxy-listen" in ran.error


def test_encrypt_prints_the_message_alone(shell: Run) -> None:
    ran = shell("encrypt", "--plaintext", "banana", *PINNED)
    assert (ran.code, ran.stderr) == (0, f"{OTHER_ROOT}\n")
    envelope.parse_message(ran.stdout.removesuffix("\n"))


def test_options_from_the_environment(shell: Run, folder: Path) -> None:
    (folder / "moved").write_bytes((folder / "attestation.out").read_bytes())
    (folder / "attestation.out").unlink()
    ran = shell(
        "encrypt", "--plaintext", "banana",
        FOOBAR_ROOT_PATH="root.pem", FOOBAR_PCR0=PCR0.hex(), FOOBAR_ATTESTATION_PATH="moved",
    )  # fmt: skip
    assert (ran.code, ran.warnings) == (0, [OTHER_ROOT])


def test_registers_from_the_environment(shell: Run) -> None:
    right = f"0={PCR0.hex()} 1={'01' * 48}"
    assert shell("encrypt", "--plaintext", "x", *ROOT, FOOBAR_PCR=right).code == 0
    wrong = f"0={PCR0.hex()} 1={'02' * 48}"
    ran = shell("encrypt", "--plaintext", "x", *ROOT, FOOBAR_PCR=wrong)
    assert ran.code == 3
    assert "PCR1" in ran.error


@pytest.mark.parametrize("name", ["TRUST_ANY_ENCLAVE", "ALLOW_DEBUG", "PLAINTEXT"])
def test_what_does_not_come_from_the_environment(shell: Run, name: str) -> None:
    data = () if name == "PLAINTEXT" else ("--plaintext", "x")
    ran = shell("encrypt", *data, *ROOT, **{f"FOOBAR_{name}": "1"})
    assert ran.code == 2
    assert "--measurements" in ran.error or "Missing option '--plaintext'" in ran.error


def test_the_originals_spelling(shell: Run) -> None:
    ran = shell(
        "encrypt", "--attestationPath=attestation.out", "--rootPath=root.pem", "--plaintext=x",
        "--pcr0", PCR0.hex(),
    )  # fmt: skip
    assert ran.code == 0


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
    ran = shell("encrypt", "--plaintext", "x", "--trust-any-enclave", *ROOT, **environment)
    assert (ran.code, ran.warnings) == (0, [OTHER_ROOT, ANY])


@pytest.mark.parametrize("given", [("--pcr0", PCR0.hex()), ("--pcr", f"8={'00' * 48}")])
def test_any_enclave_contradicts_the_command_line(shell: Run, given: tuple[str, str]) -> None:
    ran = shell("encrypt", "--plaintext", "x", "--trust-any-enclave", *ROOT, *given)
    assert ran.code == 2
    assert "--trust-any-enclave contradicts" in ran.error


def test_quiet_hides_no_warning(shell: Run) -> None:
    ran = shell("encrypt", "-q", "--plaintext", "x", "--trust-any-enclave", *ROOT)
    assert ran.stderr.splitlines() == [OTHER_ROOT, ANY]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    ("flag", "told"), [("-q", set()), ("-v", {"step", "log"}), ("--verbose", {"step", "log"})]
)
def test_quiet_and_verbose_count_before_and_after_the_command(
    shell: Run, flag: str, told: set[str], *, before: bool
) -> None:
    rest = ("--ciphertext", MESSAGE, "--enclave", "unix:/nonexistent", *PINNED)
    ran = shell(flag, "decrypt", *rest) if before else shell("decrypt", flag, *rest)
    assert ran.error.startswith("no enclave answers")
    seen = {
        "step": "\nkey attestation verified" in ran.stderr,
        "log": "DEBUG foobar_instance.trust: the key's attestation verifies" in ran.stderr,
    }
    assert {name for name, there in seen.items() if there} == told


def test_the_environment_quiets_every_command(shell: Run) -> None:
    ran = shell("encrypt", "--plaintext", "x", *PINNED, FOOBAR_VERBOSE="1")
    assert "DEBUG foobar_instance" in ran.stderr
    ran = shell(
        "decrypt", "--ciphertext", MESSAGE, "--enclave", "unix:/x", *PINNED, FOOBAR_QUIET="1"
    )
    assert len(ran.stderr.splitlines()) == 2


@pytest.mark.parametrize("command", ["describe", "measure"])
def test_quiet_and_verbose_are_options_of_all(shell: Run, command: str) -> None:
    for flag in ("-q", "-v"):
        assert shell(command, flag, "missing").error.startswith("cannot read missing")


def test_a_path_can_not_write_to_the_terminal(shell: Run) -> None:
    ran = shell("encrypt", "--plaintext", "x", *PINNED, "--attestation-path", "a\x1b[2J\nerror: b")
    assert ran.error.startswith(r"cannot read a\x1b[2J\nerror: b: No such file")


def test_nor_can_an_option(shell: Run) -> None:
    assert r"'--bo\x1b[2Jgus'" in shell("encrypt", "--bo\x1b[2Jgus").error


def test_nor_can_the_path_of_a_root(shell: Run, folder: Path) -> None:
    (folder / "a\nb").write_bytes((folder / "root.pem").read_bytes())
    ran = shell("encrypt", "--plaintext", "x", "--rootPath", "a\nb", "--pcr0", PCR0.hex())
    assert ran.warnings == [r"warning: trusting the root in a\nb instead of AWS's"]


def test_a_proof_that_can_not_be_saved_is_known_before_anything_is_asked(
    shell: Run, folder: Path
) -> None:
    rest = ("--ciphertext", MESSAGE, "--enclave", "unix:/nonexistent", *PINNED)
    ran = shell("decrypt", "--proof", str(folder), *rest)
    assert ran.code == 1
    assert ran.error == f"cannot write {folder}: it is a folder"


def test_another_enclave_is_not_verified(shell: Run) -> None:
    ran = shell("encrypt", "--plaintext", "x", *ROOT, "--pcr0", OTHER_PCR0.hex())
    assert ran.code == 3
    assert "the key's attestation does not verify" in ran.error


def test_another_root_is_not_trusted(shell: Run) -> None:
    ran = shell("encrypt", "--plaintext", "x", "--pcr0", PCR0.hex())
    assert ran.code == 3
    assert "the document is under another root" in ran.error


def test_no_attestation(shell: Run, folder: Path) -> None:
    (folder / "attestation.out").unlink()
    ran = shell("encrypt", "--plaintext", "x", *PINNED)
    assert ran.code == 1
    assert ran.error.startswith("cannot read attestation.out: No such file or directory; ")
    assert "create-key saves" in ran.error
    assert "--attestation-path" in ran.error


def test_no_enclave(shell: Run, folder: Path) -> None:
    enclave = ("--enclave", "unix:/nonexistent", "--proof", "proof.json")
    ran = shell("decrypt", "--ciphertext", MESSAGE, *enclave, *PINNED)
    assert not (folder / "proof.json").exists()
    assert ran.code == 1
    assert ran.error.startswith("no enclave answers at unix:/nonexistent")


@pytest.mark.parametrize("by", ["argument", "standard input"])
def test_a_plaintext_that_is_too_long(shell: Run, by: str) -> None:
    for more in (1, 1000):
        text = "a" * (MAX_PLAINTEXT + more)
        ran = (
            shell("encrypt", "--plaintext", text, *PINNED)
            if by == "argument"
            else shell("encrypt", "--plaintext", "-", *PINNED, stdin=text.encode())
        )
        assert ran.code == 2
        assert f"longer than {MAX_PLAINTEXT} bytes" in ran.error


def test_the_longest_plaintext(shell: Run) -> None:
    assert shell("encrypt", "--plaintext", "a" * MAX_PLAINTEXT, *PINNED).code == 0
    assert shell("encrypt", "--plaintext", "-", *PINNED, stdin=b"\0" * MAX_PLAINTEXT).code == 0


@pytest.mark.parametrize(
    "text", ["", "banana!", "\u00e9", MESSAGE[:-4], MESSAGE + "=", "a" * (MAX_MESSAGE + 1000)]
)
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
    stdin = f"\n {MESSAGE}\r\n".encode()
    ran = shell("decrypt", "--ciphertext", "-", "--enclave", "unix:/x", *PINNED, stdin=stdin)
    assert ran.error.startswith("no enclave answers")


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: object) -> str:
        raise error

    monkeypatch.setattr("foobar_instance.encrypt.encrypt", fail)


def test_an_unexpected_error_is_one_line(shell: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, ValueError("canary"))
    ran = shell("encrypt", "-q", "--plaintext", "x", *PINNED)
    assert ran.code == 1
    assert ran.error == "unexpected ValueError: please report it (-v shows where)"
    assert ran.stderr.splitlines() == [OTHER_ROOT, f"error: {ran.error}"]


def test_verbose_shows_where_but_not_the_errors_text(
    shell: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, ValueError("can" + "ary"))
    ran = shell("encrypt", "-v", "--plaintext", "x", *PINNED)
    assert ran.code == 1
    assert "DEBUG foobar_instance.cli: ValueError at" in ran.stderr
    assert "in encrypt_command" in ran.stderr
    assert "canary" not in ran.stderr
    assert ran.error.startswith("unexpected ValueError")


def test_an_error_of_the_shared_parts(shell: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, NameFormatError("not a valid AWS region"))
    ran = shell("encrypt", "--plaintext", "x", *PINNED)
    assert (ran.code, ran.error) == (1, "not a valid AWS region")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupt(shell: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    failing(monkeypatch, error)
    ran = shell("encrypt", "--plaintext", "x", *PINNED)
    assert ran.code == 130
    assert ran.error == "interrupted"


def test_standard_input_that_is_closed(
    shell: Run, monkeypatch: pytest.MonkeyPatch, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shell("-h").code == 0
    monkeypatch.setattr(sys, "stdin", None)
    assert folder == Path.cwd()
    assert run(["encrypt", "--plaintext", "-", *PINNED]) == 1
    assert "error: cannot read standard input: it is closed\n" in capsys.readouterr().err


def test_main_ends_with_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, code in ((["--version"], 0), (["bogus"], 2)):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == code
    monkeypatch.setattr(sys, "argv", ["foobar-instance", "bogus"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("error: ") == 2

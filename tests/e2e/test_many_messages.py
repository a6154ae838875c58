"""Many messages by the real programs: in order, together, and over several enclaves."""

import contextlib
import json
import signal
import subprocess
import sys
import threading

import pytest

from emulator import Emulator
from emulator.pytest_plugin import InstanceCli
from foobar_shared.computation import compute
from foobar_shared.hpke import MAX_MESSAGE
from tests.e2e.conftest import printed

WORDS = [b"banana" * (number % 7) for number in range(40)]
DECRYPT = ("decrypt", "--lines", "--ciphertext", "-")
TOGETHER = ("decrypt", "--together", "--ciphertext", "-")


def seal(cli: InstanceCli, words: list[bytes], *options: str) -> list[bytes]:
    text = b"".join(word + b"\n" for word in words)
    sealed = cli.done("encrypt", "--lines", *options, "--plaintext", "-", stdin=text)
    return sealed.splitlines()


def joined(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def start(cli: InstanceCli, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "foobar_instance", *arguments],
        env=cli.emulator.process_environment() | environment,
        cwd=cli.directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_result_a_line_in_order(keyed: InstanceCli) -> None:
    lines = seal(keyed, WORDS[:20]) + seal(keyed, WORDS[20:], "--format", "1")
    assert keyed.done(*DECRYPT, stdin=joined(lines)) == b"".join(map(printed, WORDS))
    assert keyed.done(*DECRYPT, "--jobs", "1", stdin=joined(lines[:3])[:-1]).count(b"\n") == 3
    assert keyed.done(*DECRYPT) == b""


def test_a_line_that_fails_stops_no_other(keyed: InstanceCli) -> None:
    good = seal(keyed, [b"banana"])[0]
    damaged = seal(keyed, [b"banana"], "--format", "1")[0]
    fields = keyed.done(*DECRYPT, "--json", stdin=joined([good]))
    assert json.loads(fields)["line"] == 1
    long = b"A" * (MAX_MESSAGE + 10)
    result = keyed(*DECRYPT, stdin=joined([good, b"", b"nonsense", good, long]))
    assert result.returncode == 3
    lines = result.stdout.decode().splitlines(keepends=True)
    assert lines[0] == lines[3] == printed(b"banana").decode()
    assert lines[1] == "error: the line is empty\n"
    assert lines[2].startswith("error: not a ciphertext message")
    assert lines[4].startswith("error: the message is too long for a request")
    assert result.stderr.decode().splitlines()[-1].startswith("error: 3 of 5 messages failed")
    result = keyed(*DECRYPT, "--json", stdin=joined([damaged[:-9], good]))
    first, second = (json.loads(line) for line in result.stdout.splitlines())
    assert first.keys() == {"line", "error"}
    assert (second["line"], second["messages"]) == (2, 1)
    assert second == second | compute([b"banana"]).fields()


def test_where_no_enclave_answers_every_line_fails(keyed: InstanceCli) -> None:
    result = keyed(*DECRYPT, stdin=b"x\n", FOOBAR_ENCLAVE="unix:/nonexistent")
    assert result.returncode == 1
    assert b"no enclave answers" in result.stderr


def test_one_result_over_all_and_its_proof(keyed: InstanceCli, emulator: Emulator) -> None:
    lines = seal(keyed, WORDS)
    proof = ("--proof", "result.json")
    output = keyed.done(*TOGETHER, *proof, "--json", stdin=joined(lines))
    facts = json.loads(output)
    assert facts == facts | compute(WORDS).fields()
    assert facts["messages"] == len(WORDS)
    verify = ("verify", *proof, "--lines", "--ciphertext", "-")
    pcr0 = ("--pcr0", emulator.enclave.measurements.pcr0.hex())
    output = keyed.done(*verify, *pcr0, stdin=joined(lines))
    assert output.startswith(printed(*WORDS))
    for wrong in (lines[::-1], lines[:-1], [*lines, lines[0]]):
        result = keyed(*verify, *pcr0, stdin=joined(wrong))
        assert (result.returncode, result.stdout) == (3, b"")
        assert b"other messages" in result.stderr


@pytest.mark.threat("7")
def test_the_proof_of_another_key_of_the_same_image(keyed: InstanceCli, emulator: Emulator) -> None:
    message = joined(seal(keyed, [b"banana"]))
    keyed.done("decrypt", "--ciphertext", "-", "--proof", "result.json", stdin=message)
    keyed.done("create-key")
    keyed.done("decrypt", "--ciphertext", "-", "--proof", "other.json", stdin=keyed.seal("b"))
    proof, other = (
        json.loads((keyed.directory / name).read_text()) for name in ("result.json", "other.json")
    )
    swapped = json.dumps(proof | {"key": other["key"]}, separators=(",", ":")) + "\n"
    (keyed.directory / "result.json").write_text(swapped)
    pcr0 = ("--pcr0", emulator.enclave.measurements.pcr0.hex())
    verify = ("verify", "--proof", "result.json", "--ciphertext", "-", *pcr0)
    result = keyed(*verify, stdin=message)
    assert result.returncode == 3
    assert b"is for messages to another key" in result.stderr


def test_one_bad_message_refuses_all_and_is_named(keyed: InstanceCli) -> None:
    lines = seal(keyed, WORDS[:5])
    foreign = InstanceCli(keyed.emulator, keyed.directory / "foreign")
    foreign.directory.mkdir()
    foreign.done("create-key")
    for bad, words in (
        (b"nonsense", b"line 3: not a ciphertext message"),
        (b"", b"line 3: the line is empty"),
        (seal(foreign, [b"x"])[0], b"line 3: the enclave refused compute: the message does not"),
    ):
        result = keyed(*TOGETHER, stdin=joined([*lines[:2], bad, *lines[3:]]))
        assert (result.returncode, result.stdout) == (3, b"")
        assert words in result.stderr
    old = seal(keyed, [b"x"], "--format", "1")[0]
    result = keyed(*TOGETHER, stdin=joined([lines[0], old]))
    assert (result.returncode, b"line 2: a message of format 1" in result.stderr) == (2, True)


def test_more_than_one_request_holds(keyed: InstanceCli) -> None:
    message = seal(keyed, [b"x"])[0]
    result = keyed(*TOGETHER, stdin=joined([message] * 513))
    assert (result.returncode, b"at most 512 messages" in result.stderr) == (2, True)
    long = joined([keyed.seal(b"a" * 400_000).encode()] * 2)
    result = keyed(*TOGETHER, stdin=long)
    assert (result.returncode, b"1048576 bytes" in result.stderr) == (2, True)


def test_two_enclaves_of_which_one_ends(keyed: InstanceCli, emulator: Emulator) -> None:
    second = emulator.start_enclave("second")
    words = [b"a" * (number % 100) for number in range(500)]
    lines = seal(keyed, words)
    addresses = f"{emulator.enclave.address} {second.address}"
    with start(keyed, *DECRYPT, FOOBAR_ENCLAVE=addresses) as process:
        assert process.stdout
        assert process.stderr
        threading.Thread(target=_feed, args=(process, joined(lines)), daemon=True).start()
        output = [process.stdout.readline() for _ in range(60)]
        emulator.stop_enclave("second")
        output += process.stdout.readlines()
        assert process.wait(60) == 0
        warnings = process.stderr.read().decode().splitlines()
    assert output == [printed(word) for word in words]
    assert [str(second.address) in line for line in warnings if "left out" in line] == [True]


def _feed(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin
    with contextlib.suppress(OSError), process.stdin:
        process.stdin.write(data)


def test_ctrl_c_ends_at_once(keyed: InstanceCli) -> None:
    with start(keyed, *DECRYPT) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(joined(seal(keyed, [b"banana"])))
        process.stdin.flush()
        assert process.stdout.readline() == printed(b"banana")  # while more may come
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 130
        assert process.stdout.read() == b""
        assert process.stderr
        assert process.stderr.read().decode().splitlines()[-1] == "error: interrupted"


@pytest.mark.parametrize("command", ["encrypt", "decrypt"])
def test_nobody_reads_the_rest(keyed: InstanceCli, command: str) -> None:
    option = "--plaintext" if command == "encrypt" else "--ciphertext"
    line = joined(seal(keyed, [b"banana"]))
    with start(keyed, command, "--lines", option, "-") as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(line)
        process.stdin.flush()
        assert process.stdout.readline()
        process.stdout.close()
        process.stdin.write(line)
        process.stdin.flush()  # and stays open
        assert process.wait(10) == 1
        assert process.stderr
        assert b"error" not in process.stderr.read()


def test_folded_messages(keyed: InstanceCli) -> None:
    for options in ((), ("--format", "1")):
        (message,) = seal(keyed, [b"banana" * 50], *options)
        rows = [message[start : start + 64] for start in range(0, len(message), 64)]
        folded = b"\r\n ".join(rows) + b"\r\n"
        assert keyed.done("decrypt", "--ciphertext", "-", stdin=folded) == printed(b"banana" * 50)

"""Each lie of a hostile parent instance is refused, with its own message and exit code."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from socket import socket

import pytest

from emulator import Emulator
from emulator.pytest_plugin import InstanceCli
from emulator.tls import create_server_identity
from foobar_shared.addresses import UnixAddress
from tests.e2e.conftest import printed
from tests.e2e.hostile import (
    Exchange,
    cut,
    enclave_in_the_middle,
    plain_server,
    serving,
)

KMS_ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n{"KeyMetadata": {}}'


def refused(result: object, code: int, *words: str) -> None:
    """One line on standard error that holds `words`, nothing on standard output."""
    assert getattr(result, "returncode") == code, getattr(result, "stderr")  # noqa: B009
    stderr = getattr(result, "stderr").decode()  # noqa: B009
    assert getattr(result, "stdout") == b""  # noqa: B009
    assert "Traceback" not in stderr
    last = stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    for word in words:
        assert word in last


@pytest.fixture
def second_relay(emulator: Emulator) -> str:
    """Where the command line's own relay may listen, while the enclave dials a hostile one."""
    return f"unix:{emulator.directory}/unused"


def hostile_relay(emulator: Emulator) -> UnixAddress:
    return UnixAddress(emulator.environment["FOOBAR_PROXY_LISTEN"].removeprefix("unix:"))


def swapped_certificate(tmp_path: Path) -> Callable[[socket], None]:
    identity = create_server_identity(
        host_names=["kms.us-east-1.amazonaws.com"], now=datetime.now(UTC)
    )
    context = identity.server_context(tmp_path)

    def serve(connection: socket) -> None:
        connection.settimeout(30)
        with context.wrap_socket(connection, server_side=True) as stream:
            stream.recv(65536)
            stream.sendall(KMS_ANSWER)

    return serve


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        ("swapped certificate", "certificate"),
        ("in KMS's place", "TLS"),
        ("cut", ""),
    ],
)
@pytest.mark.threat("B")
def test_a_hostile_relay(
    cli: InstanceCli, emulator: Emulator, second_relay: str, tmp_path: Path, attack: str, words: str
) -> None:
    serve = {
        "swapped certificate": swapped_certificate(tmp_path),
        "in KMS's place": plain_server(KMS_ANSWER),
        "cut": cut,
    }[attack]
    with serving(hostile_relay(emulator), serve):
        result = cli("create-key", FOOBAR_PROXY_LISTEN=second_relay)
    refused(result, 1, "KMS", words)
    assert not cli.attestation.exists()


@pytest.mark.threat("9")
def test_a_key_attestation_replayed_from_an_earlier_run(
    cli: InstanceCli, emulator: Emulator
) -> None:
    answers: list[bytes] = []

    def record(line: bytes, exchange: Exchange) -> bytes:
        answers.append(exchange(line))
        return answers[-1]

    with enclave_in_the_middle(emulator.enclave.address, record) as address:
        cli.done("create-key", FOOBAR_ENCLAVE=address)
    cli.attestation.unlink()
    with enclave_in_the_middle(emulator.enclave.address, lambda *_: answers[0]) as address:
        result = cli("create-key", FOOBAR_ENCLAVE=address)
    refused(result, 3, "nonce")
    assert not cli.attestation.exists()


@pytest.mark.parametrize("replayed", ["getAttestation", "compute"])
@pytest.mark.threat("9")
def test_an_answer_replayed_from_an_earlier_run(
    keyed: InstanceCli, emulator: Emulator, replayed: str
) -> None:
    answers: dict[str, bytes] = {}

    def record(line: bytes, exchange: Exchange) -> bytes:
        (name,) = json.loads(line)
        answers[name] = exchange(line)
        return answers[name]

    def replay(line: bytes, exchange: Exchange) -> bytes:
        (name,) = json.loads(line)
        return answers[name] if name == replayed else exchange(line)

    message = keyed.done("encrypt", "--plaintext", "banana")
    with enclave_in_the_middle(emulator.enclave.address, record) as address:
        keyed.done("decrypt", "--ciphertext", "-", stdin=message, FOOBAR_ENCLAVE=address)
    with enclave_in_the_middle(emulator.enclave.address, replay) as address:
        result = keyed("decrypt", "--ciphertext", "-", stdin=message, FOOBAR_ENCLAVE=address)
    refused(result, 3, "nonce")


@pytest.mark.parametrize(("version", "word"), [("1", "request"), ("2", "other messages")])
@pytest.mark.threat("5")
def test_a_result_of_other_input_under_the_right_challenge(
    keyed: InstanceCli, emulator: Emulator, version: str, word: str
) -> None:
    requests: list[dict[str, str]] = []

    def substitute(line: bytes, exchange: Exchange) -> bytes:
        request = json.loads(line)
        for name in request.keys() - {"getAttestation"}:
            requests.append(request[name])
            other = requests[0] | {"challenge": request[name]["challenge"]}
            line = json.dumps({name: other}, separators=(",", ":")).encode()
        return exchange(line)

    encrypt = ("encrypt", "--format", version, "--plaintext")
    messages = [keyed.done(*encrypt, text) for text in ("aaaa", "banana")]
    with enclave_in_the_middle(emulator.enclave.address, substitute) as address:
        first, second = (
            keyed("decrypt", "--ciphertext", "-", stdin=message, FOOBAR_ENCLAVE=address)
            for message in messages
        )
    assert first.stdout == printed(b"aaaa")
    refused(second, 3, word)


@pytest.fixture(scope="session")
def other_enclave(emulator: Emulator) -> str:
    return str(emulator.start_enclave("other", measured=b"one more byte").address)


@pytest.fixture(scope="session")
def debug_enclave(emulator: Emulator) -> str:
    return str(emulator.start_enclave("debug", debug=True).address)


@pytest.mark.threat("1")
def test_a_key_of_another_enclave(cli: InstanceCli, other_enclave: str) -> None:
    refused(cli("create-key", FOOBAR_ENCLAVE=other_enclave), 3, "PCR0")
    assert not cli.attestation.exists()


def test_decryption_by_another_enclave(keyed: InstanceCli, other_enclave: str) -> None:
    message = keyed.done("encrypt", "--plaintext", "banana")
    result = keyed("decrypt", "--ciphertext", "-", stdin=message, FOOBAR_ENCLAVE=other_enclave)
    refused(result, 3, "PCR0")


def test_kms_refuses_another_enclave_that_the_user_would_trust(
    keyed: InstanceCli, other_enclave: str
) -> None:
    message = keyed.done("encrypt", "--plaintext", "banana")
    result = keyed(
        "decrypt",
        "--trust-any-enclave",
        "--ciphertext",
        "-",
        stdin=message,
        FOOBAR_ENCLAVE=other_enclave,
        FOOBAR_MEASUREMENTS="",
    )
    assert result.returncode != 0
    assert result.stdout == b""


@pytest.mark.threat("2")
def test_a_debug_enclave_makes_no_key(cli: InstanceCli, debug_enclave: str) -> None:
    refused(cli("create-key", FOOBAR_ENCLAVE=debug_enclave), 1, "debug mode")
    assert not cli.attestation.exists()


@pytest.mark.threat("2")
def test_a_debug_enclave_decrypts_nothing(keyed: InstanceCli, debug_enclave: str) -> None:
    message = keyed.done("encrypt", "--plaintext", "banana")
    result = keyed("decrypt", "--ciphertext", "-", stdin=message, FOOBAR_ENCLAVE=debug_enclave)
    refused(result, 3, "debug mode")


@pytest.mark.threat("1")
def test_an_attestation_of_another_enclave_is_not_encrypted_to(
    keyed: InstanceCli, emulator: Emulator, other_enclave: str
) -> None:
    assert other_enclave
    measurements = str(emulator.measurements_path("other"))
    result = keyed("encrypt", "--plaintext", "x", FOOBAR_MEASUREMENTS=measurements)
    refused(result, 3, "PCR0")


@pytest.mark.threat("7")
def test_a_ciphertext_for_another_key(keyed: InstanceCli) -> None:
    message = keyed.done("encrypt", "--plaintext", "banana")
    keyed.done("create-key")
    (other,) = keyed.directory.glob("attestation.*.out")
    advice = f"sealed to another key: use --attestation-path {other.name}"
    refused(keyed("decrypt", "--ciphertext", "-", stdin=message), 3, "does not decrypt", advice)
    known = ("--attestation-path", other.name)
    assert keyed.done("decrypt", *known, "--ciphertext", "-", stdin=message)
    message_1 = keyed.done("encrypt", *known, "--format", "1", "--plaintext", "banana")
    refused(keyed("decrypt", "--ciphertext", "-", stdin=message_1), 3, "does not decrypt")


@pytest.mark.threat("F")
def test_a_hostile_error_text_does_not_reach_the_terminal_as_it_is(
    keyed: InstanceCli, emulator: Emulator
) -> None:
    message = keyed.done("encrypt", "--plaintext", "banana")
    answer = json.dumps({"error": "\x1b[2J\x07 rm -rf\nerror: all is well"}).encode()
    with enclave_in_the_middle(emulator.enclave.address, lambda *_: answer) as address:
        result = keyed("decrypt", "--ciphertext", "-", stdin=message, FOOBAR_ENCLAVE=address)
    refused(result, 1, "rm -rf")
    assert b"\x1b" not in result.stderr
    assert b"\x07" not in result.stderr

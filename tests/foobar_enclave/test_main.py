from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from foobar_enclave import main as main_module
from foobar_enclave.main import NOBODY, give_up_root, main
from foobar_enclave.nsm import NsmDevice
from foobar_shared import VERSION
from foobar_shared.framing import LineSocket
from foobar_shared.messages import (
    AttestationResponse,
    GetAttestationRequest,
    encode_request,
    parse_response,
)
from tests.foobar_enclave.fakes import NONCE, PCR0, REQUEST, FakeNsm

ROOT: Final = Path(__file__).parents[2]
LOG_LINE: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|WARNING) event=\S.*")


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


@contextmanager
def enclave(
    folder: Path, *options: str, stderr: int = subprocess.PIPE
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    path = folder / "enclave"
    command = python("-m", "tests.foobar_enclave.enclave_process")
    with subprocess.Popen(
        [*command, str(path), str(folder / "relay"), *options],
        cwd=ROOT,
        stderr=stderr,
        text=True,
    ) as process:
        try:
            deadline = time.monotonic() + 20
            while not path.exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            yield process, path
        finally:
            process.kill()


def ask(path: Path, *requests: bytes) -> list[bytes]:
    answers = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(path))
        lines = LineSocket(connection)
        for request in requests:
            lines.send_line(request, within=10)
            answers.append(lines.read_line(idle=20, within=10) or b"")
    return answers


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal_and_ends_cleanly(
    number: signal.Signals, socket_folder: Path
) -> None:
    with enclave(socket_folder) as (process, path):
        first, second, third = ask(
            path, encode_request(GetAttestationRequest(NONCE)), b"junk", encode_request(REQUEST)
        )
        process.send_signal(number)
        _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    response = parse_response(first)
    assert isinstance(response, AttestationResponse)
    key = load_der_public_key(cbor2.loads(response.attestation)["public_key"])
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.key_size == 2048
    assert second == b'{"error":"not valid JSON"}'
    assert b"no answer from KMS to CreateKey" in third
    lines = log.splitlines()
    assert all(LOG_LINE.fullmatch(line) for line in lines), log
    assert re.search("event=entropy bytes=256 credited=(True|False)$", lines[0])
    assert lines[1].endswith(f"event=start pcr0={PCR0.hex()} debug=False")
    assert [line.split()[3] for line in lines if "event=request" in line] == [
        "type=getAttestation",
        "type=none",
        "type=createKey",
    ]
    assert lines[-1].endswith("event=stop")


def test_weakness_2_a_debug_enclave_says_so_on_its_console(socket_folder: Path) -> None:
    with enclave(socket_folder, "debug") as (process, path):
        (answer,) = ask(path, encode_request(REQUEST))
        process.terminate()
        _, log = process.communicate(timeout=20)
    assert b"debug mode" in answer
    assert f"event=start pcr0={'0' * 96} debug=True" in log


def sockets() -> tuple[int, int]:
    one, other = socket.socketpair()
    return one.detach(), other.detach()


def fill(writer: int) -> None:
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writer, b"." * 512):
            pass
    os.set_blocking(writer, True)


@pytest.mark.parametrize("channel", [os.pipe, sockets])
def test_a_console_that_nobody_reads_stops_nothing(
    channel: Callable[[], tuple[int, int]], socket_folder: Path
) -> None:
    reader, writer = channel()
    fill(writer)
    request = encode_request(GetAttestationRequest(NONCE))
    with (
        os.fdopen(reader, "rb", buffering=0) as console,
        enclave(socket_folder, stderr=writer) as (process, path),
    ):
        os.close(writer)
        assert all(ask(path, request, request, request))
        os.set_blocking(reader, False)
        read = b"".join(iter(lambda: console.read(65536), None))
        os.set_blocking(reader, True)
        assert ask(path, request)
        process.terminate()
        assert process.wait(timeout=20) == 0
        log = (read + console.readall()).lstrip(b".").decode().splitlines()
    assert all(LOG_LINE.fullmatch(line) for line in log), log
    events = [line.split(maxsplit=2)[2] for line in log]
    assert events[-1] == "event=stop"
    dropped = int(events[0].removeprefix("event=log dropped="))
    # The enclave logs start, entropy, 4 requests, 2 connections and its stop.
    assert dropped + len(events[1:]) == 9


def test_sigterm_ends_an_enclave_whose_console_nobody_reads(socket_folder: Path) -> None:
    reader, writer = os.pipe()
    fill(writer)
    with enclave(socket_folder, stderr=writer) as (process, path):
        assert ask(path, encode_request(REQUEST))  # it serves, so it has its signal handlers
        process.terminate()
        assert process.wait(timeout=20) == 0
    os.close(writer)
    os.close(reader)


@pytest.mark.threat("19")
def test_entropy_is_fed_and_rights_are_given_up_before_the_key_is_made(
    socket_folder: Path,
) -> None:
    """The order is the module's requests, the rights, and then the library's call."""
    result = subprocess.run(
        python("-c", ORDER, str(socket_folder / "enclave")),
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    assert result.stdout.splitlines() == [
        "rights after ['DescribePCR', 'GetRandom']",
        "key {'public_exponent': 65537, 'key_size': 2048}",
    ]
    assert "event=entropy bytes=256" in result.stderr


ORDER = """
import sys
from cryptography.hazmat.primitives.asymmetric import rsa
from foobar_enclave.main import run
from foobar_shared.addresses import UnixAddress, listen
from tests.foobar_enclave.fakes import FakeNsm, no_connection

def make_key(**arguments):
    print("key", arguments)
    sys.exit()

rsa.generate_private_key = make_key
nsm = FakeNsm()
with listen(UnixAddress(sys.argv[1])) as listener:
    run(
        nsm=nsm.device, listener=listener, connect=no_connection,
        give_up=lambda: print("rights after", nsm.names),
    )
"""


PROGRAM = """
import os
from foobar_enclave.main import give_up_root

give_up_root()
print(os.getresuid(), os.getresgid(), os.getgroups())
for line in open("/proc/self/status"):
    if line.startswith(("CapPrm", "CapEff")):
        print(int(line.split()[1], 16))
try:
    os.setuid(0)
except PermissionError:
    print("no way back")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
def test_root_becomes_nobody_for_good() -> None:
    done = subprocess.run(
        python("-c", PROGRAM), capture_output=True, text=True, check=True, timeout=30
    )
    ids = (NOBODY, NOBODY, NOBODY)
    assert done.stdout.splitlines() == [f"{ids} {ids} []", "0", "0", "no way back"]


def test_another_user_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for name in ("setgroups", "setresgid", "setresuid"):
        monkeypatch.delattr(os, name)
    give_up_root()


@pytest.mark.parametrize("failing", ["setgroups", "setresgid", "setresuid"])
def test_a_refusal_to_let_go_is_not_passed_over(
    monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for name in ("setgroups", "setresgid", "setresuid"):
        monkeypatch.setattr(os, name, refuse if name == failing else lambda *_: None)
    with pytest.raises(PermissionError):
        give_up_root()


def test_outside_of_an_enclave_it_says_so_in_one_line() -> None:
    if Path("/dev/nsm").exists():
        pytest.skip("this is an enclave")
    result = subprocess.run(
        python("-m", "foobar_enclave"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stdout == ""
    assert re.fullmatch(r"foobar-enclave: .+\n", result.stderr), result.stderr


def test_help_and_version_are_all_its_options() -> None:
    def output(option: str) -> str:
        command = python("-m", "foobar_enclave", option)
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert output("--version") == f"foobar-enclave {VERSION}\n"
    assert set(re.findall(r"--\w+", output("--help"))) == {"--help", "--version"}


@pytest.fixture
def production(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What main() wires together, with nothing of it done."""
    given: dict[str, object] = {}

    def fake_listen(address: object) -> socket.socket:
        given["listen"] = str(address)
        return socket.socket()

    def fake_run(**arguments: object) -> None:
        given.update(arguments)
        given["environment"] = dict(os.environ)

    monkeypatch.setattr("sys.argv", ["foobar-enclave"])
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(main_module, "listen", fake_listen)
    monkeypatch.setattr(main_module, "run", fake_run)
    monkeypatch.setattr(main_module, "NsmDevice", lambda: NsmDevice(transport=FakeNsm()))
    monkeypatch.setattr(
        main_module, "connect", lambda address, *, seconds: f"{address} in {seconds} s"
    )
    return given


def test_production_is_wired_to_vsock_and_the_relay(production: dict[str, object]) -> None:
    main()
    assert production["listen"] == "vsock:4294967295:1000"
    assert isinstance(production["nsm"], NsmDevice)
    assert "ca_file" not in production, "the packaged roots"
    assert production["give_up"] is give_up_root
    connect = production["connect"]
    assert callable(connect)
    assert connect() == "vsock:3:1001 in 10.0 s"


def test_weakness_3_the_program_forgets_its_environment(
    production: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "AWS_ENDPOINT_URL", "https://attacker.example")
    monkeypatch.setitem(os.environ, "BOTOCORE_EXPERIMENTAL__PLUGINS", "x=attacker")
    main()
    assert production["environment"] == {}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PermissionError(13, "Permission denied"), "vsock port 1000: Permission denied"),
        (OSError("odd"), "vsock port 1000: odd"),
    ],
)
def test_a_port_that_cannot_be_had_is_one_line(
    error: OSError,
    text: str,
    production: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: object) -> socket.socket:
        raise error

    monkeypatch.setattr(main_module, "listen", refuse)
    with pytest.raises(SystemExit, match=f"^foobar-enclave: cannot serve on {text}$"):
        main()
    assert "nsm" not in production

from __future__ import annotations

import errno
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from foobar_shared import VERSION
from foobar_shared.addresses import TcpAddress, UnixAddress, connect, listen, parse_address
from proxy import cli
from tests.proxy.peers import SECONDS, exchange

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "proxy")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
    )


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The program, and the line that it logs once it is up."""
    with subprocess.Popen(
        [*COMMAND, *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as it:
        assert it.stderr is not None
        try:
            yield it, it.stderr.readline()
        finally:
            it.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_relays_until_a_signal_and_ends_with_0(tmp_path: Path, number: signal.Signals) -> None:
    front = tmp_path / "front"
    with listen(TcpAddress("127.0.0.1", 0)) as target:
        target.settimeout(SECONDS)
        to = f"127.0.0.1:{target.getsockname()[1]}"
        with running("--listen", f"unix:{front}", "--to", to) as (program, up):
            assert up.rstrip().endswith(f"INFO relaying unix:{front} to {to}")
            with connect(UnixAddress(str(front)), seconds=5) as client:
                server, _ = target.accept()
                with server:
                    client.sendall(b"question")
                    assert server.recv(8) == b"question"
                    program.send_signal(number)
                    assert program.wait(5) == 0
            assert program.stderr is not None
            assert "Traceback" not in program.stderr.read()


def test_logs_the_port_that_it_got() -> None:
    with running("--listen", "127.0.0.1:0", "--to", "127.0.0.1:9") as (_, up):
        place = parse_address(up.split()[4])
        assert isinstance(place, TcpAddress)
        assert place.port
        connect(place, seconds=5).close()


def test_without_descriptors_open_connections_go_on_and_new_ones_wait(tmp_path: Path) -> None:
    front = UnixAddress(str(tmp_path / "front"))
    with listen(TcpAddress("127.0.0.1", 0)) as target:
        target.settimeout(SECONDS)
        to = f"127.0.0.1:{target.getsockname()[1]}"
        with (
            running("--listen", str(front), "--to", to) as (program, _),
            connect(front, seconds=SECONDS) as old,
        ):
            server, _ = target.accept()
            server.settimeout(SECONDS)
            exchange(old, server)
            in_use = len(list(Path(f"/proc/{program.pid}/fd").iterdir()))
            _, hard = resource.prlimit(program.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (in_use, hard))
            with connect(front, seconds=SECONDS) as late, server:
                assert program.stderr is not None
                assert "WARNING cannot accept: Too many open files" in program.stderr.readline()
                exchange(old, server)
                resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (hard, hard))
                accepted, _ = target.accept()
                with accepted:
                    accepted.settimeout(SECONDS)
                    exchange(late, accepted)


def test_port_in_use_is_one_line_and_1() -> None:
    with listen(TcpAddress("127.0.0.1", 0)) as other:
        place = f"127.0.0.1:{other.getsockname()[1]}"
        result = run("--listen", place, "--to", "127.0.0.1:9")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"error: can't listen at {place}: it is in use; stop what listens there, "
        "or choose another\n"
    )


@pytest.mark.parametrize(
    ("place", "code", "says"),
    [
        ("vsock:3:1001", errno.EACCES, "with sudo"),
        ("127.0.0.1:80", errno.EPERM, "with sudo"),
        ("unix:/run/x", errno.EACCES, "directory"),
        ("vsock:3:1001", errno.EADDRINUSE, "in use"),
        ("vsock:3:1001", errno.EAFNOSUPPORT, "no vsock"),
        ("vsock:3:1001", errno.ENODEV, "no vsock"),
        ("vsock:3:1001", errno.EADDRNOTAVAIL, "CID 3 is not this machine's"),
        ("127.0.0.1:80", errno.EADDRNOTAVAIL, "127.0.0.1:80: it failed"),
    ],
)
def test_what_keeps_it_from_listening_is_said_with_advice(place: str, code: int, says: str) -> None:
    error = OSError(code, "it failed (while attempting to bind)")
    text = cli.cannot_listen(parse_address(place), error)
    assert place in text
    assert says in text


GOOD = ("--listen", "vsock:3:1001", "--to", "127.0.0.1:9")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--listen", "vsock:3:1001"),
        ("--listen", "vsock:3", "--to", "127.0.0.1:9"),
        ("--listen", "vsock:3:1001", "--to", "nowhere"),
        (*GOOD, "--max-connections", "0"),
        (*GOOD, "--max-connections", "000001000000000"),
        (*GOOD, "--connect-timeout", "0"),
        (*GOOD, "--connect-timeout", "nan"),
        (*GOOD, "--idle-timeout", "-1"),
        (*GOOD, "--idle-timeout", "inf"),
        (*GOOD, "--idle-timeout", "soon"),
        (*GOOD, "--allow-cid", "4294967296"),
        (*GOOD, "--allow-cid", "any"),
        (*GOOD, "-v", "-q"),
        (*GOOD, "more"),
        ("--listen", "unix:/tmp/x", "--to", "127.0.0.1:9", "--allow-cid", "16"),
    ],
)
def test_usage_error_is_one_line_and_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") == 1


def test_target_that_looks_like_a_vsock_address_is_told_of_vsock(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--listen", "vsock:3:1001", "--to", "19:8080"])
    assert caught.value.code == 2
    said = "19:8080 has a bare number for its host; for vsock, write vsock:CID:PORT"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "cid"),
    [
        (GOOD, 16),
        ((*GOOD, "--allow-cid", "20"), 20),
        ((*GOOD, "--allow-cid", "0"), 0),
        (("--listen", "unix:/tmp/x", "--to", "127.0.0.1:9"), None),
    ],
)
def test_cid_that_is_allowed(arguments: tuple[str, ...], cid: int | None) -> None:
    assert cli.parse(arguments).allow_cid == cid


def test_help_and_version() -> None:
    shown = run("--help")
    assert shown.returncode == 0
    assert "--listen vsock:3:1001 --to kms.us-east-1.amazonaws.com:443" in shown.stdout
    assert run("--version").stdout == f"proxy {VERSION}\n"

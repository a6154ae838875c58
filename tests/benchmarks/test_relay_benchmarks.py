from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import relay_messages, relay_peers, relay_streams
from benchmarks.relay_peers import C_RELAY, OURS, AbsentError, Peer, Places, peers
from benchmarks.relay_running import Dials, Running, all_running, load
from foobar_shared.addresses import TcpAddress, UnixAddress

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")

HERE = [peer for peer in peers() if peer.who in (OURS, C_RELAY)]

# Takes a connection and dials, but spoils what passes through it as the first argument says.
BAD_RELAY = """\
import socket, sys, threading
how, front, port = sys.argv[1:]
listener = socket.socket(socket.AF_UNIX)
listener.bind(front)
listener.listen()
def copy(source, sink):
    while data := source.recv(65536):
        if how == "flip":
            data = bytes([data[0] ^ 1]) + data[1:]
        if how == "lose" and len(data) > 100:
            data = data[:-1]
        sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)
while True:
    near, _ = listener.accept()
    far = socket.create_connection(("127.0.0.1", int(port)))
    threading.Thread(target=copy, args=(near, far), daemon=True).start()
    threading.Thread(target=copy, args=(far, near), daemon=True).start()
"""


@pytest.fixture(autouse=True)
def _unpacked(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.getbasetemp() / "peers"  # programs are compiled once
    monkeypatch.setattr(relay_peers, "_UNPACKED", folder)


def bad(how: str) -> Peer:
    def command(places: Places, _: Path) -> list[str]:
        assert isinstance(places.front, UnixAddress)
        assert isinstance(places.back, TcpAddress)
        return [sys.executable, "-c", BAD_RELAY, how, places.front.path, str(places.back.port)]

    return Peer(how, command)


@pytest.fixture(params=["unix to TCP", "TCP to unix"])
def ours(request: pytest.FixtureRequest) -> Iterator[Running]:
    dials: Dials = request.param
    with all_running([HERE[0]], dials) as relays:
        relay = relays[OURS]
        assert isinstance(relay, Running)
        yield relay


@needs_compiler
@pytest.mark.parametrize("mode", ["up", "down"])
@pytest.mark.parametrize("streams", [1, 5])
def test_streams_are_loaded(ours: Running, mode: str, streams: int) -> None:
    (seconds,) = load(ours, mode, streams, 1_000_001)
    assert seconds > 0
    assert ours.cpu_seconds() > 0


@needs_compiler
@pytest.mark.parametrize(("mode", "clients"), [("ask", 1), ("ask", 5), ("connect", 3)])
def test_messages_are_loaded(ours: Running, mode: str, clients: int) -> None:
    rate, median = load(ours, mode, clients, 0.05)
    assert rate > 0
    assert median > 0


@needs_compiler
def test_streams_are_measured() -> None:
    section = relay_streams.measure(HERE, rounds=1, size=1_000_000)
    assert len(section.measurements) == 8 * len(HERE) + 2 * len(HERE)
    assert all(one.samples for one in section.measurements)
    texts = [one.text for one in section.ratios]
    assert texts == [
        "proxy, CPU / C, read and write, CPU",
        "proxy, mean of all / C, read and write, mean of all",
    ]


@needs_compiler
def test_messages_are_measured() -> None:
    section = relay_messages.measure(HERE, rounds=1, seconds=0.02)
    assert [one.unit for one in section.measurements[::2]] == ["us, p50", "a second", "a second"]
    assert all(one.samples for one in section.measurements)
    assert len(section.ratios) == 3


@needs_compiler
def test_absent_peer_is_reported_with_its_reason() -> None:
    def missing(*_: object) -> list[str]:
        raise AbsentError("not to be had here")

    contestants = [*HERE, Peer("nginx", missing)]
    section = relay_streams.measure(contestants, rounds=1, size=100_000)
    absent = [one for one in section.measurements if one.who.startswith("nginx")]
    assert {one.absent for one in absent} == {"not to be had here"}
    assert "absent: not to be had here" in section.table()
    assert {one.verdict for one in section.ratios if "nginx" in one.text} == {"absent"}
    section = relay_messages.measure(contestants, rounds=1, seconds=0.02)
    assert {one.verdict for one in section.ratios if "nginx" in one.text} == {"absent"}


def test_relay_that_changes_a_byte_is_not_measured() -> None:
    with all_running([bad("flip")], "unix to TCP") as relays:
        assert relays == {"flip": "what arrives is not what was sent"}


def test_relay_that_cannot_start_is_absent_for_what_it_said() -> None:
    peer = Peer("x", lambda *_: [sys.executable, "-c", "raise SystemExit('out of relays')"])
    with all_running([peer], "unix to TCP") as relays:
        assert relays == {"x": "out of relays"}


@needs_compiler
@pytest.mark.parametrize("mode", ["up", "down"])
def test_lost_bytes_fail_the_measurement(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.relay_running.check", lambda _: None)
    with all_running([bad("lose")], "unix to TCP") as relays:
        relay = relays["lose"]
        assert isinstance(relay, Running)
        with pytest.raises(RuntimeError, match="bytes were lost or added"):
            load(relay, mode, 1, 500_000)


@pytest.mark.parametrize("who", ["nginx", "haproxy", "socat"])
@pytest.mark.parametrize("dials", ["unix", "tcp"])
def test_peers_get_both_places(
    who: str, dials: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/usr/sbin/{name}")
    module = tmp_path / "nginx" / "usr/lib/nginx/modules/ngx_stream_module.so"
    module.parent.mkdir(parents=True)
    module.touch()
    monkeypatch.setattr(relay_peers, "_UNPACKED", tmp_path)
    local, internet = UnixAddress("/run/a.sock"), TcpAddress("127.0.0.1", 4321)
    places = Places(local, internet) if dials == "unix" else Places(internet, local)
    (peer,) = [one for one in peers() if one.who == who]
    told = " ".join(map(str, peer.command(places, tmp_path)))
    told += "".join(path.read_text() for path in tmp_path.glob("*.c*f*"))
    assert "/run/a.sock" in told
    assert "4321" in told


def test_package_that_cannot_be_fetched_makes_the_peer_absent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("apt-get", "dpkg"):
        (tools / name).write_text("#!/bin/sh\necho 'E: no such package' >&2\nexit 100\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/bin")
    monkeypatch.setattr(relay_peers, "_UNPACKED", tmp_path / "peers")
    with pytest.raises(AbsentError, match="apt-get: E: no such package"):
        relay_peers._program("no-such-relay", "usr/bin/no-such-relay", ("no-such-package",))


@needs_compiler
def test_c_programs_compile_without_a_warning(tmp_path: Path) -> None:
    for name in ("relay", "relay_load"):
        source = Path(relay_peers.__file__).with_name(f"{name}.c")
        command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"]
        done = subprocess.run(
            [*command, tmp_path / name, source], capture_output=True, text=True, check=False
        )
        assert done.stderr == ""
        assert os.access(tmp_path / name, os.X_OK)

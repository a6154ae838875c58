"""The relay beside HAProxy and socat: one long stream, round trips, new connections.

Each relay listens on a unix socket and dials a TCP port; the client and the target are threads of
this process, at the same cost for all.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.programs import PROJECT
from benchmarks.report import Contestant, Measurement, Ratio, Section, rate, ratio_of, take

_START_SECONDS: Final = 10.0
_HAPROXY: Final = """\
global
    nbthread 1
defaults
    mode tcp
    timeout connect 10s
    timeout client 300s
    timeout server 300s
listen relay
    bind unix@{front}
    server target 127.0.0.1:{port}
"""
# By name, which for a peer is that of its program and of its package in Debian.
_COMMANDS: Final = {
    "proxy": (
        sys.executable,
        "-m",
        "proxy",
        "-q",
        "--listen=unix:{front}",
        "--to=127.0.0.1:{port}",
    ),
    "haproxy": ("haproxy", "-db", "-f", "{front}.cfg"),
    "socat": ("socat", "UNIX-LISTEN:{front},fork,backlog=1024", "TCP:127.0.0.1:{port},nodelay"),
}
_STREAM, _ECHO = b"S", b"E"  # a connection's first byte: read all of it, or send it back


def run(rounds: int, *, small: bool = False) -> Section:
    """Measure MB/s, round trips and connections a second."""
    size, seconds = (1 << 20, 0.01) if small else (256 << 20, 0.5)
    cases: dict[str, tuple[str, Callable[[str], float]]] = {
        "stream": ("MB/s", lambda front: _stream(front, size)),
        "200 bytes and back": ("a second", lambda front: _ask(front, seconds)),
        "connections": ("a second", lambda front: _connect(front, seconds)),
    }
    rows: list[Measurement] = []
    ratios: list[Ratio] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
        port = stack.enter_context(_target())
        fronts = {name: stack.enter_context(_relay(name, folder, port)) for name in _COMMANDS}
        for case, (unit, work) in cases.items():
            contestants: dict[str, Contestant] = {
                f"{name}, {case}": f"Debian's package {name} is not installed"
                if front is None
                else partial(work, front)
                for name, front in fronts.items()
            }
            ours, *peers = take(contestants, rounds=rounds, unit=unit).values()
            rows += [ours, *peers]
            ratios += [ratio_of(ours, peer, 0.5) for peer in peers]
    work_done = f"{size / 1e6:.0f} MB one way in one stream; one client; from unix socket to TCP."
    return Section("relay", work_done, rows, ratios)


@contextmanager
def _relay(name: str, folder: Path, port: int) -> Iterator[str | None]:
    """Run a relay and give its socket's path, or None where it is not installed."""
    front = str(folder / name)
    program, *arguments = (text.format(front=front, port=port) for text in _COMMANDS[name])
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if not found:
        yield None
        return
    Path(f"{front}.cfg").write_text(_HAPROXY.format(front=front, port=port))
    process = subprocess.Popen([found, *arguments], cwd=PROJECT, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(front):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} does not start")
            time.sleep(0.02)
        yield front
    finally:
        process.terminate()
        process.wait(_START_SECONDS)


def _answers(front: str) -> bool:
    try:
        _round_trip(front, b"hello")
    except OSError:
        return False
    return True


@contextmanager
def _target() -> Iterator[int]:
    """Run the server that relays dial; give its TCP port."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # the benchmark is over
            return
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_serve, args=(connection,), daemon=True).start()


def _serve(connection: socket.socket) -> None:
    with connection:
        mode = connection.recv(1)
        buffer, total = memoryview(bytearray(1 << 20)), 0
        while count := connection.recv_into(buffer):
            total += count
            if mode == _ECHO:
                connection.sendall(buffer[:count])
        if mode == _STREAM:
            connection.sendall(total.to_bytes(8, "big"))


@contextmanager
def _dial(front: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(front)
        yield client


def _stream(front: str, size: int) -> float:
    chunk = bytes(1 << 20)
    with _dial(front) as client:
        client.sendall(_STREAM)
        began = time.perf_counter()
        for _ in range(size // len(chunk)):
            client.sendall(chunk)
        client.shutdown(socket.SHUT_WR)
        arrived = int.from_bytes(client.recv(8, socket.MSG_WAITALL), "big")
        elapsed = time.perf_counter() - began
    if arrived != size:
        raise RuntimeError(f"{arrived} of {size} bytes arrived")
    return size / elapsed / 1e6


def _ask(front: str, seconds: float) -> float:
    message = bytes(200)
    with _dial(front) as client:
        client.sendall(_ECHO)

        def there_and_back() -> None:
            client.sendall(message)
            client.recv(len(message), socket.MSG_WAITALL)

        return rate(there_and_back, seconds=seconds)


def _connect(front: str, seconds: float) -> float:
    return rate(lambda: _round_trip(front, b"1"), seconds=seconds)


def _round_trip(front: str, data: bytes) -> None:
    with _dial(front) as client:
        client.sendall(_ECHO + data)
        if client.recv(len(data), socket.MSG_WAITALL) != data:
            raise ConnectionError("what arrives is not what was sent")

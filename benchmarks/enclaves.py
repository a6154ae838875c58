"""The enclave's program and a stand-in for its module, as processes; and clients that ask it."""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from foobar_enclave.kms import AMAZON_ROOTS
from foobar_shared.addresses import UnixAddress, connect, listen
from foobar_shared.framing import LineSocket

Kind = Literal["signing", "canned"]

_SECONDS: Final = 30.0  # until an enclave must answer


@contextmanager
def module(kind: Kind) -> Iterator[socket.socket]:
    """The near end of a stand-in for the module (`emulator.channel.SocketTransport` speaks it)."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near:
        with far:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.enclave_nsm", str(far.fileno()), kind],
                pass_fds=[far.fileno()],
            )
        try:
            yield near
        finally:
            near.shutdown(socket.SHUT_RDWR)
            process.wait(_SECONDS)


@dataclass(frozen=True, slots=True)
class Enclave:
    """A running enclave.

    Attributes:
        address: where it listens.
        process: the program.
        started: seconds from before its process started to its first answer that needs no module.
    """

    address: UnixAddress
    process: subprocess.Popen[bytes]
    started: float

    def peak_memory(self) -> float:
        """MiB of the process that were resident at the most: VmHWM of proc(5)."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        text = next(line for line in lines if line.startswith("VmHWM:"))
        return int(text.split()[1]) / 1024


@contextmanager
def enclave(kind: Kind, environment: Mapping[str, str] = os.environ) -> Iterator[Enclave]:
    """An enclave that answers, with a module of `kind`; `environment` is its program's."""
    with (
        module(kind) as near,
        tempfile.TemporaryDirectory() as folder,
        listen(UnixAddress(f"{folder}/enclave")) as listener,
    ):
        began = time.perf_counter()
        command = [
            *(sys.executable, "-m", "emulator.enclave", "--relay", f"unix:{folder}/relay"),
            *("--listener", str(listener.fileno()), "--nsm", str(near.fileno())),
            *("--ca-file", str(AMAZON_ROOTS)),
        ]
        process = subprocess.Popen(
            command,
            env=environment,
            pass_fds=[listener.fileno(), near.fileno()],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            address = UnixAddress(f"{folder}/enclave")
            ask(address, b"{}")
            yield Enclave(address, process, time.perf_counter() - began)
        finally:
            process.terminate()
            process.wait(_SECONDS)
            if process.stdin is not None:
                process.stdin.close()


def ask(address: UnixAddress, line: bytes) -> bytes:
    """The answer to one line."""
    with connect(address, seconds=_SECONDS) as connection:
        lines = LineSocket(connection)
        lines.send_line(line, within=_SECONDS)
        return lines.read_line(idle=_SECONDS, within=_SECONDS) or b""


@dataclass(frozen=True, slots=True)
class Load:
    """What clients have seen.

    Attributes:
        seconds: how long they asked.
        latencies: seconds of each request, sorted.
    """

    seconds: float
    latencies: Sequence[float]

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds

    def quantile(self, share: float) -> float:
        """Seconds in which this share of the requests were answered."""
        return self.latencies[min(int(len(self.latencies) * share), len(self.latencies) - 1)]


def load(
    address: UnixAddress, line: bytes, *, clients: int, seconds: float = 0.0, requests: int = 1
) -> Load:
    """Have `clients` connections ask `line` again and again, each when it has been answered.

    They go on for as many `seconds` and as many `requests` of all, whichever takes longer.

    Raises:
        RuntimeError: the enclave answered an error, or hung up.
    """
    with selectors.DefaultSelector() as selector:
        try:
            return _ask_all(selector, address, line + b"\n", clients, (seconds, requests))
        finally:
            for key in list(selector.get_map().values()):
                with suppress(OSError):
                    key.data.connection.close()


class _Client:
    """One connection: when it asked, and what has come of its answer."""

    def __init__(self, address: UnixAddress) -> None:
        self.connection = connect(address, seconds=_SECONDS)
        self.connection.settimeout(None)  # with a limit, Python asks before each call if it may
        self.asked = 0.0
        self.answer = bytearray()

    def ask(self, line: bytes) -> None:
        self.answer.clear()
        self.asked = time.perf_counter()
        self.connection.sendall(line)


def _ask_all(
    selector: selectors.BaseSelector,
    address: UnixAddress,
    line: bytes,
    clients: int,
    least: tuple[float, int],
) -> Load:
    for _ in range(clients):
        client = _Client(address)
        selector.register(client.connection, selectors.EVENT_READ, client)
    latencies: list[float] = []
    began = time.perf_counter()
    for key in selector.get_map().values():
        key.data.ask(line)
    while True:
        for key, _ in selector.select(_SECONDS):
            client = key.data
            chunk = client.connection.recv(65536)
            client.answer += chunk
            if not chunk or client.answer.startswith(b'{"error"'):
                raise RuntimeError(f"the enclave answered {bytes(client.answer[:200])!r}")
            if client.answer.endswith(b"\n"):
                latencies.append(time.perf_counter() - client.asked)
                client.ask(line)
        elapsed = time.perf_counter() - began
        if elapsed >= least[0] and len(latencies) >= least[1]:
            return Load(elapsed, sorted(latencies))

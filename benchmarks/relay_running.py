"""Running the relays that are compared: each between its own two places, checked, then loaded."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from benchmarks.relay_peers import (
    PROJECT,
    AbsentError,
    Peer,
    Places,
    argument,
    compiled,
    environment,
)
from foobar_shared.addresses import Address, TcpAddress, UnixAddress, connect, listen

Dials = Literal["unix to TCP", "TCP to unix"]  # what is dialled by the client, and by the relay

_UNIX_ACCEPTS: Final = "00010000"  # __SO_ACCEPTCON (linux/net.h), as /proc/net/unix prints it
_TCP_LISTENS: Final = "0A"  # TCP_LISTEN (net/tcp_states.h), as /proc/net/tcp prints it
_START_SECONDS: Final = 10.0
_CHECK_BYTES: Final = 3 * 1024 * 1024 + 1


@dataclass(frozen=True, slots=True)
class Running:
    """A relay that runs between `places`."""

    who: str
    places: Places
    process: int

    def cpu_seconds(self) -> float:
        """What it has used so far, with the processes that it started."""
        return sum(_cpu_seconds(one) for one in _family(self.process))


@contextlib.contextmanager
def all_running(contestants: Sequence[Peer], dials: Dials) -> Iterator[dict[str, Running | str]]:
    """Each between two places of its own: the relay, or why it is absent, by its name."""
    with contextlib.ExitStack() as stack:
        found: dict[str, Running | str] = {}
        for peer in contestants:
            folder = stack.enter_context(_short_folder())
            try:
                found[peer.who] = stack.enter_context(running(peer, _places(folder, dials), folder))
            except AbsentError as error:
                found[peer.who] = str(error)
        yield found


@contextlib.contextmanager
def running(peer: Peer, places: Places, folder: Path) -> Iterator[Running]:
    """The relay, from when it listens on; what passes through it has been found to be unchanged.

    Raises:
        AbsentError: it cannot be run here, or is no relay.
    """
    command = peer.command(places, folder)
    with (folder / "output").open("w+b") as output:
        process = subprocess.Popen(
            command,
            cwd=PROJECT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            _await_listening(process, places.front, folder / "output")
            check(places)
            yield Running(peer.who, places, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def check(places: Places) -> None:
    """Send noise both ways through a relay at once, and compare what arrives.

    Raises:
        AbsentError: it is not what was sent.
    """
    noise = random.Random(1).randbytes(_CHECK_BYTES)  # noqa: S311 - not a secret
    with listen(places.back) as target:
        target.settimeout(_START_SECONDS)
        with connect(places.front, seconds=_START_SECONDS) as client:
            client.sendall(noise[:1])
            server, _ = target.accept()
            with server:
                server.settimeout(_START_SECONDS)
                senders = [
                    threading.Thread(target=client.sendall, args=(noise[1:],), daemon=True),
                    threading.Thread(target=server.sendall, args=(noise,), daemon=True),
                ]
                for sender in senders:
                    sender.start()
                arrived = [_receive(client), _receive(server)]
    if arrived != [hashlib.sha256(noise).digest()] * 2:
        raise AbsentError("what arrives is not what was sent")


@contextlib.contextmanager
def on_one_core(relay: Running) -> Iterator[None]:
    """Keep a relay, and what is started meanwhile, on one core.

    The round trip of one client is serial: where it is spread over cores, the time that an idle
    core takes to wake up is measured, and the scheduler's choice is most of the result.
    """
    before = os.sched_getaffinity(0)
    core = {min(before)}
    os.sched_setaffinity(0, core)
    os.sched_setaffinity(relay.process, core)  # its threads and children of later inherit it
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
        os.sched_setaffinity(relay.process, before)


def load(relay: Running, mode: str, count: int, amount: float) -> list[float]:
    """What `relay_load` prints for a relay under its load.

    Raises:
        AbsentError: there is no C compiler.
        RuntimeError: bytes were lost or added, a connection failed, or nothing came for a minute.
    """
    front, back = (argument(place) for place in (relay.places.front, relay.places.back))
    done = subprocess.run(
        [compiled("relay_load"), mode, front, back, str(count), str(amount)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{relay.who}: {done.stderr.strip() or done.returncode}")
    return [float(number) for number in done.stdout.split()]


def _places(folder: Path, dials: Dials) -> Places:
    local = UnixAddress(str(folder / "relay.sock"))
    with socket.create_server(("127.0.0.1", 0)) as listener:  # a port that is free just now
        internet = TcpAddress("127.0.0.1", listener.getsockname()[1])
    return Places(local, internet) if dials == "unix to TCP" else Places(internet, local)


@contextlib.contextmanager
def _short_folder() -> Iterator[Path]:
    """A temporary folder whose path leaves room for the names of unix sockets."""
    with tempfile.TemporaryDirectory(prefix="relay-", dir="/tmp") as folder:
        yield Path(folder)


def _await_listening(process: subprocess.Popen[bytes], front: Address, output: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if _listens(front):
            return
        time.sleep(0.01)
    said = output.read_text(errors="replace").strip().splitlines() or ["it does not listen"]
    raise AbsentError(said[-1])


def _listens(place: Address) -> bool:
    """Whether something listens there, found without connecting to it."""
    if isinstance(place, UnixAddress):
        # HAProxy listens under another name, and renames the file.
        rows = [row.split() for row in Path("/proc/net/unix").read_text().splitlines()[1:]]
        return Path(place.path).exists() and any(
            row[-1].startswith(place.path) and row[3] == _UNIX_ACCEPTS for row in rows
        )
    assert isinstance(place, TcpAddress)  # noqa: S101 - there are no others here
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    wanted = [f"0100007F:{place.port:04X}", _TCP_LISTENS]
    return any(line.split()[1:4:2] == wanted for line in lines)


def _receive(receiver: socket.socket) -> bytes:
    digest = hashlib.sha256()
    left = _CHECK_BYTES
    while left and (data := receiver.recv(min(left, 65536))):
        digest.update(data)
        left -= len(data)
    return digest.digest()


def _family(process: int) -> Iterator[int]:
    yield process
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except FileNotFoundError:  # it has ended meanwhile, and its parent counts it
        return
    for child in children:
        yield from _family(int(child))


def _cpu_seconds(process: int) -> float:
    """Of the process, as exactly as the kernel knows, and of its children that have ended."""
    try:
        own = time.clock_gettime(~process << 3 | 2)  # what clock_getcpuclockid(3) gives
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return 0.0
    ended = (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")  # cutime, cstime
    return own + ended

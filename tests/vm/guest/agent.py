"""A machine's one program: starts others, and reads and writes files, as the host asks for it.

    python3 -m tests.vm.guest.agent [--loopback] LINE

The line, a virtio serial port or a terminal, carries frames of `tests.vm.guest.frames` both ways.
The agent begins with {"hello": 1}. A request has a number, "id", and is answered by {"re": number},
with "error" where it was refused:

    {"op": "data", "data": ...}             more of the content that the next request takes
    {"op": "write", "path": ...}            the content is the file's
    {"op": "read", "path": ..., "at": ...}  is answered with "data", CHUNK bytes or the file's rest
    {"op": "start", "job": ..., "argv": ..., "environment": ..., "user": ..., "folder": ...}
                                            the content is its standard input
    {"op": "kill", "job": ...}              with all processes of its group

Of jobs it tells {"job": number, "stream": "stdout" or "stderr", "data": ...} as output comes, and
at last {"job": number, "ended": exit code, or minus the signal}. A job that writes more than
MAX_CONTENT is killed, and "overflow" is said with its end.
"""

import argparse
import fcntl
import os
import pwd
import selectors
import signal
import socket
import struct
import subprocess
import tempfile
import tty
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from tests.vm.guest import frames

PORT: Final = "/dev/vport0p1"  # of the first virtio device (drivers/char/virtio_console.c), port 1
COMMAND: Final = ("/usr/bin/python3", "-m", "tests.vm.guest.agent", "--loopback", PORT)

# linux/sockios.h and linux/if.h
SIOCSIFFLAGS: Final = 0x8914
SIOCSIFADDR: Final = 0x8916
SIOCSIFNETMASK: Final = 0x891C
IFF_UP: Final = 1
LOOPBACK: Final = (
    ("lo", "127.0.0.1", "255.0.0.0"),
    ("lo:0", "169.254.169.254", "255.255.255.255"),  # instance metadata
)


@dataclass(slots=True)
class Job:
    """A program that was started, and how much it wrote."""

    number: int
    process: subprocess.Popen[bytes]
    pidfd: int
    streams: dict[str, IO[bytes]] = field(default_factory=dict)
    written: int = 0
    overflow: bool = False


class Agent:
    """Serves one line until the other end is gone."""

    def __init__(self, line: int) -> None:
        """With the line's descriptor."""
        self._line = line
        self._reader = frames.Reader()
        self._content = bytearray()
        self._jobs: dict[int, Job] = {}
        self._selector = selectors.DefaultSelector()

    def serve(self) -> None:
        """Serve, and kill what still runs at the end."""
        self._selector.register(self._line, selectors.EVENT_READ)
        self._send({"hello": 1})
        try:
            while True:
                for key, _ in self._selector.select():
                    if key.data is not None:
                        self._on_job(*key.data)
                    elif not self._on_line():
                        return
        finally:
            for job in self._jobs.values():
                _kill(job)

    def _on_line(self) -> bool:
        try:
            piece = os.read(self._line, frames.CHUNK)
        except OSError:  # how a pseudo-terminal says that its other end is closed
            return False
        for message in self._reader.feed(piece):
            self._send({"re": message.get("id")} | self._answer(message))
        return bool(piece)

    def _answer(self, request: dict[str, object]) -> dict[str, object]:
        try:
            return self._operate(request)
        except (OSError, KeyError, TypeError, ValueError, subprocess.SubprocessError) as error:
            return {"error": f"{type(error).__name__}: {error}"}

    def _operate(self, request: dict[str, object]) -> dict[str, object]:
        operation = request["op"]
        if operation == "data":
            self._add(frames.data(request["data"]))
        elif operation == "write":
            Path(str(request["path"])).write_bytes(self._take())
        elif operation == "read":
            return {"data": frames.text(_read(str(request["path"]), _number(request["at"])))}
        elif operation == "start":
            self._start(request)
        elif operation == "kill":
            job = self._jobs.get(_number(request["job"]))
            if job is not None:  # it may have ended meanwhile
                _kill(job)
        else:
            raise ValueError(f"no operation {operation!r}")
        return {}

    def _add(self, piece: bytes) -> None:
        self._content += piece
        if len(self._content) > frames.MAX_CONTENT:
            self._content.clear()
            raise ValueError(f"content of more than {frames.MAX_CONTENT} bytes")

    def _take(self) -> bytes:
        content = bytes(self._content)
        self._content.clear()
        return content

    def _start(self, request: dict[str, object]) -> None:
        content = self._take()
        user, group, groups = _identity(request["user"])
        argv, environment = request["argv"], request["environment"]
        if not isinstance(argv, list) or not isinstance(environment, dict):
            raise TypeError("a program's arguments are a list, and its environment is an object")
        with tempfile.TemporaryFile() as stdin:
            stdin.write(content)
            stdin.seek(0)
            process = subprocess.Popen(
                argv,
                env=environment,
                cwd=str(request["folder"]),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                user=user,
                group=group,
                extra_groups=groups,
            )
        job = Job(_number(request["job"]), process, os.pidfd_open(process.pid))
        self._jobs[job.number] = job
        self._selector.register(job.pidfd, selectors.EVENT_READ, (job, "end"))
        for name, pipe in (("stdout", process.stdout), ("stderr", process.stderr)):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
                job.streams[name] = pipe
                self._selector.register(pipe, selectors.EVENT_READ, (job, name))

    def _on_job(self, job: Job, what: str) -> None:
        if what == "end":
            self._end(job)
        elif what in job.streams:  # and not closed by the job's end in the same round
            self._forward(job, what)

    def _forward(self, job: Job, name: str) -> bool:
        """Tells of one piece of output. False where there is none now."""
        pipe = job.streams[name]
        try:
            piece = os.read(pipe.fileno(), frames.CHUNK)
        except BlockingIOError:
            return False
        if not piece:
            self._selector.unregister(pipe)
            pipe.close()
            del job.streams[name]
            return False
        job.written += len(piece)
        if job.written > frames.MAX_CONTENT:
            job.overflow = True
            _kill(job)
            return False
        self._send({"job": job.number, "stream": name, "data": frames.text(piece)})
        return True

    def _end(self, job: Job) -> None:
        """The program has ended: nothing of its group is to outlive it and hold its pipes."""
        _kill(job)
        self._selector.unregister(job.pidfd)
        os.close(job.pidfd)
        for name in list(job.streams):
            while self._forward(job, name):
                pass
        for pipe in job.streams.values():
            self._selector.unregister(pipe)
            pipe.close()
        job.streams.clear()
        del self._jobs[job.number]
        code = job.process.wait()
        self._send({"job": job.number, "ended": code, "overflow": job.overflow})

    def _send(self, message: dict[str, object]) -> None:
        # Blocks while the line is full; the host always reads.
        rest = frames.encode(message)
        while rest:
            rest = rest[os.write(self._line, rest) :]


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError("not a number")
    return value


def _read(path: str, start: int) -> bytes:
    with Path(path).open("rb") as file:
        file.seek(start)
        return file.read(frames.CHUNK)


def _identity(user: object) -> tuple[int | None, int | None, list[int] | None]:
    if user is None:
        return None, None, None
    entry = pwd.getpwnam(str(user))
    return entry.pw_uid, entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid)


def _kill(job: Job) -> None:
    with suppress(ProcessLookupError):
        os.killpg(job.process.pid, signal.SIGKILL)


def open_line(path: str) -> int:
    """The line, which where it is a terminal is set so that it passes every byte as it is."""
    line = os.open(path, os.O_RDWR | os.O_NOCTTY)
    if os.isatty(line):
        tty.setraw(line)
    return line


def set_up_loopback() -> None:
    """Bring the loopback interface up, with the address of instance metadata too."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for name, address, mask in LOOPBACK:
            for request, value in ((SIOCSIFADDR, address), (SIOCSIFNETMASK, mask)):
                # struct ifreq: the interface's name and a struct sockaddr_in
                packed = struct.pack(
                    "16sHH4s16x", name.encode(), socket.AF_INET, 0, socket.inet_aton(value)
                )
                fcntl.ioctl(control, request, packed)
            fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), IFF_UP))


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the line that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm.guest.agent")
    parser.add_argument("--loopback", action="store_true", help="set up the loopback interface")
    parser.add_argument("line")
    options = parser.parse_args(arguments)
    if options.loopback:
        set_up_loopback()
    Agent(open_line(options.line)).serve()


if __name__ == "__main__":
    main()

"""Runs programs in a machine, and reads and writes its files, by Debian's qemu-guest-agent.

Requests and answers are lines of JSON over a virtio serial port (docs/interop/qemu-ga.rst). A
program's output goes to files in the machine, so that it can be read before the program ends.
"""

import base64
import itertools
import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from tests.vm.programs import LabError

SECONDS: Final = 60.0  # for one answer
POLL_SECONDS: Final = 0.1
CHUNK: Final = 1 << 20

_RUN: Final = 'exec >"$1.stdout" 2>"$1.stderr"; cd "$2" && shift 2 && exec "$@"'


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that has ended: its exit code, or minus the signal, and its whole output."""

    code: int
    stdout: bytes
    stderr: bytes


class GuestAgent:
    """The host's end of one machine's agent, for one thread."""

    def __init__(self, line: socket.socket) -> None:
        """Take over the line."""
        self._line = line
        self._received = line.makefile("rb")
        self._numbers = itertools.count(1)

    def close(self) -> None:
        """Close the line."""
        self._received.close()
        self._line.close()

    def wait(self, *, seconds: float) -> None:
        """Wait until the agent answers.

        Raises:
            LabError: It does not in time, or the machine ends.
        """
        self.ask("ping", seconds=seconds)

    def run(
        self,
        *argv: str,
        stdin: bytes = b"",
        environment: Mapping[str, str],
        user: str | None = None,
        directory: str = "/root",
    ) -> Completed:
        """Run a program, and wait at most `SECONDS` for its end.

        Raises:
            LabError: It cannot be started, or does not end in time.
        """
        job = self.start(
            *argv, stdin=stdin, environment=environment, user=user, directory=directory
        )
        return job.finish()

    def start(
        self,
        *argv: str,
        stdin: bytes = b"",
        environment: Mapping[str, str],
        user: str | None = None,
        directory: str = "/root",
    ) -> "Job":
        """Start a program with these and no other variables.

        Raises:
            LabError: It cannot be started.
        """
        output = f"/run/job-{next(self._numbers)}"
        if user is not None:
            argv = (
                "/bin/busybox",
                "su",
                "-s",
                "/bin/sh",
                "--",
                user,
                "-c",
                'exec "$@"',
                "sh",
                *argv,
            )
        request: dict[str, object] = {
            "path": "/bin/sh",
            "arg": ["-c", _RUN, "sh", output, directory, *argv],
            "env": [f"{name}={value}" for name, value in environment.items()],
        }
        if stdin:
            request["input-data"] = base64.b64encode(stdin).decode()
        return Job(self, self.ask("exec", request)["pid"], output, " ".join(argv)[:200])

    def write_file(self, path: str, data: bytes) -> None:
        """Make a file, or replace its content.

        Raises:
            LabError: It cannot be written.
        """
        handle = self.ask("file-open", {"path": path, "mode": "w"})
        for start in range(0, len(data), CHUNK):
            piece = base64.b64encode(data[start : start + CHUNK]).decode()
            written = self.ask("file-write", {"handle": handle, "buf-b64": piece})["count"]
            if written != len(data[start : start + CHUNK]):
                raise LabError(f"{path} took only {written} bytes")
        self.ask("file-close", {"handle": handle})

    def read_file(self, path: str) -> bytes:
        """Return a file's content.

        Raises:
            LabError: It cannot be read.
        """
        handle = self.ask("file-open", {"path": path, "mode": "r"})
        content, end = b"", False
        while not end:
            answer = self.ask("file-read", {"handle": handle, "count": CHUNK})
            content += base64.b64decode(answer["buf-b64"])
            end = answer["eof"]
        self.ask("file-close", {"handle": handle})
        return content

    def ask(
        self,
        command: str,
        arguments: Mapping[str, object] = MappingProxyType({}),
        *,
        seconds: float = SECONDS,
    ) -> Any:  # noqa: ANN401 - each command has its own
        """Return what the agent returns for `guest-COMMAND`.

        Raises:
            LabError: It refuses, or does not answer in time.
        """
        request = {"execute": f"guest-{command}", "arguments": dict(arguments)}
        self._line.settimeout(seconds)
        try:
            self._line.sendall(json.dumps(request).encode() + b"\n")
            line = self._received.readline()
        except OSError as error:
            raise LabError(f"the agent does not answer {command}: {error}") from error
        if not line.endswith(b"\n"):
            raise LabError(f"the machine ended before its agent answered {command}")
        answer = json.loads(line)
        if "return" not in answer:
            raise LabError(f"the agent cannot {command}: {answer['error']['desc']}")
        return answer["return"]


class Job:
    """A program that was started in a machine."""

    def __init__(self, agent: GuestAgent, pid: int, output: str, name: str) -> None:
        """Of this process, with OUTPUT.stdout and OUTPUT.stderr."""
        self._agent = agent
        self._pid = pid
        self._output = output
        self._name = name
        self._code: int | None = None

    def finish(self, *, seconds: float = SECONDS) -> Completed:
        """Wait for its end.

        Raises:
            LabError: It does not end in time; it is then killed.
        """
        deadline = time.monotonic() + seconds
        while (code := self._exit_code()) is None:
            if time.monotonic() > deadline:
                self.kill()
                raise LabError(f"{self._name} does not end in {seconds:.0f} s")
            time.sleep(POLL_SECONDS)
        stdout, stderr = (self._agent.read_file(f"{self._output}.{name}") for name in _STREAMS)
        return Completed(code, stdout, stderr)

    def wait_for_output(self, text: str, *, seconds: float = SECONDS) -> None:
        """Wait until it has written `text`.

        Raises:
            LabError: It does not in time, or ends before.
        """
        deadline = time.monotonic() + seconds
        ended = False
        while text.encode() not in (output := self._read_output()):
            if ended or time.monotonic() > deadline:
                said = output.decode(errors="replace")[-2000:]
                raise LabError(f"{self._name} does not write {text!r}; it wrote:\n{said}")
            time.sleep(POLL_SECONDS)
            ended = self._exit_code() is not None  # before the last look at its output

    def kill(self) -> None:
        """Kill it, if it runs; `finish` then tells of signal 9."""
        if self._exit_code() is None:
            kill = {"path": "/bin/busybox", "arg": ["kill", "-9", f"{self._pid}"]}
            self._agent.ask("exec", kill)

    def _exit_code(self) -> int | None:
        # The agent tells of an end only once.
        if self._code is None:
            status = self._agent.ask("exec-status", {"pid": self._pid})
            if status["exited"]:
                self._code = -status["signal"] if "signal" in status else status["exitcode"]
        return self._code

    def _read_output(self) -> bytes:
        """Return what it has written to both streams."""
        try:
            return b"".join(self._agent.read_file(f"{self._output}.{name}") for name in _STREAMS)
        except LabError:  # the shell that makes the files has not begun
            return b""


_STREAMS: Final = ("stdout", "stderr")

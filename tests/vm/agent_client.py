"""Asks a machine's agent to run programs and to read and write files, from the host's side.

One thread reads the line and sorts what comes; any thread may ask. A request is sent only when the
one before it is answered, so that its answer is the next one that comes. The protocol is
described at `tests.vm.guest.agent`.
"""

import itertools
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self

from tests.vm.errors import LabError
from tests.vm.guest import frames

OPERATION_SECONDS: Final = 60.0  # for one request to be answered, by a machine that is busy
STREAMS: Final = ("stdout", "stderr")

_SHOWN: Final = 2000  # characters of an output's end in an error


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that ended: its exit code, or minus the signal, and all that it wrote."""

    code: int
    stdout: bytes
    stderr: bytes


class Job:
    """A program that was started in a machine. It ends with the machine at the latest."""

    def __init__(self, client: "AgentClient", number: int, argv: tuple[str, ...]) -> None:
        self._client = client
        self._number = number
        self._argv = argv
        self._output = {name: bytearray() for name in STREAMS}
        self._code: int | None = None
        self._overflow = False

    def finish(self, seconds: float) -> Completed:
        """What came of it.

        Raises:
            LabError: it does not end in time, and is killed; it wrote too much; or the machine
                ended.
        """
        try:
            self._client.wait(
                lambda: self._code is not None, seconds=seconds, doing=f"{self} does not end"
            )
        except LabError as error:
            self._client.forget(self._number)
            raise LabError(f"{error}\n{self._end_of_output()}") from error
        if self._overflow:
            raise LabError(f"{self} wrote more than {frames.MAX_CONTENT} bytes")
        code = -1 if self._code is None else self._code
        return Completed(code, bytes(self._output["stdout"]), bytes(self._output["stderr"]))

    def wait_for_output(self, text: str, *, seconds: float) -> None:
        """Wait until standard output or standard error holds `text`.

        Raises:
            LabError: it does not come in time, or the program or the machine ended without it.
        """
        wanted = text.encode()

        def written() -> bool:
            return any(wanted in output for output in self._output.values())

        doing = f"{self} does not write {text!r}"
        try:
            self._client.wait(
                lambda: written() or self._code is not None, seconds=seconds, doing=doing
            )
        except LabError as error:
            raise LabError(f"{error}\n{self._end_of_output()}") from error
        if not written():
            raise LabError(f"{doing} before its end\n{self._end_of_output()}")

    def kill(self) -> None:
        """Kill it and its group, if it runs; `finish` then tells of signal 9."""
        if self._code is None:
            self._client.request({"op": "kill", "job": self._number})

    def take(self, event: Mapping[str, object]) -> bool:
        """Note what the agent tells of this job. True where it has ended."""
        if "ended" in event:
            self._overflow = event.get("overflow") is True
            self._code = _number(event["ended"])
            return True
        output = self._output[str(event.get("stream"))]
        output += frames.data(event.get("data"))
        if len(output) > frames.MAX_CONTENT:
            raise frames.FrameError("more output than the agent lets pass")
        return False

    def _end_of_output(self) -> str:
        both = b"".join(self._output[name] for name in STREAMS)
        return both.decode(errors="replace")[-_SHOWN:]

    def __str__(self) -> str:
        return " ".join(self._argv)[:200]


class AgentClient:
    """The host's end of one machine's line: a socket or terminal, which it closes at its end."""

    def __init__(self, line: int, *, transcript: Callable[[str], None] | None = None) -> None:
        """Takes over the descriptor. `transcript` is given a line for all that happens."""
        self._line = line
        self._transcript = transcript or (lambda _: None)
        self._changed = threading.Condition()
        self._asking = threading.RLock()
        self._numbers = itertools.count(1)
        self._jobs: dict[int, Job] = {}
        self._answer: dict[str, object] | None = None
        self._hello = False
        self._closed: str | None = None
        self._thread = threading.Thread(target=self._read, daemon=True, name="agent")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Once the other end is closed."""
        self._thread.join()
        os.close(self._line)

    def wait_for_hello(self, *, seconds: float) -> None:
        """Wait until the agent serves.

        Raises:
            LabError: it does not in time, or the machine ended.
        """
        self.wait(lambda: self._hello, seconds=seconds, doing="the agent does not say hello")

    def start(
        self,
        argv: tuple[str, ...],
        *,
        stdin: bytes,
        environment: Mapping[str, str],
        user: str | None,
        folder: str,
    ) -> Job:
        """Start a program with these and no other variables.

        Raises:
            LabError: it cannot be started, or the machine ended.
        """
        number = next(self._numbers)
        job = Job(self, number, argv)
        with self._changed:
            self._jobs[number] = job
        request = {
            "op": "start", "job": number, "argv": list(argv), "environment": dict(environment),
            "user": user, "folder": folder,
        }  # fmt: skip
        try:
            self._request_with(stdin, request)
        except LabError:
            self.forget(number, kill=False)
            raise
        return job

    def write_file(self, path: str, content: bytes) -> None:
        """Make the file, or replace its content.

        Raises:
            LabError: it cannot be written, or the machine ended.
        """
        self._request_with(content, {"op": "write", "path": path})

    def read_file(self, path: str) -> bytes:
        """The file's content.

        Raises:
            LabError: it cannot be read, is longer than MAX_CONTENT, or the machine ended.
        """
        content = bytearray()
        while True:
            answer = self.request({"op": "read", "path": path, "at": len(content)})
            try:
                piece = frames.data(answer.get("data"))
            except frames.FrameError as error:
                raise LabError(f"the agent's answer about {path}: {error}") from error
            content += piece
            if len(content) > frames.MAX_CONTENT:
                raise LabError(f"{path} has more than {frames.MAX_CONTENT} bytes")
            if len(piece) < frames.CHUNK:
                return bytes(content)

    def request(self, request: Mapping[str, object]) -> dict[str, object]:
        """The agent's answer.

        Raises:
            LabError: the agent refused, does not answer, or the machine ended.
        """
        with self._asking:
            number = next(self._numbers)
            try:
                frame = frames.encode({"id": number, **request})
            except frames.FrameError as error:
                raise LabError(f"{request['op']}: {error}") from error
            self._send(frame)
            self.wait(
                lambda: self._answer is not None and self._answer.get("re") == number,
                seconds=OPERATION_SECONDS,
                doing=f"the agent does not answer {request['op']}",
            )
            answer, self._answer = self._answer or {}, None
        if "error" in answer:
            raise LabError(f"the agent cannot {request['op']}: {answer['error']}")
        return answer

    def wait(self, ready: Callable[[], bool], *, seconds: float, doing: str) -> None:
        """Wait until something that came over the line makes `ready` true.

        Raises:
            LabError: not in time, or the machine ended.
        """
        deadline = time.monotonic() + seconds
        with self._changed:
            while not ready():
                if self._closed is not None:
                    raise LabError(f"{doing}: {self._closed}")
                if not self._changed.wait(deadline - time.monotonic()):
                    raise LabError(f"{doing} in {seconds:.0f} s")

    def forget(self, number: int, *, kill: bool = True) -> None:
        """Give a job up."""
        with self._changed:
            self._jobs.pop(number, None)
            closed = self._closed is not None
        if kill and not closed:
            with suppress(LabError):
                self.request({"op": "kill", "job": number})

    def _request_with(self, content: bytes, request: Mapping[str, object]) -> None:
        if len(content) > frames.MAX_CONTENT:
            raise LabError(f"content of more than {frames.MAX_CONTENT} bytes")
        with self._asking:
            for piece in frames.pieces(content):
                self.request({"op": "data", "data": frames.text(piece)})
            self.request(request)

    def _send(self, frame: bytes) -> None:
        try:
            while frame:
                frame = frame[os.write(self._line, frame) :]
        except OSError as error:
            raise LabError(f"the agent's line: {error.strerror}") from error

    def _read(self) -> None:
        reader = frames.Reader()
        why = "the machine has ended"
        try:
            while piece := os.read(self._line, frames.CHUNK):
                for message in reader.feed(piece):
                    self._take(message)
        except (frames.FrameError, KeyError, TypeError) as error:
            why = f"the agent's line is no use any more: {error}"
        except OSError:  # how a pseudo-terminal says that its other end is closed
            pass
        self._transcript(why)
        with self._changed:
            self._closed = why
            self._changed.notify_all()

    def _take(self, message: dict[str, object]) -> None:
        self._transcript(f"{message}"[:300])
        with self._changed:
            if "hello" in message:
                self._hello = True
            elif "re" in message:
                self._answer = message
            elif (job := self._jobs.get(_number(message["job"]))) is not None and job.take(message):
                del self._jobs[_number(message["job"])]
            self._changed.notify_all()


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{value!r} is not a number")
    return value

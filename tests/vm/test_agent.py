import os
import pty
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self

import pytest

from tests.vm import agent_client
from tests.vm.agent_client import AgentClient, Completed, Job
from tests.vm.errors import LabError
from tests.vm.guest import frames
from tests.vm.processes import wait_for, wait_for_end

SECONDS: Final = 30.0
Start = Callable[..., Job]


class Line:
    """The agent in a process of its own, at the other end of a pseudo-terminal."""

    def __init__(self, *, max_content: int = frames.MAX_CONTENT) -> None:
        ours, theirs = pty.openpty()
        bound = f"frames.MAX_CONTENT = {max_content}"
        script = f"from tests.vm.guest import agent, frames; {bound}; agent.main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, os.ttyname(theirs)], stderr=subprocess.PIPE
        )
        self.said: list[str] = []
        self.client = AgentClient(ours, transcript=self.said.append)
        # Held until the agent has it open, as a terminal's other end may not close before.
        self._theirs = theirs

    def __enter__(self) -> Self:
        self.client.__enter__()
        try:
            self.client.wait_for_hello(seconds=SECONDS)
        except LabError:
            self.__exit__()
            raise
        finally:
            os.close(self._theirs)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        self.client.__exit__()


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    with Line() as line:
        yield line


@pytest.fixture
def start(line: Line, tmp_path: Path) -> Start:
    def start(
        *argv: str,
        stdin: bytes = b"",
        environment: dict[str, str] | None = None,
        user: str | None = None,
        folder: str = f"{tmp_path}",
    ) -> Job:
        return line.client.start(
            argv, stdin=stdin, environment=environment or {}, user=user, folder=folder
        )

    return start


def sh(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


def test_output_and_code_are_told(start: Start) -> None:
    completed = start(*sh("echo out; echo err >&2; exit 7")).finish(SECONDS)
    assert completed == Completed(7, b"out\n", b"err\n")


def test_a_signal_is_told_as_a_negative_code(start: Start) -> None:
    assert start(*sh("kill -TERM $$")).finish(SECONDS).code == -15


def test_standard_input_arrives_whole(start: Start) -> None:
    content = os.urandom(1_000_000)
    assert start("/bin/cat", stdin=content).finish(SECONDS).stdout == content


def test_standard_input_is_empty_unless_given(start: Start) -> None:
    assert start("/bin/cat", stdin=b"first").finish(SECONDS).stdout == b"first"
    assert start("/bin/cat").finish(SECONDS) == Completed(0, b"", b"")


def test_the_environment_and_the_folder_are_those_given(start: Start, tmp_path: Path) -> None:
    completed = start("/usr/bin/env", environment={"A": "b c"}).finish(SECONDS)
    assert completed.stdout == b"A=b c\n"
    assert start("/bin/pwd").finish(SECONDS).stdout.decode() == f"{tmp_path}\n"


def test_several_run_at_once(start: Start, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = start("/bin/cat", str(fifo))
    writer = start(*sh(f"echo through > {fifo}"))
    assert writer.finish(SECONDS).code == 0
    assert reader.finish(SECONDS).stdout == b"through\n"


def test_output_is_seen_before_the_end(start: Start) -> None:
    job = start(*sh("echo ready >&2; exec sleep 1000"))
    job.wait_for_output("ready", seconds=SECONDS)
    job.kill()
    assert job.finish(SECONDS) == Completed(-9, b"", b"ready\n")


def test_waiting_for_output_ends_with_the_program(start: Start) -> None:
    job = start(*sh("echo something else"))
    with pytest.raises(LabError, match=r"(?s)'ready' before its end.*something else"):
        job.wait_for_output("ready", seconds=SECONDS)


def test_waiting_for_output_has_a_limit(start: Start) -> None:
    job = start("/bin/sleep", "1000")
    with pytest.raises(LabError, match="sleep 1000 does not write 'ready' in 0 s"):
        job.wait_for_output("ready", seconds=0.01)
    job.kill()


def test_a_program_past_its_time_is_killed_with_its_group(start: Start, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    job = start(*sh(f"sleep 1000 & echo $$ $! > {pids}; echo ready; wait"))
    job.wait_for_output("ready", seconds=SECONDS)
    with pytest.raises(LabError, match="does not end in 0 s"):
        job.finish(0.01)
    for pid in pids.read_text().split():
        wait_for_end(int(pid))


def test_nothing_of_a_group_outlives_the_program(start: Start, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    completed = start(*sh(f"sleep 1000 & echo $! > {pid}; echo done")).finish(SECONDS)
    assert completed == Completed(0, b"done\n", b"")
    wait_for_end(int(pid.read_text()))


def test_what_has_ended_may_be_killed(start: Start) -> None:
    job = start("/bin/true")
    job.finish(SECONDS)
    job.kill()
    assert job.finish(SECONDS).code == 0


def test_output_has_a_bound() -> None:
    with Line(max_content=frames.CHUNK) as line:
        job = line.client.start(("/usr/bin/yes",), stdin=b"", environment={}, user=None, folder="/")
        with pytest.raises(LabError, match="/usr/bin/yes wrote more than"):
            job.finish(SECONDS)


def test_a_program_that_is_not_there_is_said(start: Start) -> None:
    with pytest.raises(LabError, match=r"cannot start: FileNotFoundError: .*/no/such"):
        start("/no/such")
    assert start("/bin/true").finish(SECONDS).code == 0


def test_a_folder_or_user_that_is_not_there_is_said(start: Start) -> None:
    with pytest.raises(LabError, match="cannot start: FileNotFoundError"):
        start("/bin/true", folder="/no/such")
    with pytest.raises(LabError, match=r"cannot start: KeyError: .*no-such"):
        start("/bin/true", user="no-such")


def test_content_of_a_refused_program_is_not_the_next_ones(start: Start) -> None:
    with pytest.raises(LabError):
        start("/bin/true", stdin=b"left over", user="no-such")
    assert start("/bin/cat").finish(SECONDS).stdout == b""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_user_has_its_own_groups_only(start: Start) -> None:
    completed = start("/usr/bin/id", user="nobody", folder="/").finish(SECONDS)
    assert completed.stdout.startswith(
        b"uid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)"
    )


@pytest.mark.parametrize("size", [0, 1, frames.CHUNK - 1, frames.CHUNK, 1_000_001])
def test_files_are_written_and_read(line: Line, tmp_path: Path, size: int) -> None:
    path, content = tmp_path / "file", os.urandom(size)
    line.client.write_file(str(path), content)
    assert path.read_bytes() == content
    assert line.client.read_file(str(path)) == content


def test_a_file_that_is_not_there_is_said(line: Line) -> None:
    with pytest.raises(LabError, match="cannot read: FileNotFoundError"):
        line.client.read_file("/no/such")
    with pytest.raises(LabError, match="cannot write: FileNotFoundError"):
        line.client.write_file("/no/such", b"content")


def test_content_has_a_bound(line: Line, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(frames, "MAX_CONTENT", 10)
    with pytest.raises(LabError, match="content of more than 10 bytes"):
        line.client.write_file(f"{tmp_path}/file", b"eleven byte")
    (tmp_path / "long").write_bytes(b"eleven byte")
    with pytest.raises(LabError, match="has more than 10 bytes"):
        line.client.read_file(f"{tmp_path}/long")


def test_content_has_a_bound_in_the_machine_too() -> None:
    with Line(max_content=2) as line:
        line.client.request({"op": "data", "data": frames.text(b"ab")})
        with pytest.raises(LabError, match="content of more than 2 bytes"):
            line.client.request({"op": "data", "data": frames.text(b"c")})


def test_output_has_a_bound_on_the_host_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_CONTENT", 2)
    ours, theirs = socket.socketpair()
    with AgentClient(ours.detach()) as client, theirs:
        theirs.sendall(frames.encode({"re": 2}))
        job = client.start(("/bin/x",), stdin=b"", environment={}, user=None, folder="/")
        theirs.sendall(frames.encode({"job": 1, "stream": "stdout", "data": frames.text(b"abc")}))
        with pytest.raises(LabError, match="more output than the agent lets pass"):
            job.finish(SECONDS)


def test_what_no_frame_can_carry_is_said(start: Start) -> None:
    with pytest.raises(LabError, match=r"start: a frame of .* bytes is too long"):
        start("/bin/echo", "x" * frames.MAX_FRAME)


def test_an_unknown_operation_is_refused(line: Line) -> None:
    with pytest.raises(LabError, match="no operation 'dance'"):
        line.client.request({"op": "dance"})


def test_the_end_of_the_machine_is_said() -> None:
    with Line() as line:
        job = line.client.start(
            ("/bin/sleep", "2"), stdin=b"", environment={}, user=None, folder="/"
        )
        # Its program outlives an agent that has no time to kill it.
        line.process.kill()
        with pytest.raises(LabError, match="does not end: the machine has ended"):
            job.finish(SECONDS)
        with pytest.raises(LabError, match=r"the machine has ended|the agent's line"):
            line.client.read_file("/etc/passwd")


def test_the_agent_ends_with_its_line_and_its_programs_with_it(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    script = (
        "import sys; from tests.vm.guest.agent import Agent, open_line\n"
        "Agent(open_line(sys.argv[1])).serve()"
    )
    process = subprocess.Popen([sys.executable, "-c", script, os.ttyname(theirs)])
    reader = frames.Reader()
    assert list(reader.feed(os.read(ours, 1000))) == [{"hello": 1}]
    os.close(theirs)
    pid = tmp_path / "pid"
    request = {
        "id": 1, "op": "start", "job": 2, "argv": sh(f"echo $$ > {pid}; exec sleep 1000"),
        "environment": {}, "user": None, "folder": "/",
    }  # fmt: skip
    os.write(ours, frames.encode(request))
    wait_for(lambda: pid.exists() and pid.read_text() != "")
    os.close(ours)
    assert process.wait(SECONDS) == 0
    wait_for_end(int(pid.read_text()))


@pytest.mark.parametrize(
    "noise", [b"[    1.0] kernel: a message\n", b"00000000 {}\n", b"x" * frames.MAX_FRAME]
)
def test_a_line_that_is_no_frame_ends_the_session(noise: bytes) -> None:
    ours, theirs = socket.socketpair()
    with AgentClient(ours.detach()) as client, theirs:
        theirs.sendall(frames.encode({"hello": 1}))
        client.wait_for_hello(seconds=SECONDS)
        theirs.sendall(noise)
        with pytest.raises(LabError, match="no use any more"):
            client.wait(lambda: False, seconds=SECONDS, doing="waiting")


def test_an_agent_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_client, "OPERATION_SECONDS", 0.01)
    ours, theirs = socket.socketpair()
    refused = pytest.raises(LabError, match="the agent does not answer read in 0 s")
    with AgentClient(ours.detach()) as client, theirs, refused:
        client.read_file("/etc/passwd")

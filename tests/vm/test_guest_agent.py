"""What is made of the guest agent's answers, from an agent that is a list of them."""

import base64
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.vm.guest_agent import Completed, GuestAgent, Job
from tests.vm.programs import LabError

Prepare = Callable[..., GuestAgent]


@pytest.fixture
def prepare() -> Iterator[Prepare]:
    """Make an agent that gives these answers one after another, and then ends."""
    ends: list[socket.socket] = []

    def prepare(*answers: object, end: bool = True) -> GuestAgent:
        ours, theirs = socket.socketpair()
        for answer in answers:
            theirs.sendall(json.dumps(answer).encode() + b"\n")
        if end:
            theirs.shutdown(socket.SHUT_WR)
        ends.extend([ours, theirs])
        return GuestAgent(ours)

    yield prepare
    for end in ends:
        with suppress(OSError):
            end.close()


def returned(value: object) -> dict[str, object]:
    return {"return": value}


def content(*pieces: bytes) -> list[dict[str, object]]:
    """The answers by which a file is read."""
    answers = [returned(7)]
    for number, piece in enumerate(pieces, start=1):
        encoded = base64.b64encode(piece).decode()
        last = number == len(pieces)
        answers.append(returned({"count": len(piece), "buf-b64": encoded, "eof": last}))
    return [*answers, returned({})]


def job(agent: GuestAgent) -> Job:
    return agent.start("/bin/x", environment={})


STARTED = returned({"pid": 42})
RUNNING = returned({"exited": False})


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        ({"exited": True, "exitcode": 0}, 0),
        ({"exited": True, "exitcode": 3}, 3),
        ({"exited": True, "signal": 9}, -9),
    ],
)
def test_code_and_output_are_the_programs(
    prepare: Prepare, ended: dict[str, object], code: int
) -> None:
    answers = [STARTED, RUNNING, returned(ended), *content(b"o", b"ut"), *content(b"err")]
    assert job(prepare(*answers)).finish() == Completed(code, b"out", b"err")


def test_an_end_that_was_told_while_waiting_for_output_is_kept(prepare: Prepare) -> None:
    output = [*content(b""), *content(b"ready")]
    ended = returned({"exited": True, "exitcode": 3})
    nothing = [*content(b""), *content(b"")]
    started = job(prepare(STARTED, *nothing, ended, *output, *output))
    started.wait_for_output("ready")
    assert started.finish().code == 3


def test_output_that_does_not_come_before_the_end_is_an_error(prepare: Prepare) -> None:
    output = [*content(b"something"), *content(b" else")]
    ended = returned({"exited": True, "exitcode": 0})
    started = job(prepare(STARTED, *output, ended, *output))
    with pytest.raises(LabError, match=r"(?s)does not write 'ready'.*something else"):
        started.wait_for_output("ready")


def test_a_program_that_does_not_end_is_killed(prepare: Prepare) -> None:
    started = job(prepare(STARTED, RUNNING, RUNNING, returned({"pid": 43})))
    with pytest.raises(LabError, match="/bin/x does not end"):
        started.finish(seconds=0)


def test_a_refusal_is_an_error(prepare: Prepare) -> None:
    agent = prepare({"error": {"class": "GenericError", "desc": "no such file"}})
    with pytest.raises(LabError, match="the agent cannot file-open: no such file"):
        agent.read_file("/no/such")


def test_a_file_that_is_written_in_part_is_an_error(prepare: Prepare) -> None:
    agent = prepare(returned(7), returned({"count": 3, "eof": False}))
    with pytest.raises(LabError, match="/file took only 3 bytes"):
        agent.write_file("/file", b"four")


def test_a_machine_that_ends_is_an_error(prepare: Prepare) -> None:
    with pytest.raises(LabError, match="the machine ended before its agent answered ping"):
        prepare().wait(seconds=10)


def test_an_agent_that_says_nothing_is_given_up(prepare: Prepare) -> None:
    with pytest.raises(LabError, match="the agent does not answer ping"):
        prepare(end=False).wait(seconds=0.01)

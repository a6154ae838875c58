"""The programs that run in the lab's machines, between processes of this machine."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.vm.guest import peers, streams

SECONDS = 60


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start(stack: ExitStack, module: str, *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", f"tests.vm.guest.{module}", *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )
    stack.enter_context(process)
    stack.callback(process.kill)
    return process


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def test_a_stream_is_held_up_until_it_is_read_and_arrives_whole(
    stack: ExitStack, tmp_path: Path
) -> None:
    address = f"unix:{tmp_path}/s"
    late, later = str(tmp_path / "late"), str(tmp_path / "later")
    server = start(stack, "streams", "serve", address, "--go", late)
    assert line(server) == streams.READY
    client = start(stack, "streams", "connect", address, "--go", later)
    for sender, reader, go in ((client, server, late), (server, client, later)):
        words = line(sender).rsplit(" ", 1)
        assert words[0] == streams.HELD_UP
        assert int(words[1]) < streams.SIZE
        Path(go).touch()
        side = "connect" if sender is client else "serve"
        digest = hashlib.sha256(streams.content(side)).hexdigest()
        assert line(reader) == f"received {streams.SIZE} {digest}"
    assert [process.wait(SECONDS) for process in (client, server)] == [0, 0]


def test_a_peer_that_holds_and_one_that_dials(stack: ExitStack, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/s"
    holder = start(stack, "peers", "hold", address)
    assert line(holder) == peers.LISTENING
    dialler = start(stack, "peers", "dial", address)
    assert line(holder) == peers.ACCEPTED
    holder.kill()
    assert line(dialler) == peers.CLOSED
    nobody = start(stack, "peers", "dial", address)
    assert line(nobody).startswith("errno ")

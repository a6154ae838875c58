import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from tests.vm import guard

SECONDS: Final = 30.0
FOREVER: Final = ("/bin/sleep", "1000")


def start(descriptor: int, *command: str, seconds: float = SECONDS) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", guard.__file__, str(seconds), str(descriptor), *command],
        pass_fds=[descriptor],
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate(timeout=SECONDS)
    return process.returncode, said


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 9", 9), ("kill -TERM $$", 143)])
def test_the_code_is_the_programs(script: str, code: int) -> None:
    reading, writing = os.pipe()
    process = start(reading, "/bin/sh", "-c", script)
    assert outcome(process) == (code, "")
    os.close(reading)
    os.close(writing)


def test_a_program_past_its_time_is_killed() -> None:
    reading, writing = os.pipe()
    process = start(reading, *FOREVER, seconds=0.2)
    # Standard error ends only when the program, which has it too, is gone.
    assert outcome(process) == (guard.TIME_IS_OVER, "guard: not done in 0.2 s\n")
    os.close(reading)
    os.close(writing)


def test_a_program_whose_starter_is_gone_is_killed() -> None:
    reading, writing = os.pipe()
    process = start(reading, *FOREVER)
    os.close(reading)
    os.close(writing)
    said = "guard: whoever started this is gone\n"
    assert outcome(process) == (guard.STARTER_IS_GONE, said)


def test_a_starter_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import os, subprocess, sys\n"
        "reading, writing = os.pipe()\n"
        "command = [sys.executable, '-I', sys.argv[1], '1000', str(reading), *sys.argv[2:]]\n"
        "subprocess.Popen(command, pass_fds=[reading], start_new_session=True).wait()\n"
    )
    marker = tmp_path / "started"
    program = ("/bin/sh", "-c", f"touch {marker}; exec sleep 1000")
    starter = subprocess.Popen(
        [sys.executable, "-c", script, guard.__file__, *program], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + SECONDS
    while not marker.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    starter.kill()
    _, said = starter.communicate(timeout=SECONDS)
    assert said == "guard: whoever started this is gone\n"

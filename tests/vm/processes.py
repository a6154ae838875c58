"""Waits, in tests of programs that start others, for what the others do."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

SECONDS: Final = 30.0


def wait_for(ready: Callable[[], bool]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + SECONDS
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_for_end(pid: int) -> None:
    """Wait until there is no such process, or nothing but its exit code is left."""
    wait_for(lambda: _ended(pid))


def _ended(pid: int) -> bool:
    try:
        # proc_pid_stat(5): the state follows the name, which may have parentheses of its own
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"

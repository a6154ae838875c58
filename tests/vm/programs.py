"""Runs programs on this machine, each with a time limit, and says in one line why one failed."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

UNAVAILABLE: Final = 77
"""The exit code of a program that this machine lacks something for."""


class LabError(Exception):
    """The lab cannot be built, or something in it is wrong."""


class LabUnavailableError(LabError):
    """This machine lacks what the lab needs."""


def run(command: Sequence[str], *, doing: str, seconds: float, cwd: Path | None = None) -> str:
    """Return a program's standard output.

    Raises:
        LabUnavailableError: The program is missing or exits with code 77.
        LabError: The program fails, or does not end within `seconds`.
    """
    try:
        process = subprocess.Popen(
            command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip
    except OSError as error:
        raise LabUnavailableError(f"cannot {doing}: {error.strerror}: {command[0]}") from error
    with process:
        try:
            output, complaints = process.communicate(timeout=seconds)
        except BaseException as error:
            process.terminate()  # SIGTERM, so that the image builder can clean up
            if isinstance(error, subprocess.TimeoutExpired):
                raise LabError(f"cannot {doing}: not done in {seconds:.0f} s") from None
            raise
    if process.returncode:
        failure = LabUnavailableError if process.returncode == UNAVAILABLE else LabError
        raise failure(f"cannot {doing}: {_complaint(complaints)}")
    return output


def _complaint(stderr: str) -> str:
    """Return apt's first error, or the last line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("E:")]
    return (errors or lines[-1:] or ["no reason given"])[0]

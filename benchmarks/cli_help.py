"""`foobar-instance --help` and `--version` as whole processes, beside importing click alone."""

from __future__ import annotations

import sys
from typing import Final

from benchmarks.report import Section, ratio_of
from benchmarks.rounds import Contestant, process_seconds, take

_PROGRAM: Final = "from foobar_instance.cli import main; main()"  # what the installed script does
_BOUND: Final = 1.15


def run(rounds: int) -> Section:
    """Milliseconds from before the process starts to after it has ended."""
    measured = take(
        [
            _process("python -c pass", "pass"),
            _process("import click", "import click"),
            _process("foobar-instance --help", _PROGRAM, "--help"),
            _process("foobar-instance --version", _PROGRAM, "--version"),
        ],
        # A process is short, and a noisy machine's median needs many.
        rounds=rounds * 3,
        unit="ms",
    )
    click = measured["import click"]
    return Section(
        name="cli-help",
        work="One whole process of the same interpreter, files cached.",
        measurements=tuple(measured.values()),
        ratios=(
            ratio_of(measured["foobar-instance --help"], click, bound=_BOUND, better="lower"),
            ratio_of(measured["foobar-instance --version"], click, bound=_BOUND, better="lower"),
            ratio_of(click, measured["python -c pass"]),
        ),
    )


def _process(who: str, code: str, *arguments: str) -> Contestant:
    command = [sys.executable, "-c", code, *arguments]
    return Contestant(who, lambda: process_seconds(command) * 1000)

"""`foobar-instance --help` and `--version` as whole processes, beside importing click alone."""

from __future__ import annotations

from typing import Final

from benchmarks.processes import PROGRAM, interpreter
from benchmarks.report import Section, ratio_of
from benchmarks.rounds import take

_BOUND: Final = 1.15


def run(rounds: int) -> Section:
    """Milliseconds from before the process starts to after it has ended."""
    with interpreter() as python:
        measured = take(
            [
                python.contestant("python -c pass", "pass"),
                python.contestant("import click", "import click"),
                python.contestant("foobar-instance --help", PROGRAM, "--help"),
                python.contestant("foobar-instance --version", PROGRAM, "--version"),
            ],
            rounds=rounds * 3,  # a process is short, and a noisy machine's median needs many
            unit="ms",
        )
    click = measured["import click"]
    return Section(
        name="cli-help",
        work="One whole process of the same interpreter, modules compiled and files cached.",
        measurements=tuple(measured.values()),
        ratios=(
            ratio_of(measured["foobar-instance --help"], click, bound=_BOUND, better="lower"),
            ratio_of(measured["foobar-instance --version"], click, bound=_BOUND, better="lower"),
            ratio_of(click, measured["python -c pass"]),
        ),
    )

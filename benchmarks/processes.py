"""Whole processes of this interpreter as contestants, each with its modules compiled already."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.rounds import Contestant, process_seconds

PROGRAM: Final = "from foobar_instance.cli import main; main()"  # what the installed script does
_REPOSITORY: Final = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Interpreter:
    """Starts Python processes that keep what they compile in a folder of the benchmark's own.

    A process that compiles its modules again, for want of a place to keep them, measures the
    compiler. The round that does not count is the one that compiles.
    """

    environment: Mapping[str, str]

    def contestant(
        self, who: str, code: str, *arguments: str, more: Mapping[str, str] | None = None
    ) -> Contestant:
        """One that runs `code`; its samples are wall-clock milliseconds of the whole process."""
        command = [sys.executable, "-c", code, *arguments]
        environment = {**self.environment, **(more or {})}

        def sample() -> float:
            return process_seconds(command, environment=environment, folder=_REPOSITORY) * 1000

        return Contestant(who, sample)


@contextmanager
def interpreter(base: Mapping[str, str] = os.environ) -> Iterator[Interpreter]:
    """An interpreter whose compiled modules last as long as the context."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            name: value
            for name, value in base.items()
            if name not in {"PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
        }
        yield Interpreter({**environment, "PYTHONPYCACHEPREFIX": folder})

"""Builds the two-machine lab, and runs its scenario.

    python -m tests.vm [--cache DIRECTORY] [pytest's arguments]

Exit code: 0 if all tests passed; 77 if this machine lacks what the lab needs; 1 otherwise, and then
the directory with the machines' consoles is named.
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import pytest

from tests.vm import images
from tests.vm.images import Lab
from tests.vm.parent_root import PROJECT
from tests.vm.programs import UNAVAILABLE, LabError, LabUnavailableError

SCENARIO: Final = PROJECT / "tests/vm/scenario"
# Not /tmp, which may be in memory: all together takes more than a gigabyte.
BELOW: Final = Path("/var/tmp")  # noqa: S108 - a directory of its own is made there


@dataclass(frozen=True)
class LabPlugin:
    """What the scenario gets: the lab, and the directory for the machines' consoles."""

    lab: Lab
    logs: Path
    __name__ = "lab"  # by which pytest knows the plugin


class Counter:
    """Counts the tests that passed, because pytest succeeds with skipped tests too."""

    def __init__(self) -> None:
        self._missing = 0

    @property
    def all_passed(self) -> bool:
        """Whether each test that was selected ran and passed."""
        return self._missing == 0

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Count a skipped file."""
        self._missing += report.skipped

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Count the tests to run."""
        self._missing += len(session.items)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test that passed."""
        self._missing -= report.when == "call" and report.passed


def run_scenario(arguments: Sequence[str], plugins: Sequence[object] = ()) -> int:
    """Run pytest, and return 0 if each test that was selected ran and passed, or else 1."""
    counter = Counter()
    options = ["--verbose", "--durations=5", "-p", "no:cacheprovider"]
    code = pytest.main([*options, *arguments], plugins=[counter, *plugins])
    return 0 if code == 0 and counter.all_passed else 1


def main() -> int:
    """Build, run, and remove everything but the logs of a failure."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm")
    parser.add_argument("--cache", type=Path, help="keep Debian's packages in this directory")
    options, arguments = parser.parse_known_args()
    signal.signal(signal.SIGTERM, _interrupt)
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"== {time.monotonic() - began:5.1f} s: {text}", flush=True)  # noqa: T201

    directory = Path(tempfile.mkdtemp(prefix="lab.", dir=BELOW))
    logs = directory / "logs"
    logs.mkdir()
    code = 1
    try:
        cache = options.cache or directory / "cache"
        lab = images.build_lab(directory, cache=cache, say=say)
        code = run_scenario([*arguments, f"{SCENARIO}"], [LabPlugin(lab, logs)])
    except LabUnavailableError as error:
        print(f"python -m tests.vm: cannot run here: {error}", file=sys.stderr)  # noqa: T201
        code = UNAVAILABLE
    except (LabError, KeyboardInterrupt) as error:
        print(f"python -m tests.vm: {str(error) or 'interrupted'}", file=sys.stderr)  # noqa: T201
    finally:
        _remove(directory, keep=logs if code == 1 else None)
    say("all is well" if code == 0 else f"failed; the machines' consoles are in {logs}")
    return code


def _remove(directory: Path, *, keep: Path | None) -> None:
    for path in directory.iterdir():
        if path != keep and path.is_dir():
            shutil.rmtree(path)
        elif path != keep:
            path.unlink()
    if keep is None:
        directory.rmdir()


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
